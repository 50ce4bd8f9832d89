"""Sizes: dimensions as ints or expressions over symbols, and what is known about them.

A dimension is an ``int`` or a ``sympy`` expression over the symbols of a graph: see
:mod:`rewright.ir.expressions` for what it may consist of, :mod:`rewright.ir.expression_text` for
how it is written. Their functions are names of this module, too.

Facts about sizes are three-valued: :func:`is_true` answers True, False or None (unknown).
Unknown must never match and never guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs
import sympy
from sympy.core.relational import Relational
from torch.utils._sympy import functions as torch_fns
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from rewright.ir.expression_text import format_expr, parse_expr, to_python
from rewright.ir.expressions import (
    Expr,
    evaluate,
    free_symbols,
    simplify,
    substitute,
    symbol,
)

__all__ = [
    "Dim",
    "Expr",
    "Range",
    "Ranges",
    "bounds",
    "evaluate",
    "format_expr",
    "free_symbols",
    "hull",
    "is_true",
    "parse_expr",
    "same",
    "same_shape",
    "simplify",
    "solve",
    "substitute",
    "symbol",
    "to_python",
]

Dim: TypeAlias = "int | sympy.Basic"
"""One dimension of a shape."""


# --------------------------------------------------------------------------- ranges


@attrs.frozen
class Range:
    """The inclusive range of one symbol in one optimization profile.

    `min` and `max` are None where there is no bound, `opt` when no typical size was given.
    """

    min: int | None = 0
    opt: int | None = None
    max: int | None = None

    def __attrs_post_init__(self) -> None:
        points = [p for p in (self.min, self.opt, self.max) if p is not None]
        if points != sorted(points):
            raise ValueError(f"a range needs min <= opt <= max, not {self}")

    def __contains__(self, value: int) -> bool:
        above = self.min is None or self.min <= value
        return above and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        """``1..8..32``: min, opt, max; ``1..32`` without opt; ``1..`` without a maximum."""
        points = ["" if self.min is None else str(self.min)]
        if self.opt is not None:
            points.append(str(self.opt))
        points.append("" if self.max is None else str(self.max))
        return "..".join(points)

    @classmethod
    def parse(cls, text: str) -> Range:
        """The range that prints as `text`."""
        points = [int(p) if p else None for p in text.strip().split("..")]
        if len(points) == 2:
            return cls(points[0], None, points[1])
        if len(points) == 3:
            return cls(points[0], points[1], points[2])
        raise ValueError(f"a range reads min..max or min..opt..max: {text!r}")

    def __or__(self, other: Range) -> Range:
        """The smallest range that holds both; the opt of the first that has one."""
        low = None if self.min is None or other.min is None else min(self.min, other.min)
        top = None if self.max is None or other.max is None else max(self.max, other.max)
        return Range(low, self.opt if self.opt is not None else other.opt, top)


Ranges: TypeAlias = "Mapping[sympy.Symbol, tuple[Range, ...]]"
"""What is known of each symbol: its ranges, one per optimization profile."""


def hull(ranges: tuple[Range, ...]) -> Range:
    """The range that covers all profiles; of no profiles, everything from zero up."""
    if not ranges:
        return Range()
    covered = ranges[0]
    for item in ranges[1:]:
        covered = covered | item
    return covered


def bounds(expr: Dim, ranges: Ranges) -> ValueRanges[Any]:
    """Lower and upper bound of `expr` (torch's interval arithmetic; they may be infinite)."""
    known = {}
    for item in free_symbols([expr]):
        if item.is_integer:
            low, high = -int_oo, int_oo
            if item in ranges:
                covered = hull(ranges[item])
                low = -int_oo if covered.min is None else covered.min
                high = int_oo if covered.max is None else covered.max
            elif item.is_nonnegative:
                low = 0
            known[item] = ValueRanges(low, high)
    return bound_sympy(sympy.sympify(expr) if isinstance(expr, int) else expr, known)


def is_true(condition: Any, ranges: Ranges | None = None) -> bool | None:
    """Whether `condition` holds for all sizes (True), for none (False), or can't be said (None).

    Args:
        condition: a bool or a boolean expression.
        ranges: what is known of the symbols.
    """
    if isinstance(condition, bool):
        return condition
    condition = simplify(condition)
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, Relational):
        return _relation(condition, ranges or {})
    if isinstance(condition, sympy.And | sympy.Or):
        facts = [is_true(part, ranges) for part in condition.args]
        decisive = isinstance(condition, sympy.Or)
        if decisive in facts:
            return decisive
        return None if None in facts else not decisive
    if isinstance(condition, sympy.Not):
        fact = is_true(condition.args[0], ranges)
        return None if fact is None else not fact
    return None


def _relation(relation: Relational, ranges: Ranges) -> bool | None:
    difference = sympy.expand(relation.lhs - relation.rhs)
    if difference.is_zero and isinstance(relation, sympy.Eq | sympy.Ne):
        return isinstance(relation, sympy.Eq)
    interval = bounds(difference, ranges)
    low, high = interval.lower, interval.upper
    match relation:
        case sympy.Eq():
            return False if low > 0 or high < 0 else True if low == high == 0 else None
        case sympy.Ne():
            return True if low > 0 or high < 0 else False if low == high == 0 else None
        case sympy.Lt():
            return True if high < 0 else False if low >= 0 else None
        case sympy.Le():
            return True if high <= 0 else False if low > 0 else None
        case sympy.Gt():
            return True if low > 0 else False if high <= 0 else None
        case sympy.Ge():
            return True if low >= 0 else False if high < 0 else None
    return None


def same(a: Dim, b: Dim, ranges: Ranges | None = None) -> bool | None:
    """Whether two dimensions are equal: True, False or None (depends on the sizes)."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a == b:
        return True
    return is_true(sympy.Eq(a, b), ranges)


def same_shape(a: tuple[Dim, ...], b: tuple[Dim, ...], ranges: Ranges | None = None) -> bool | None:
    """Whether two shapes are equal: True, False or None (depends on the sizes)."""
    if a == b:
        return True
    if len(a) != len(b):
        return False
    facts = [same(x, y, ranges) for x, y in zip(a, b, strict=True)]
    return False if False in facts else None if None in facts else True


def solve(equation: Dim, unknown: sympy.Symbol, value: Dim) -> Dim | None:
    """`unknown` from ``equation == value``, or None where the equation isn't linear in it.

    ``solve(2*s0 + 1, s0, v)`` is ``(v - 1) // 2``. Whether the division is exact has to be
    checked by putting the solution back into `equation`.
    """
    if equation == unknown:
        return value
    try:
        polynomial = sympy.Poly(equation, unknown)
    except sympy.PolynomialError:
        return None
    if polynomial.degree() != 1:
        return None
    factor, rest = polynomial.all_coeffs()
    return simplify(torch_fns.FloorDiv(sympy.sympify(value) - rest, factor))
