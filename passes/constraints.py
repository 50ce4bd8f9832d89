"""What a single item of a graph must be for a variable or a literal: None, or why it is not.

An item is what stands at one place of a node: a Value, None, an attribute, a tuple of items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from rewright.ir.graph import Node, Value
from rewright.ir.types import DTYPE_NAMES, ScalarType, TensorType
from rewright.passes.facts import Unknown, UnknownFact, ranges_of
from rewright.passes.handles import name_of, wrap
from rewright.passes.reasons import NoMatch
from rewright.passes.variables import Attr, Many, Maybe, Scalar, Tensor, Variable

Check = Callable[[Any], "NoMatch | None"]


def check_of(variable: Variable) -> Check:
    """The function that checks an item for `variable`."""
    match variable:
        case Maybe(inner):
            return _optional(check_of(inner))
        case Many(inner, low, high):
            return _list_of(variable, check_of(inner), low, high)
        case Tensor():
            return lambda item: _tensor(variable, item)
        case Attr():
            return lambda item: _attribute(variable, item)
        case Scalar():
            return lambda item: _number(variable, item)
    raise AssertionError(f"{variable!r} is bound by the node that it belongs to")


# --------------------------------------------------------------------------- values


def _tensor(variable: Tensor, item: Any) -> NoMatch | None:
    if not isinstance(item, Value) or not isinstance(item.type, TensorType):
        return NoMatch("{0} must be a tensor, and is {1}", variable, Shown(item))
    if variable.constant and not item.is_constant:
        return NoMatch("{0} must be a constant, and is {1}", variable, Shown(item))
    if variable.rank and item.type.rank not in variable.rank:
        wanted = " or ".join(map(str, variable.rank))
        return NoMatch(
            "{0} = {1} must have rank {2}: {3}", variable, Shown(item), wanted, item.type
        )
    if variable.dtype and item.type.dtype not in variable.dtype:
        wanted = " or ".join(DTYPE_NAMES[dtype] for dtype in variable.dtype)
        return NoMatch("{0} = {1} must be {2}: {3}", variable, Shown(item), wanted, item.type)
    return _predicate(variable, variable.where, item)


def _predicate(variable: Variable, where: Callable[[Any], Any] | None, item: Any) -> NoMatch | None:
    if where is None:
        return None
    ranges = ranges_of(item.graph) if isinstance(item, Value) else {}
    try:
        found = where(wrap(item, ranges))
        refused = isinstance(found, Unknown) or not found
    except UnknownFact as unknown:
        found, refused = NoMatch("{0}", unknown), True
    if not refused:
        return None
    if isinstance(found, NoMatch):
        return found
    return NoMatch("{0} = {1} is not what its `where` asks for", variable, Shown(item))


# --------------------------------------------------------------------------- attributes


def _attribute(variable: Attr, item: Any) -> NoMatch | None:
    if _holds_value(item):
        return NoMatch("{0} must be an attribute, and is {1}", variable, Shown(item))
    if variable.kind and not any(_is_a(item, kind) for kind in variable.kind):
        wanted = " or ".join(kind.__name__ for kind in variable.kind)
        return NoMatch("{0} must be {1}, and is {2}", variable, wanted, Shown(item))
    return _predicate(variable, variable.where, item)


def _holds_value(item: Any) -> bool:
    return isinstance(item, Value) or (isinstance(item, tuple) and any(map(_holds_value, item)))


def _is_a(item: Any, kind: type) -> bool:
    """Whether `item` is of class `kind`; bools are no ints."""
    return isinstance(item, kind) and (kind is bool or not isinstance(item, bool))


def _number(variable: Scalar, item: Any) -> NoMatch | None:
    if isinstance(item, Value):
        kind = item.type.kind if isinstance(item.type, ScalarType) else None
        is_number = kind is not None
    else:
        kind = type(item).__name__
        is_number = isinstance(item, int | float)
    if not is_number or (variable.kind and kind not in [k.__name__ for k in variable.kind]):
        wanted = " or ".join(k.__name__ for k in variable.kind) or "a number"
        return NoMatch("{0} must be {1}, and is {2}", variable, wanted, Shown(item))
    return _predicate(variable, variable.where, item)


# --------------------------------------------------------------------------- none, lists


def _optional(inner: Check) -> Check:
    return lambda item: None if item is None else inner(item)


def _list_of(variable: Many, inner: Check, low: int, high: int | None) -> Check:
    def check(item: Any) -> NoMatch | None:
        if not isinstance(item, tuple):
            return NoMatch("{0} must be a list, and is {1}", variable, Shown(item))
        if len(item) < low or (high is not None and len(item) > high):
            bound = f"at least {low}" if high is None else f"{low} to {high}"
            return NoMatch("{0} must have {1} items, and has {2}", variable, bound, len(item))
        return next((why for part in item if (why := inner(part)) is not None), None)

    return check


# --------------------------------------------------------------------------- equality


def same_item(a: Any, b: Any) -> bool:
    """Whether two items are the same: values by identity, attributes by structure."""
    if isinstance(a, Value) or isinstance(b, Value):
        return a is b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_item, a, b))
    if a is b or type(a) is not type(b):
        return a is b
    if isinstance(a, float | complex | dict):  # nan is itself, and 0.0 is not -0.0
        return repr(a) == repr(b)
    return bool(a == b)


_DIMENSIONS: Final = frozenset("dim dims dim0 dim1 start_dim end_dim".split())
"""Parameters that name dimensions of the first operand, from the end if negative."""
_OF_THE_RESULT: Final = frozenset(("aten.unsqueeze", "aten.stack"))
"""Ops whose `dim` names a dimension of the result."""


def literal_check(stated: Any, param: str) -> Callable[[Any, Node], bool]:
    """A function that says whether an item of a node is the attribute `stated`.

    Dimensions are the same counted from either end. An int is the same as the float of the same
    value where the node's operand is floating, so that ``x * 2`` and ``x * 2.0`` are one.
    """

    def check(item: Any, node: Node) -> bool:
        if _holds_value(item):
            return False
        if param in _DIMENSIONS and (rank := _rank(node)):
            return same_item(_from_front(stated, rank), _from_front(item, rank))
        if _is_number(stated) and _is_number(item) and type(stated) is not type(item):
            signs = math.copysign(1, stated) == math.copysign(1, item)  # 0 is not -0.0
            return bool(stated == item) and signs and _is_floating(node)
        return same_item(stated, item)

    return check


def near_check(value: float, rel: float) -> Callable[[Any], bool]:
    """A function that says whether an item is a number within `rel` of `value`."""
    return lambda item: _is_number(item) and math.isclose(item, value, rel_tol=rel)


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)


def _first_type(values: Sequence[Value]) -> TensorType | None:
    found = values[0].type if values else None
    return found if isinstance(found, TensorType) else None


def _rank(node: Node) -> int | None:
    counted = node.results if node.op.name in _OF_THE_RESULT else node.operands
    first = _first_type(counted)
    return first.rank if first else None


def _is_floating(node: Node) -> bool:
    first = _first_type(node.operands)
    return first is not None and (first.is_floating_point or first.dtype.is_complex)


def _from_front(dims: Any, rank: int) -> Any:
    if isinstance(dims, tuple):
        return tuple(_from_front(dim, rank) for dim in dims)
    return dims + rank if _is_number(dims) and dims < 0 else dims


# --------------------------------------------------------------------------- text


class Shown:
    """An item as messages show it: the name of a value, the text of an attribute. Lazy."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item

    def __str__(self) -> str:
        if isinstance(self.item, Value):
            return name_of(self.item)
        if isinstance(self.item, tuple):
            return f"[{', '.join(str(Shown(part)) for part in self.item)}]"
        return str(self.item)
