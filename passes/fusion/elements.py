"""Following a value down to what its elements are, through arange, comparisons and broadcasts.

Sizes may be symbolic. What can't be followed is unknown, and nothing is concluded from that. Inputs
and constants are unknown: a program serves other numbers, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import sympy
import torch

from rewright.ir.graph import Node, Value
from rewright.ir.sizes import Dim, Ranges, is_true, same
from rewright.ir.types import TensorType
from rewright.passes.fusion.affine import (
    ALWAYS,
    NEVER,
    Affine,
    Choice,
    Condition,
    Fact,
    dims_in,
    mapped,
    number_fact,
    one_number,
)

_DEEP: Final = 64
"""So many steps down a value is followed."""


class Study:
    """One look at a mask: what was found of each value on the way."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self.known: dict[Value, Fact] = {}
        self.depth = 0

    def of(self, value: Value) -> Fact:
        """What the elements of `value` are."""
        if value not in self.known:
            node = value.producer
            follow = _FOLLOW.get(node.op.name) if node is not None else None
            fact = None
            if node is not None and follow is not None and self.depth < _DEEP:
                self.depth += 1
                fact = follow(self, node)
                self.depth -= 1
            self.known[value] = self._without_units(_as_held(fact, value), value)
        return self.known[value]

    def item(self, item: Any) -> Fact:
        """What an argument is: a value of the graph, or a number."""
        if isinstance(item, Value):
            return self.of(item)
        return number_fact(item)

    def _without_units(self, fact: Fact, value: Value) -> Fact:
        """`fact` without the indices of dimensions of size 1, which are 0."""
        if not isinstance(value.type, TensorType):
            return None
        shape = value.type.shape
        units = {at - len(shape) for at, dim in enumerate(shape) if dim == 1}
        if not units:
            return fact

        def dropped(affine: Affine) -> Affine:
            kept = frozenset(item for item in affine.factors if item[0] not in units)
            return Affine(affine.const, kept)

        return mapped(fact, dropped)

    # -- proofs

    def at_least_zero(self, affine: Affine, shape: tuple[Dim, ...]) -> bool | None:
        """Whether `affine` is at least 0 at every index of `shape`: True, False at all, or None."""
        low = high = affine.const
        for dim, factor in affine.factors:
            end = factor * (shape[dim] - 1)
            low, high = (low, high + end) if factor > 0 else (low + end, high)
        if is_true(_ge(low, 0), self.ranges):
            return True
        return False if is_true(_ge(-1, high), self.ranges) else None

    def simplified(self, condition: Condition, shape: tuple[Dim, ...]) -> Condition:
        """`condition` without what always holds at the indices of `shape`."""
        left = []
        for atom in condition.atoms or ():
            holds = self.at_least_zero(atom, shape)
            if holds is False:
                return NEVER
            if holds is None:
                left.append(atom)
        return condition if condition.atoms is None else Condition(frozenset(left))


def _ge(a: Dim, b: Dim) -> Any:
    return sympy.Ge(a, b)


def _shape(item: Any) -> tuple[Dim, ...]:
    """The shape of a value; of a number, none."""
    return item.type.shape if isinstance(item, Value) and isinstance(item.type, TensorType) else ()


def _dtype(node: Node) -> torch.dtype:
    assert isinstance(node.result.type, TensorType)
    return node.result.type.dtype


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


# --------------------------------------------------------------------------- sources


def _arange(study: Study, node: Node) -> Fact:
    arguments = node.arguments()
    start, step = arguments.get("start", 0), arguments.get("step", 1)
    if not _is_integer(_dtype(node)) or not isinstance(step, int) or isinstance(start, Value):
        return None
    first = study.item(start)
    return first.plus(Affine(0, frozenset({(-1, step)}))) if isinstance(first, Affine) else None


def _filled(name: str | None, number: float = 0) -> Callable[[Study, Node], Fact]:
    """A tensor of one number: the argument `name`, or `number`."""

    def follow(study: Study, node: Node) -> Fact:
        return _as_dtype(study.item(node.arg(name) if name else number), _dtype(node))

    return follow


def _as_held(fact: Fact, value: Value) -> Fact:
    """`fact` as a value of its dtype holds it: rounded; None where that is of another kind."""
    if not isinstance(value.type, TensorType):
        return None
    dtype = value.type.dtype
    if dtype.is_floating_point:
        return _as_dtype(fact, dtype) if isinstance(fact, Choice) else None
    held = Condition if dtype == torch.bool else Affine
    return fact if isinstance(fact, held) else None


