"""Sizes as guards see them: comparisons that are true, false or unknown.

A dimension that is a number is a plain ``int``. One that depends on symbols is a :class:`Size`,
with which one computes as with an int; comparing it gives True or False where that holds for all
sizes, and otherwise an :class:`Unknown`, which refuses to be a truth value:

    def where(self, x, w):
        return x.shape[0] == w.shape[1]      # unknown: the rule does not fire, and says why

So ``not``, ``and``, ``or`` and ``if`` can't mistake "unknown" for either answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import sympy
from torch.utils._sympy import functions as torch_fns

from rewright.ir.attributes import map_leaves
from rewright.ir.graph import Graph
from rewright.ir.sizes import Ranges, format_expr, is_true, simplify


class UnknownFact(Exception):
    """A guard needs to know what depends on the sizes: the rule does not fire."""

    def __init__(self, condition: Any) -> None:
        super().__init__(condition)
        self.condition = condition

    def __str__(self) -> str:
        return f"whether {_text(self.condition)} depends on the sizes"


class Unknown:
    """A fact that holds for some sizes and not for others."""

    __slots__ = ("condition",)

    def __init__(self, condition: Any) -> None:
        self.condition = condition

    def __bool__(self) -> bool:
        raise UnknownFact(self.condition)

    def __repr__(self) -> str:
        return f"Unknown({_text(self.condition)})"


class Size:
    """A dimension that depends on symbols.

    Attributes:
        expr: the expression.
        ranges: what is known of its symbols.
    """

    __slots__ = ("expr", "ranges")

    def __init__(self, expr: sympy.Basic, ranges: Ranges) -> None:
        self.expr = expr
        self.ranges = ranges

    def _make(self, function: Callable[..., Any], *args: Any) -> Any:
        return wrap_sizes(simplify(function(*(unwrap_sizes(arg) for arg in args))), self.ranges)

    def _compare(self, relation: Any, other: Any) -> Any:
        if not isinstance(other, Size | int | float):
            return NotImplemented
        condition = relation(self.expr, unwrap_sizes(other))
        known = is_true(condition, self.ranges)
        return Unknown(condition) if known is None else known

    def __add__(self, other: Any) -> Any:
        return self._make(sympy.Add, self, other)

    def __sub__(self, other: Any) -> Any:
        return self._make(lambda a, b: a - b, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._make(lambda a, b: b - a, self, other)

    def __mul__(self, other: Any) -> Any:
        return self._make(sympy.Mul, self, other)

    def __floordiv__(self, other: Any) -> Any:
        return self._make(torch_fns.FloorDiv, self, other)

    def __mod__(self, other: Any) -> Any:
        return self._make(torch_fns.Mod, self, other)

    def __neg__(self) -> Any:
        return self._make(lambda a: -a, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> Any:
        return self._compare(sympy.Eq, other)

    def __ne__(self, other: object) -> Any:
        return self._compare(sympy.Ne, other)

    def __lt__(self, other: Any) -> Any:
        return self._compare(sympy.Lt, other)

    def __le__(self, other: Any) -> Any:
        return self._compare(sympy.Le, other)

    def __gt__(self, other: Any) -> Any:
        return self._compare(sympy.Gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._compare(sympy.Ge, other)

    def __hash__(self) -> int:
        return hash(self.expr)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __str__(self) -> str:
        return format_expr(self.expr)

    __repr__ = __str__


def wrap_sizes(value: Any, ranges: Ranges) -> Any:
    """`value` (a size, an attribute, a tuple of them) with a Size for each expression."""

    def wrap(leaf: Any) -> Any:
        return Size(leaf, ranges) if isinstance(leaf, sympy.Basic) else leaf

    return map_leaves(value, wrap)


def unwrap_sizes(value: Any) -> Any:
    """`value` with the expression of each Size."""
    if isinstance(value, list | tuple):
        return tuple(unwrap_sizes(item) for item in value)
    return value.expr if isinstance(value, Size) else value


def ranges_of(graph: Graph) -> Ranges:
    """What is known of the symbols of `graph`."""
    return {symbol: info.ranges for symbol, info in graph.symbols.items()} or _NONE


_NONE: Final[Ranges] = {}


def _text(condition: Any) -> str:
    try:
        return format_expr(condition)
    except ValueError:
        return str(condition)
