"""Truth values: comparisons, negations, selections.

not not b,  ~~x                           ->  b, x
not (a == b),  not (a != b)               ->  a != b, a == b
not (a < b) ...                           ->  a >= b ...          for integers: nan is unordered
b == True,  b != False                    ->  b
b == False,  b != True                    ->  not b
b and b,  b or b,  x & x,  x | x          ->  b, x
b & True,  b | False                      ->  b
where(c, x, x)                            ->  x
where(not c, x, y)                        ->  where(c, y, x)
where(c, where(c, x, y), z)               ->  where(c, x, z)
where(c, z, where(c, y, x))               ->  where(c, z, x)
masked_fill(masked_fill(x, m, a), m, b)   ->  masked_fill(x, m, b)

Where one side may be of another shape or dtype than the result, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from rewright.passes.handles import BoundOp
from rewright.passes.ops import aten, call
from rewright.passes.patterns import OpVar, either
from rewright.passes.rule import Rule
from rewright.passes.simplify.dims import is_known_equal
from rewright.passes.variables import Attr, Tensor

_INTEGERS: Final = (*(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),)

# --------------------------------------------------------------------------- negation


class DropDoubleNot(Rule):
    """not not b  ->  b      for bool b"""

    shared = True

    def pattern(self, b: Tensor(dtype=torch.bool)):
        return aten.logical_not(aten.logical_not(b))

    def replace(self, b):
        return b


class DropDoubleComplement(Rule):
    """~~x  ->  x"""

    shared = True

    def pattern(self, x):
        return aten.bitwise_not(aten.bitwise_not(x))

    def replace(self, x):
        return x


class SpellNot(Rule):
    """~b  ->  not b      for bool b"""

    def pattern(self, b: Tensor(dtype=torch.bool)):
        return aten.bitwise_not(b)

    def replace(self, b):
        return aten.logical_not(b)


_OPPOSITES: Final = {
    f"aten.{name}.{kind}": f"aten.{opposite}.{kind}"
    for pair in (("eq", "ne"), ("lt", "ge"), ("gt", "le"))
    for name, opposite in (pair, pair[::-1])
    for kind in ("Tensor", "Scalar")
}
"""What holds where a comparison does not; but for nan, which is unequal and not ordered."""


def opposite(comparison: BoundOp) -> Callable[..., Any]:
    """What holds where `comparison` does not, with its attributes."""
    name = _OPPOSITES[comparison.name]
    return lambda *args: call(name, *args, **comparison.attributes)


class NegateEquality(Rule):
    """not (x == y)  ->  x != y      and the other way round"""

    def pattern(self, x, y, f: OpVar(aten.eq.Tensor, aten.ne.Tensor)):
        return aten.logical_not(f(x, y))

    def replace(self, x, y, f):
        return opposite(f)(x, y)


class NegateEqualityWithNumber(Rule):
    """not (x == c)  ->  x != c      and the other way round"""

    def pattern(self, x, f: OpVar(aten.eq.Scalar, aten.ne.Scalar)):
        return aten.logical_not(f(x))

    def replace(self, x, f):
        return opposite(f)(x)


class NegateOrder(Rule):
    """not (x < y)  ->  x >= y      for integers, and the like"""

    def pattern(
        self,
        x: Tensor(dtype=_INTEGERS),
        y: Tensor(dtype=_INTEGERS),
        f: OpVar(aten.lt.Tensor, aten.le.Tensor, aten.gt.Tensor, aten.ge.Tensor),
    ):
        return aten.logical_not(f(x, y))

    def replace(self, x, y, f):
        return opposite(f)(x, y)


class NegateOrderWithNumber(Rule):
    """not (x < c)  ->  x >= c      for integers, and the like"""

    def pattern(
        self,
        x: Tensor(dtype=_INTEGERS),
        c: Attr(int),
        f: OpVar(aten.lt.Scalar, aten.le.Scalar, aten.gt.Scalar, aten.ge.Scalar),
    ):
        return aten.logical_not(f(x, c))

    def replace(self, x, c, f):
        return opposite(f)(x, c)


# --------------------------------------------------------------------------- truth values


class DropEqualsTrue(Rule):
    """b == True, b != False  ->  b      for bool b"""

    def pattern(self, b: Tensor(dtype=torch.bool)):
        equal = either(aten.eq.Scalar(b, True), aten.eq.Scalar(b, 1))
        return either(equal, aten.ne.Scalar(b, False), aten.ne.Scalar(b, 0))

    def replace(self, b):
        return b


class NegateEqualsFalse(Rule):
    """b == False, b != True  ->  not b      for bool b"""

    def pattern(self, b: Tensor(dtype=torch.bool)):
        equal = either(aten.eq.Scalar(b, False), aten.eq.Scalar(b, 0))
        return either(equal, aten.ne.Scalar(b, True), aten.ne.Scalar(b, 1))

    def replace(self, b):
        return aten.logical_not(b)


class DropNeutralTruth(Rule):
    """b & True, b | False  ->  b      for bool b"""

    def pattern(self, b: Tensor(dtype=torch.bool)):
        return either(aten.bitwise_and.Scalar(b, True), aten.bitwise_or.Scalar(b, False))

    def replace(self, b):
        return b


class DropRepeatedBits(Rule):
    """x & x, x | x  ->  x"""

    def pattern(self, x):
        return either(aten.bitwise_and.Tensor(x, x), aten.bitwise_or.Tensor(x, x))

    def replace(self, x):
        return x


class DropRepeatedTruth(Rule):
    """b and b, b or b  ->  b      for bool b"""

    def pattern(self, b: Tensor(dtype=torch.bool)):
        return either(aten.logical_and(b, b), aten.logical_or(b, b))

    def replace(self, b):
        return b


# --------------------------------------------------------------------------- selection


def _fits(small: Any, large: Any) -> bool:
    """Whether `small` broadcasts to the shape of `large`, for all sizes."""
    if small.rank > large.rank:
        return False
    pairs = zip(reversed(small.shape), reversed(large.shape), strict=False)
    return all(is_known_equal(a, 1) or is_known_equal(a, b) for a, b in pairs)


class DropEqualChoice(Rule):
    """where(c, x, x)  ->  x"""

    def pattern(self, c, x):
        return aten.where.self(c, x, x)

    def where(self, c, x):
        return _fits(c, x)

    def replace(self, x):
        return x


class ChooseByPositive(Rule):
    """where(not c, x, y)  ->  where(c, y, x)      for bool c"""

    shared = True

    def pattern(self, c: Tensor(dtype=torch.bool), x, y):
        return aten.where.self(aten.logical_not(c), x, y)

    def replace(self, c, x, y):
        return aten.where.self(c, y, x)


class _ChooseOnce(Rule):
    shared = True

    def where(self, x, lost):
        return lost.dtype == x.dtype and _fits(lost, x)


class ChooseOnceWhereTrue(_ChooseOnce):
    """where(c, where(c, x, y), z)  ->  where(c, x, z)"""

    def pattern(self, c, x, lost, z):
        return aten.where.self(c, aten.where.self(c, x, lost), z)

    def replace(self, c, x, z):
        return aten.where.self(c, x, z)


class ChooseOnceWhereFalse(_ChooseOnce):
    """where(c, z, where(c, y, x))  ->  where(c, z, x)"""

    def pattern(self, c, x, lost, z):
        return aten.where.self(c, z, aten.where.self(c, lost, x))

    def replace(self, c, x, z):
        return aten.where.self(c, z, x)


class FillOnce(Rule):
    """masked_fill(masked_fill(x, m, a), m, b)  ->  masked_fill(x, m, b)"""

    shared = True

    def pattern(self, x, m, _a: Attr, b: Attr):
        return aten.masked_fill.Scalar(aten.masked_fill.Scalar(x, m, _a), m, b)

    def replace(self, x, m, b):
        return aten.masked_fill.Scalar(x, m, b)


RULES: Final = (
    DropDoubleNot,
    DropDoubleComplement,
    SpellNot,
    NegateEquality,
    NegateEqualityWithNumber,
    NegateOrder,
    NegateOrderWithNumber,
    DropEqualsTrue,
    NegateEqualsFalse,
    DropNeutralTruth,
    DropRepeatedBits,
    DropRepeatedTruth,
    DropEqualChoice,
    ChooseByPositive,
    ChooseOnceWhereTrue,
    ChooseOnceWhereFalse,
    FillOnce,
)