def _as_dtype(fact: Fact, dtype: torch.dtype) -> Fact:
    """What becomes of elements that are cast to `dtype`."""
    if isinstance(fact, Choice):
        if dtype.is_floating_point:
            return fact.map(
                lambda number: float(torch.tensor(number, dtype=torch.float64).to(dtype))
            )
        return None
    if isinstance(fact, Condition):
        if dtype == torch.bool:
            return fact
        return Choice(fact, 1.0, 0.0) if dtype.is_floating_point else None
    if isinstance(fact, Affine):
        if _is_integer(dtype):
            return fact
        if not fact.factors and isinstance(fact.const, int):
            number = int(fact.const)
            return number_fact(bool(number)) if dtype == torch.bool else number_fact(float(number))
    return None


def _cast(study: Study, node: Node) -> Fact:
    return _as_dtype(study.of(node.operands[0]), _dtype(node))


# --------------------------------------------------------------------------- arithmetic


def _sum(sign: int) -> Callable[[Study, Node], Fact]:
    def follow(study: Study, node: Node) -> Fact:
        a, b = study.item(node.arg("self")), study.item(node.arg("other"))
        if node.arguments().get("alpha", 1) != 1:
            return None
        if isinstance(a, Affine) and isinstance(b, Affine):
            return a.plus(b, sign)
        return _with_number(a, b, lambda x, y: x + sign * y)

    return follow


def _rsub(study: Study, node: Node) -> Fact:
    a, b = study.item(node.arg("self")), study.item(node.arg("other"))
    if node.arguments().get("alpha", 1) != 1:
        return None
    if isinstance(a, Affine) and isinstance(b, Affine):
        return b.plus(a, -1)
    return _with_number(a, b, lambda x, y: y - x)


def _product(study: Study, node: Node) -> Fact:
    a, b = study.item(node.arg("self")), study.item(node.arg("other"))
    if isinstance(a, Condition) and isinstance(b, Condition):
        return a.both(b)
    if isinstance(a, Affine) and isinstance(b, Affine):
        for one, other in ((a, b), (b, a)):
            if not other.factors and isinstance(other.const, int):
                return one.times(int(other.const))
        return None
    return _with_number(a, b, lambda x, y: x * y)


def _with_number(a: Fact, b: Fact, function: Callable[[float, float], float]) -> Fact:
    """A choice of numbers, and one number, combined."""
    number = one_number(b)
    if isinstance(a, Choice) and number is not None:
        found = a.map(lambda x: function(x, number))
        return found if all(item == item for item in (found.yes, found.no)) else None
    return None


# --------------------------------------------------------------------------- comparisons


def _compared(sign: str) -> Callable[[Study, Node], Fact]:
    def follow(study: Study, node: Node) -> Fact:
        a, b = study.item(node.arg("self")), study.item(node.arg("other"))
        if not isinstance(a, Affine) or not isinstance(b, Affine):
            return None
        atoms = _ATOMS[sign](a.plus(b, -1))
        if atoms is None:
            return None
        shape = node.result.type.shape if isinstance(node.result.type, TensorType) else ()
        return study.simplified(Condition(frozenset(atoms)), shape)

    return follow


def _different(difference: Affine) -> tuple[Affine, ...] | None:
    """``difference != 0``, which is two conditions unless it is a number."""
    if difference.factors or not isinstance(difference.const, int):
        return None
    return () if difference.const else (Affine(-1),)


_ATOMS: Final[dict[str, Callable[[Affine], tuple[Affine, ...] | None]]] = {
    "ge": lambda d: (d,),
    "gt": lambda d: (d.plus(Affine(-1)),),
    "le": lambda d: (d.times(-1),),
    "lt": lambda d: (d.times(-1).plus(Affine(-1)),),
    "eq": lambda d: (d, d.times(-1)),
    "ne": _different,
}


def _and(study: Study, node: Node) -> Fact:
    a, b = study.item(node.arg("self")), study.item(node.arg("other"))
    if NEVER in (a, b):
        return NEVER
    both = isinstance(a, Condition) and isinstance(b, Condition)
    return a.both(b) if both else None  # type: ignore[union-attr,arg-type]


def _or(study: Study, node: Node) -> Fact:
    a, b = study.item(node.arg("self")), study.item(node.arg("other"))
    if ALWAYS in (a, b):
        return ALWAYS
    return b if a == NEVER else a if b == NEVER else None


def _not(study: Study, node: Node) -> Fact:
    inner = study.of(node.operands[0])
    return inner.negated() if isinstance(inner, Condition) else None


# --------------------------------------------------------------------------- choices


def _where(study: Study, node: Node) -> Fact:
    condition = study.item(node.arg("condition"))
    yes, no = study.item(node.arg("self")), study.item(node.arg("other"))
    return _chosen(condition, yes, no)


