"""Operations that change nothing, and those that undo one another.

    x * 1,  x / 1,  x - 0,  x ** 1         ->  x          for floating x
    x * 1,  x + 0,  x - 0,  x ** 1, x | 0  ->  x          for integer x
    p + 0                                  ->  p          p = exp(x) ...: never -0.0
    x * -1                                 ->  -x
    -(-x)                                  ->  x
    x + -y,  x - -y,  -x * -y              ->  x - y,  x + y,  x * y
    -x * c                                 ->  x * -c
    f(f(x))                                ->  f(x)       relu, abs, floor, round, clamp ...
    abs(-x)                                ->  abs(x)
    max(x, x),  min(x, x)                  ->  x

``x + 0`` and ``x - -0.0`` are not ``x`` for a floating x, which may be -0.0;
``x * 0`` is not 0 for inf and nan.
"""

from __future__ import annotations

from typing import Final

import torch

from rewright.passes.ops import aten
from rewright.passes.patterns import OpVar, either
from rewright.passes.rule import Rule
from rewright.passes.variables import FLOATS, Attr, Tensor

INTEGERS: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SIGNED: Final = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8)
NUMBERS: Final = (*FLOATS, *INTEGERS)
"""The dtypes with which ``x * 1`` is of the dtype of x: all but bool, and complex ones."""


class DropNeutralOperand(Rule):
    """x * 1, x / 1, x - 0, x ** 1  ->  x      for floating x"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return either(x * 1, x / 1, x - 0.0, x**1)  # x - -0.0 is x + 0

    def replace(self, x):
        return x


class DropNeutralInteger(Rule):
    """x * 1, x + 0, x - 0, x ** 1, x | 0, x ^ 0  ->  x      for integer x"""

    def pattern(self, x: Tensor(dtype=INTEGERS)):
        bits = either(aten.bitwise_or.Scalar(x, 0), aten.bitwise_xor.Scalar(x, 0))
        return either(x * 1, x + 0, x - 0, x**1, bits)

    def replace(self, x):
        return x


class DropAddedZero(Rule):
    """p + 0  ->  p      where p = exp(x), sigmoid(x), softmax(x) ... is never -0.0"""

    shared = True

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        positive: OpVar(aten.exp, aten.sigmoid, aten.softmax.int, aten.abs, aten.rsqrt),
    ):
        return positive(x) + 0

    def replace(self, x, positive):
        return positive(x)


class NegateOnce(Rule):
    """x * -1  ->  -x"""

    def pattern(self, x: Tensor(dtype=NUMBERS)):
        return x * -1

    def replace(self, x):
        return -x


class DropDoubleNegation(Rule):
    """-(-x)  ->  x"""

    shared = True

    def pattern(self, x):
        return aten.neg(aten.neg(x))

    def replace(self, x):
        return x


class AddNegative(Rule):
    """x + -y  ->  x - y"""

    shared = True

    def pattern(self, x, y):
        return x + -y

    def where(self, x, y):
        return x.dtype == y.dtype

    def replace(self, x, y):
        return x - y


class SubtractNegative(Rule):
    """x - -y  ->  x + y"""

    shared = True

    def pattern(self, x, y):
        return x - -y

    def where(self, x, y):
        return x.dtype == y.dtype

    def replace(self, x, y):
        return x + y


class MultiplyNegatives(Rule):
    """-x * -y  ->  x * y"""

    shared = True

    def pattern(self, x, y):
        return -x * -y

    def where(self, x, y):
        return x.dtype == y.dtype

    def replace(self, x, y):
        return x * y


class ScaleNegative(Rule):
    """-x * c  ->  x * -c"""

    shared = True

    def pattern(self, x: Tensor(dtype=FLOATS), c: Attr((int, float))):
        return -x * c

    def replace(self, x, c):
        return x * -float(c)  # there is no -0 among the ints


class ApplyOnce(Rule):
    """f(f(x))  ->  f(x)      for f = relu, abs, floor, ceil, round, trunc, sign, clamp"""

    shared = True

    def pattern(
        self,
        x: Tensor(dtype=NUMBERS),
        f: OpVar(
            *(aten.relu, aten.abs, aten.floor, aten.ceil, aten.round, aten.trunc, aten.sgn),
            *(aten.sign, aten.clamp, aten.clamp_min, aten.clamp_max, aten.hardtanh),
        ),
    ):
        return f(f(x))

    def replace(self, x, f):
        return f(x)


class DropSignBeforeAbs(Rule):
    """abs(-x)  ->  abs(x)"""

    shared = True

    def pattern(self, x: Tensor(dtype=SIGNED)):
        return aten.abs(-x)

    def replace(self, x):
        return aten.abs(x)


class DropEqualExtremes(Rule):
    """max(x, x), min(x, x)  ->  x"""

    def pattern(self, x):
        return either(aten.maximum(x, x), aten.minimum(x, x))

    def replace(self, x):
        return x


RULES: Final = (
    DropNeutralOperand,
    DropNeutralInteger,
    DropAddedZero,
    NegateOnce,
    DropDoubleNegation,
    AddNegative,
    SubtractNegative,
    MultiplyNegatives,
    ScaleNegative,
    ApplyOnce,
    DropSignBeforeAbs,
    DropEqualExtremes,
)
