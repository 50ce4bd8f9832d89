"""Numbers: several in a row become one, and tensors that hold one become it.

    (x * a) * b, (x / a) * b ...          ->  x * (a*b), x * (b/a) ...     for floating x
    (x + a) - b ...                       ->  x + (a-b) ...                for integer x
    x + full([], c) ...                   ->  x + c ...                    for floating x

``(x + a) + b`` of floating numbers is left alone: where a and b are large and x is not, their sum
forgets what the steps had kept.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from rewright.passes.ops import aten
from rewright.passes.patterns import OpVar, either
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Attr, Maybe, Rest, Tensor


class MergeFactors(Rule):
    """(x * a) * b, (x / a) * b, (x * a) / b, (x / a) / b  ->  x times or over one number"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        a: Attr((int, float)),
        b: Attr((int, float)),
        f: OpVar(aten.mul.Tensor, aten.div.Tensor),
        g: OpVar(aten.mul.Tensor, aten.div.Tensor),
    ):
        return g(f(x, a), b)

    def where(self, x, a, b, f, g):
        for number in (a, b, _factor(a, b, f, g)):
            if not _is_normal(number, x.dtype):
                return NoMatch("{0} is too large or too small for {1}", number, x.dtype)
        return True

    def replace(self, x, a, b, f, g):
        number = _factor(a, b, f, g)
        return x / number if _divides(f) and _divides(g) else x * number


def _divides(op: Any) -> bool:
    return bool(op.name == "aten.div.Tensor")


def _factor(a: float, b: float, f: Any, g: Any) -> float:
    """The number that x is multiplied with; divided by, if both divide. Infinite if none is."""
    try:
        if _divides(f) == _divides(g):
            return float(a) * float(b)
        return float(a) / float(b) if _divides(g) else float(b) / float(a)
    except (ZeroDivisionError, OverflowError):
        return math.inf


def _is_normal(number: float, dtype: torch.dtype) -> bool:
    """Whether `number` keeps all its digits where `dtype` is computed in: that is, at least f32."""
    info = torch.finfo(torch.promote_types(dtype, torch.float32))
    return bool(info.tiny <= abs(number) <= info.max)


class MergeTerms(Rule):
    """(x + a) - b ...  ->  x + (a-b)      for integer x"""

    def pattern(
        self,
        x: Tensor(dtype=(torch.int64, torch.int32)),
        a: Attr(int),
        b: Attr(int),
        f: OpVar(aten.add.Tensor, aten.sub.Tensor),
        g: OpVar(aten.add.Tensor, aten.sub.Tensor),
    ):
        return g(f(x, a), b)

    def where(self, x, a, b, f, g):
        info = torch.iinfo(x.dtype)
        return info.min <= _term(a, f) + _term(b, g) <= info.max

    def replace(self, x, a, b, f, g):
        return x + (_term(a, f) + _term(b, g))

    def example(self, draw):
        return {name: draw.choice((1, -2, 2**31 - 1)) for name in "ab"}


def _term(number: int, op: Any) -> int:
    """What `op` adds."""
    number *= op.attributes.get("alpha", 1)
    return -number if op.name == "aten.sub.Tensor" else number


class UseNumber(Rule):
    """x + full([], c), x - full([], c), x * full([], c), x / full([], c)  ->  x + c ..."""

    shared = True

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        c: Attr((int, float)),
        size: Maybe(Attr),
        options: Rest,
        f: OpVar(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    ):
        number = either(aten.full(size, c, **options), aten.scalar_tensor(c, **options))
        return f(x, number)

    def where(self, x, c, size, options):
        if size:
            return NoMatch("there are {0} numbers", size)
        dtype = options.get("dtype") or (torch.float32 if isinstance(c, float) else None)
        if dtype not in FLOATS:
            return NoMatch("{0} is no floating-point number", c)
        for rounded in (dtype, x.dtype):  # on a GPU, the tensor is rounded to the dtype of x
            if float(torch.tensor(c, dtype=rounded)) != c:
                return NoMatch("{0} is rounded in {1}", c, rounded)
        return x.rank > 0 or x.dtype == dtype

    def replace(self, x, c, f):
        return f(x, c)

    def example(self, draw):
        return {"size": draw.choice(((), (), (2,)))}


RULES: Final = (MergeFactors, MergeTerms, UseNumber)