def _chosen(condition: Fact, yes: Fact, no: Fact) -> Fact:
    if condition == ALWAYS:
        return yes
    if condition == NEVER:
        return no
    a, b = one_number(yes), one_number(no)
    if not isinstance(condition, Condition) or a is None or b is None:
        return None
    return Choice(condition, a, b)


def _masked_fill(study: Study, node: Node) -> Fact:
    mask, inside = study.item(node.arg("mask")), study.item(node.arg("self"))
    number = one_number(study.item(node.arg("value")))
    if isinstance(inside, Choice) and isinstance(mask, Condition) and number == inside.no:
        kept = mask.negated()
        return None if kept is None else Choice(inside.condition.both(kept), inside.yes, number)
    return _chosen(mask, study.item(node.arg("value")), inside)


def _triangle(lower: bool) -> Callable[[Study, Node], Fact]:
    def follow(study: Study, node: Node) -> Fact:
        diagonal = node.arguments().get("diagonal", 0)
        if not isinstance(diagonal, int):
            return None
        distance = Affine(diagonal, frozenset({(-2, 1), (-1, -1)}))  # i - j + diagonal
        kept = Condition(frozenset([distance if lower else distance.times(-1)]))
        inside = study.of(node.operands[0])
        if isinstance(inside, Condition):
            return inside.both(kept)
        number = one_number(inside)
        return None if number is None else Choice(kept, number, 0.0)

    return follow


# --------------------------------------------------------------------------- shapes


def _moved(study: Study, node: Node, order: Callable[[int], list[int | None]]) -> Fact:
    """What is left where each dimension of the result was one of the operand's, or is new.

    Args:
        study: the study.
        node: has one operand.
        order: takes the operand's rank; for each dimension of the result, which it was.
    """
    fact, shape = study.of(node.operands[0]), _shape(node.operands[0])
    rank = len(shape)
    was = order(rank)
    places = {old - rank: new - len(was) for new, old in enumerate(was) if old is not None}
    if not dims_in(fact) <= set(places):
        return None
    return mapped(fact, lambda affine: affine.moved(places))


def _unsqueeze(study: Study, node: Node) -> Fact:
    at = node.arg("dim")
    return _moved(study, node, lambda rank: _inserted(rank, at + rank + 1 if at < 0 else at))


def _inserted(rank: int, at: int) -> list[int | None]:
    return [*range(at), None, *range(at, rank)]


def _squeeze(study: Study, node: Node) -> Fact:
    at = node.arg("dim")
    shape = _shape(node.operands[0])
    if not isinstance(at, int) or not shape or shape[at] != 1:
        return None
    return _moved(study, node, lambda rank: [dim for dim in range(rank) if dim != at % rank])


def _transpose(study: Study, node: Node) -> Fact:
    def order(rank: int) -> list[int | None]:
        dims: list[int | None] = list(range(rank))
        a, b = node.arg("dim0") % rank, node.arg("dim1") % rank
        dims[a], dims[b] = dims[b], dims[a]
        return dims

    return _moved(study, node, order)


def _permute(study: Study, node: Node) -> Fact:
    return _moved(study, node, lambda rank: [dim % rank for dim in node.arg("dims")])


def _reshape(study: Study, node: Node) -> Fact:
    """Only dimensions of size 1 come or go."""
    old, new = _shape(node.operands[0]), _shape(node.result)
    kept = [at for at, dim in enumerate(old) if dim != 1]
    at_new = [at for at, dim in enumerate(new) if dim != 1]
    if [old[at] for at in kept] != [new[at] for at in at_new]:
        return None
    was: list[int | None] = [None] * len(new)
    for before, after in zip(kept, at_new, strict=True):
        was[after] = before
    return _moved(study, node, lambda rank: was)


def _expand(study: Study, node: Node) -> Fact:
    return study.of(node.operands[0])


def _slice(study: Study, node: Node) -> Fact:
    given = node.arguments()
    start, step = given.get("start") or 0, given.get("step", 1)
    if not isinstance(step, int) or is_true(_ge(_size(start), 0), study.ranges) is not True:
        return None
    dim = _from_end(node, given.get("dim", 0))
    return _substituted(study.of(node.operands[0]), {dim: Affine(start, frozenset({(dim, step)}))})


def _size(item: Any) -> Any:
    return item if isinstance(item, int | sympy.Basic) else -1


def _from_end(node: Node, dim: int) -> int:
    rank = len(_shape(node.operands[0]))
    return dim if dim < 0 else dim - rank


def _select(study: Study, node: Node) -> Fact:
    index = node.arg("index")
    if not isinstance(index, int) or index < 0:
        return None
    at = _from_end(node, node.arg("dim"))
    inside = _substituted(study.of(node.operands[0]), {at: Affine(index)})
    return mapped(
        inside,
        lambda affine: affine.moved({dim: dim + 1 if dim < at else dim for dim in affine.by_dim}),
    )


