"""Casts: none to the dtype that there is, none in between that loses nothing.

to(x, dtype of x)             ->  x
to(to(x, wide), dtype)        ->  to(x, dtype)      where every x is a number of `wide`
to(1 - to(b, number), bool)   ->  not b             for bool b, as masks are inverted

What a cast rounds, overflows or cuts off is no cast in between.
"""

from __future__ import annotations

from typing import Final

import torch

from rewright.passes.ops import aten
from rewright.passes.rule import Rule
from rewright.passes.variables import Attr, Tensor

_MANTISSA: Final = {
    torch.float64: 53,
    torch.float32: 24,
    torch.float16: 11,
    torch.bfloat16: 8,
}
_EXPONENT: Final = {
    torch.float64: 11,
    torch.float32: 8,
    torch.float16: 5,
    torch.bfloat16: 8,
}
_MAGNITUDE: Final = {
    torch.bool: 1,
    torch.uint8: 8,
    torch.int8: 7,
    torch.int16: 15,
    torch.int32: 31,
    torch.int64: 63,
}
"""How many bits the largest number of an integer dtype has, without its sign."""


def is_lossless(narrow: torch.dtype, wide: torch.dtype) -> bool:
    """Whether every number of `narrow` is a number of `wide`, too."""
    if narrow == wide:
        return True
    if narrow in _MANTISSA:
        fits = _MANTISSA[narrow] <= _MANTISSA.get(wide, 0)
        return fits and _EXPONENT[narrow] <= _EXPONENT[wide]
    if narrow not in _MAGNITUDE:
        return False
    bits = _MAGNITUDE[narrow]
    if wide in _MANTISSA:  # f16 ends at 65504, which has 16 bits
        return bits <= _MANTISSA[wide]
    signs = wide is not torch.uint8 or narrow in (torch.bool, torch.uint8)
    return wide is not torch.bool and signs and bits <= _MAGNITUDE.get(wide, 0)


class DropCast(Rule):
    """to(x, dtype of x)  ->  x"""

    def pattern(self, x, dtype: Attr(torch.dtype)):
        return aten._to_copy(x, dtype=dtype)

    def where(self, x, dtype):
        return x.dtype == dtype

    def replace(self, x):
        return x


class MergeCasts(Rule):
    """to(to(x, wide), dtype)  ->  to(x, dtype)      where every x is a number of `wide`"""

    shared = True

    def pattern(self, x, wide: Attr(torch.dtype), dtype: Attr(torch.dtype)):
        return aten._to_copy(aten._to_copy(x, dtype=wide), dtype=dtype)

    def where(self, x, wide):
        return is_lossless(x.dtype, wide)

    def replace(self, x, dtype):
        return x.to(dtype)


class InvertMask(Rule):
    """to(1 - to(b, number), bool)  ->  not b      for bool b"""

    shared = True

    def pattern(self, b: Tensor(dtype=torch.bool), _dtype: Attr(torch.dtype)):
        return aten._to_copy(1 - aten._to_copy(b, dtype=_dtype), dtype=torch.bool)

    def replace(self, b):
        return aten.logical_not(b)


RULES: Final = (DropCast, MergeCasts, InvertMask)
