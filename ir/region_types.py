"""Types of nodes with regions: what the regions return, said in the sizes of the graph around.

A region names sizes by symbols of its own, bound by its inputs; the arguments that the node gives
it tell what they are outside. Where two branches return different sizes, or a loop changes one,
the result's size is one that only a run can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import sympy

from rewright.errors import InferenceError
from rewright.ir.attributes import Attributes, Operand
from rewright.ir.graph import Graph
from rewright.ir.ops import Op
from rewright.ir.sizes import Range, Ranges, bounds, same, solve, substitute
from rewright.ir.types import (
    NoneType,
    ScalarType,
    TensorType,
    Type,
    size_at,
    substitute_type,
    type_of_number,
    type_symbols,
)


@attrs.define
class _Call:
    """A node with regions, and the sizes it makes that have no name yet."""

    op: Op
    attributes: Attributes
    operand_types: tuple[Type, ...]
    regions: Sequence[Graph]
    ranges: Ranges
    fresh: dict[sympy.Symbol, Range] = attrs.field(factory=dict)

    def arguments(self, name: str) -> tuple[Type, ...]:
        """The types of the arguments in the tuple called `name`."""
        return tuple(self._type(item) for item in self.attributes.get(name, ()))

    def _type(self, item: Any) -> Type:
        return self.operand_types[item.index] if isinstance(item, Operand) else type_of_number(item)

    def unknown(self, known: Range) -> sympy.Symbol:
        """A size that only a run can tell."""
        dummy = sympy.Dummy("u", integer=True)
        self.fresh[dummy] = known
        return dummy

    def returned(self, number: int, arguments: Sequence[Type]) -> tuple[Type, ...]:
        """What region `number` returns for `arguments`, in the sizes of the graph around it."""
        region = self.regions[number]
        if len(arguments) != len(region.inputs):
            raise InferenceError(
                f"a region of {self.op.name} takes {len(region.inputs)} inputs, "
                f"not {len(arguments)}",
                op=self.op.name,
            )
        inner = {symbol: sympy.Dummy(symbol.name, integer=True) for symbol in region.symbols}
        outer: dict[Any, Any] = {}
        for symbol, info in region.symbols.items():
            found = None
            if info.binding.is_input:
                equation = substitute(info.equation, inner)
                given = size_at(arguments[info.binding.index], info.dim)
                found = solve(substitute(equation, outer), inner[symbol], given)
            covered = info.ranges[0] if info.ranges else Range(None)
            outer[inner[symbol]] = found if found is not None else self.unknown(covered)
        names = {symbol: outer[dummy] for symbol, dummy in inner.items()}
        return tuple(substitute_type(value.type, names) for value in region.outputs)

    def join(self, a: Type, b: Type) -> Type:
        """The type of a value that is of type `a` or of type `b`."""
        match a, b:
            case TensorType(), TensorType() if (a.dtype, a.rank, a.device) == (
                b.dtype,
                b.rank,
                b.device,
            ):
                dims = [self._join_sizes(x, y) for x, y in zip(a.shape, b.shape, strict=True)]
                return TensorType(a.dtype, tuple(dims), a.device)
            case ScalarType(), ScalarType() if a.kind == b.kind:
                return a if a.expr == b.expr else self._number(a.kind)
            case NoneType(), NoneType():
                return a
        raise InferenceError(
            f"{self.op.name} may return {a} or {b}, which have no type in common",
            op=self.op.name,
            hint="let every branch, and every turn of a loop, return the same dtype and rank",
        )

    def _number(self, kind: str) -> ScalarType:
        return ScalarType(kind, self.unknown(Range(None)) if kind == "int" else None)

    def _join_sizes(self, a: Any, b: Any) -> Any:
        if same(a, b, self.ranges) is True:
            return a
        return self.unknown(_covering(a, self.ranges) | _covering(b, self.ranges))


def _covering(size: Any, ranges: Ranges) -> Range:
    if isinstance(size, int):
        return Range(size, None, size)
    known = bounds(size, ranges)
    finite = [int(b) if b.is_finite else None for b in (known.lower, known.upper)]
    return Range(finite[0], None, finite[1])


# --------------------------------------------------------------------------- the rules


def _cond(call: _Call) -> list[Type]:
    given = call.arguments("operands")
    yes, no = call.returned(0, given), call.returned(1, given)
    return [call.join(a, b) for a, b in zip(yes, no, strict=True)]


def _while_loop(call: _Call) -> list[Type]:
    carried = call.arguments("carried_inputs")
    after = call.returned(1, (*carried, *call.arguments("additional_inputs")))
    return [call.join(a, b) for a, b in zip(carried, after, strict=True)]


def _scan(call: _Call) -> list[Type]:
    init, scanned = call.arguments("init"), call.arguments("xs")
    given = (*init, *(_slice(x) for x in scanned), *call.arguments("additional_inputs"))
    returned = call.returned(0, given)
    carry = [call.join(a, b) for a, b in zip(init, returned, strict=False)]
    return carry + [_stack(scanned[0], item) for item in returned[len(init) :]]


def _map(call: _Call) -> list[Type]:
    mapped = call.arguments("xs")
    returned = call.returned(0, (*(_slice(x) for x in mapped), *call.arguments("pos_args")))
    return [_stack(mapped[0], item) for item in returned]


def _segment(call: _Call) -> list[Type]:
    return list(call.returned(0, call.arguments("operands")))


def _slice(stacked: Type) -> Type:
    """One slice along the first dimension."""
    assert isinstance(stacked, TensorType)
    return attrs.evolve(stacked, shape=stacked.shape[1:])


def _stack(like: Type, item: Type) -> Type:
    """As many of `item` as `like` has slices, one after another."""
    if not isinstance(item, TensorType):
        return item
    assert isinstance(like, TensorType)
    return attrs.evolve(item, shape=(like.shape[0], *item.shape))


_RULES: Final[dict[str, Callable[[_Call], list[Type]]]] = {
    "higher_order.cond": _cond,
    "higher_order.while_loop": _while_loop,
    "higher_order.scan": _scan,
    "higher_order.map_impl": _map,
    "rw.segment": _segment,
}


def has_region_rule(op: Op) -> bool:
    """Whether :func:`region_types` knows `op`."""
    return op.name in _RULES


def region_types(
    op: Op,
    attributes: Attributes,
    operand_types: tuple[Type, ...],
    regions: Sequence[Graph],
    ranges: Ranges,
) -> tuple[tuple[Type, ...], tuple[tuple[sympy.Symbol, Range], ...]]:
    """The types of a node with regions; and the symbols in them still to be named, with ranges.

    Raises:
        InferenceError: there is no rule for `op`, or its regions don't fit each other.
    """
    rule = _RULES.get(op.name)
    if rule is None:
        raise InferenceError(
            f"there is no rule for the types of {op.name}", op=op.name, hint="give the types"
        )
    call = _Call(op, attributes, operand_types, regions, ranges)
    types = tuple(rule(call))
    used = {symbol for item in types for symbol in type_symbols(item)}
    return types, tuple((s, known) for s, known in call.fresh.items() if s in used)