def _substituted(fact: Fact, forms: Mapping[int, Affine]) -> Fact:
    """`fact` with affine forms in the place of the indices of some dimensions."""

    def put(affine: Affine) -> Affine:
        total = Affine(affine.const)
        for dim, factor in affine.factors:
            total = total.plus(forms.get(dim, Affine(0, frozenset({(dim, 1)}))), factor)
        return total

    return mapped(fact, put)


def _index(study: Study, node: Node) -> Fact:
    """``x[i, j]``: the element at the positions that the indices are."""
    x, indices = node.operands[0], node.arg("indices")
    fact, rank = study.of(x), len(_shape(x))
    needed = dims_in(fact)
    if fact is None or len(indices) != rank or None in indices:
        return fact if fact is not None and not needed else None
    forms = {}
    for at, index in enumerate(indices):
        form = study.of(index)
        if at - rank not in needed:
            continue
        if not isinstance(form, Affine) or not study.at_least_zero(form, _shape(index)):
            return None
        forms[at - rank] = form
    return _substituted(fact, forms)


# --------------------------------------------------------------------------- along a dimension


def _diff(study: Study, node: Node) -> Fact:
    """``x[i] - x[i-1]``, the first of which is of what is prepended."""
    given = node.arguments()
    dim = _from_end(node, given.get("dim", -1))
    x = study.of(node.operands[0])
    if not isinstance(x, Affine) or given.get("n", 1) != 1 or given.get("append") is not None:
        return None
    step = Affine(x.by_dim.get(dim, 0))
    before = given.get("prepend")
    if before is None:
        return step
    first = _substituted(x, {dim: Affine(0)})
    earlier = study.item(before)
    if not isinstance(first, Affine) or not isinstance(earlier, Affine) or _shape(before)[dim] != 1:
        return None
    gap = first.plus(earlier, -1).plus(step, -1)
    return step if not gap.factors and same(gap.const, 0, study.ranges) else None


def _cumsum(study: Study, node: Node) -> Fact:
    fact = study.of(node.operands[0])
    if not _is_integer(_dtype(node)):
        return None
    dim = _from_end(node, node.arg("dim"))
    number = {NEVER: 0, ALWAYS: 1}.get(fact) if isinstance(fact, Condition) else None
    if isinstance(fact, Affine) and not fact.factors and isinstance(fact.const, int):
        number = int(fact.const)
    if number is None:
        return None
    grows = number and _shape(node.result)
    return Affine(number, frozenset({(dim, number)} if grows else ()))


# --------------------------------------------------------------------------- the table

Follow: TypeAlias = "Callable[[Study, Node], Fact]"


def _named(names: str, follow: Follow) -> Iterable[tuple[str, Follow]]:
    return ((f"aten.{name}", follow) for name in names.split())


_FOLLOW: Final[dict[str, Follow]] = {
    **dict(_named("arange arange.start arange.start_step", _arange)),
    **dict(_named("zeros zeros_like new_zeros", _filled(None, 0))),
    **dict(_named("ones ones_like new_ones", _filled(None, 1))),
    **dict(_named("full full_like new_full", _filled("fill_value"))),
    **dict(_named("scalar_tensor", _filled("s"))),
    **dict(_named("_to_copy", _cast)),
    **dict(_named("add.Tensor add.Scalar", _sum(1))),
    **dict(_named("sub.Tensor sub.Scalar", _sum(-1))),
    **dict(_named("rsub.Scalar rsub.Tensor", _rsub)),
    **dict(_named("mul.Tensor mul.Scalar", _product)),
    **{f"aten.{sign}.{kind}": _compared(sign) for sign in _ATOMS for kind in ("Tensor", "Scalar")},
    **dict(_named("__and__.Tensor bitwise_and.Tensor logical_and", _and)),
    **dict(_named("__or__.Tensor bitwise_or.Tensor logical_or", _or)),
    **dict(_named("bitwise_not logical_not", _not)),
    **dict(_named("where.self where.Scalar where.ScalarSelf where.ScalarOther", _where)),
    **dict(_named("masked_fill.Scalar masked_fill.Tensor", _masked_fill)),
    "aten.tril": _triangle(True),
    "aten.triu": _triangle(False),
    "aten.unsqueeze": _unsqueeze,
    "aten.squeeze.dim": _squeeze,
    "aten.transpose.int": _transpose,
    "aten.permute": _permute,
    "aten.reshape": _reshape,
    "aten.expand": _expand,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.index.Tensor": _index,
    "aten.diff": _diff,
    "aten.cumsum": _cumsum,
}
