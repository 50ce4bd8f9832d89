"""Rotary position embeddings, in their spellings.

x * cos + cat(-x₂, x₁) * sin               ->  rw.rope(x, cos, sin)      x₁, x₂ halves of x
x * cos + flatten(stack(-x₂, x₁)) * sin    ->  rw.rope(x, cos, sin, interleaved=True)
narrow(rope(wide(x), cos, sin))            ->  rope(x, cos, sin)
cat(rope(x[:r], cos, sin), x[r:])          ->  rope(x, cos, sin)         channels from r on kept
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rewright.passes.fusion.shapes import broadcasts_to
from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.patterns import maybe_cast
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Attr, Maybe, Rest, Tensor

if TYPE_CHECKING:
    from rewright.passes.proof.draw import Draw


def _tables_fit(x: Handle, cos: Handle, sin: Handle, dtype: torch.dtype | None = None) -> Any:
    """Whether `cos` and `sin` have a number for each channel of `x`, and broadcast to it."""
    for table in (cos, sin):
        if table.rank > x.rank or table.rank < 1 or table.shape[-1] != x.shape[-1]:
            return NoMatch("{0} has not a number for each channel of {1}", table, x)
        if table.dtype != (dtype or x.dtype):
            return NoMatch("{0} is {1}, and {2} is {3}", table, table.dtype, x, x.dtype)
        if not broadcasts_to(table.shape, x.shape):
            return NoMatch("{0} does not broadcast to {1}", table, x)
    return True


def _starts(start: Any, end: Any, low: Any, high: Any, size: Any) -> Any:
    """Whether ``x[start:end]`` is ``x[low:high]``, of so many elements."""
    if (0 if start is None else start) != low:
        return False
    return end == high or (high == size and (end is None or end >= size))


class HalvesRope(Rule):
    """x * cos + cat(-x2, x1) * sin  ->  rw.rope(x, cos, sin)"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        cos,
        sin,
        a: Maybe(Attr),
        b: Maybe(Attr),
        c: Maybe(Attr),
        d: Maybe(Attr),
    ):
        first = aten.slice.Tensor(x, -1, a, b)
        second = aten.slice.Tensor(x, -1, c, d)
        return x * cos + aten.cat([-second, first], -1) * sin

    def where(self, x, cos, sin, a, b, c, d):
        size = x.shape[-1]
        if not isinstance(size, int) or size % 2:
            return NoMatch("{0} has no even number of channels", x)
        if not (_starts(a, b, 0, size // 2, size) and _starts(c, d, size // 2, size, size)):
            return NoMatch("these are not the halves of {0}", x)
        return _tables_fit(x, cos, sin)

    def replace(self, x, cos, sin):
        return rw.rope(x, cos, sin)

    def example(self, draw):
        batch, heads, time = draw.sizes(3)
        size = draw.choice((2, 4, 6))
        half = size // 2 if draw.chance(0.8) else 1
        table = draw.tensor(*draw.choice(((time,), (1, time), (batch, 1, time))), size)
        end = draw.choice((size, 9223372036854775807))
        return {
            "x": draw.tensor(batch, heads, time, size),
            "cos": table,
            "sin": table,
            "a": draw.choice((None, 0)),
            "b": half,
            "c": half,
            "d": end,
        }


def _pairs_example(draw: Draw) -> dict[str, Any]:
    """Types and attributes that belong together, mostly, where channels come in pairs."""
    batch, heads, time = draw.sizes(3)
    size = draw.choice((2, 4, 6))
    table = draw.tensor(*draw.choice(((time,), (1, time), (batch, 1, time))), size)
    shape = (batch, heads, time, size)
    return {
        "x": draw.tensor(*shape),
        "cos": table,
        "sin": table,
        "wide": None,
        "pairs": (batch, heads, time, size // 2, 2),
        "flat": (batch, heads, size, time) if draw.chance(0.15) else shape,
        "a": draw.choice((None, 0)),
        "b": draw.choice((None, size, 9223372036854775807)),
        "d": None,
    }


class InterleavedRope(Rule):
    """x * cos + flatten(stack(-x[1::2], x[0::2])) * sin  ->  rw.rope(x, cos, sin, interleaved)"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS, rank=4),
        cos,
        sin,
        a: Maybe(Attr),
        b: Maybe(Attr),
        d: Maybe(Attr),
        flat: Attr,
    ):
        even = aten.slice.Tensor(x, -1, a, b, 2)
        odd = aten.slice.Tensor(x, -1, 1, d, 2)
        return x * cos + aten.reshape(aten.stack([-odd, even], -1), flat) * sin

    def where(self, x, cos, sin, a, b, d, flat):
        size = x.shape[-1]
        whole = all(end is None or end >= size for end in (b, d)) and a in (None, 0)
        if not whole or size % 2 != 0 or flat != x.shape:
            return NoMatch("these are not the pairs of {0}", x)
        return _tables_fit(x, cos, sin)

    def replace(self, x, cos, sin):
        return rw.rope(x, cos, sin, interleaved=True)

    def example(self, draw):
        return _pairs_example(draw)


class PairsRope(Rule):
    """x * cos + flatten(stack(-imag(x), real(x))) * sin  ->  rw.rope(x, cos, sin, interleaved)"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS, rank=4),
        cos,
        sin,
        wide: Maybe(Attr),
        pairs: Attr,
        flat: Attr,
    ):
        real, imaginary = aten.unbind.int(aten.reshape(x, pairs), -1).results(2)
        turned = aten.reshape(aten.stack([-imaginary, real], -1), flat)
        return maybe_cast(x, wide) * cos + maybe_cast(turned, wide) * sin

    def where(self, x, cos, sin, wide, pairs, flat):
        if pairs[-1] != 2 or flat != x.shape:
            return NoMatch("these are not the pairs of {0}", x)
        if wide not in (None, torch.float32):
            return NoMatch("{0} is computed in {1}", x, wide)
        return _tables_fit(x, cos, sin, wide)

    def replace(self, x, cos, sin, wide):
        return rw.rope(x if wide is None else x.to(wide), cos, sin, interleaved=True)

    def example(self, draw):
        return _pairs_example(draw)


class NarrowRope(Rule):
    """narrow(rope(wide(x), cos, sin))  ->  rope(x, cos, sin)"""

    exactness = REFOLD

    def pattern(
        self, x: Tensor(dtype=(torch.float16, torch.bfloat16)), cos, sin, narrow: Attr, _: Rest
    ):
        wide = aten._to_copy(x, dtype=torch.float32)
        return aten._to_copy(rw.rope(wide, cos, sin, **_), dtype=narrow)

    def where(self, x, narrow):
        return narrow == x.dtype

    def replace(self, x, cos, sin, _):
        return rw.rope(x, cos, sin, **_)


class PartialRope(Rule):
    """cat(rope(x[:r], cos, sin), x[r:])  ->  rope(x, cos, sin)      channels from r on are kept"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        cos,
        sin,
        a: Maybe(Attr),
        b: Maybe(Attr),
        c: Maybe(Attr),
        d: Maybe(Attr),
        _: Rest,
    ):
        first = aten.slice.Tensor(x, -1, a, b)
        second = aten.slice.Tensor(x, -1, c, d)
        return aten.cat([rw.rope(first, cos, sin, **_), second], -1)

    def where(self, x, cos, sin, a, b, c, d):
        size, rotary = x.shape[-1], cos.shape[-1]
        if not (_starts(a, b, 0, rotary, size) and _starts(c, d, rotary, size, size)):
            return NoMatch("these are not the turned and the other channels of {0}", x)
        return sin.shape[-1] == rotary

    def replace(self, x, cos, sin, _):
        return rw.rope(x, cos, sin, **_)

    def example(self, draw):
        batch, heads, time = draw.sizes(3)
        size, rotary = draw.choice((4, 6, 8)), draw.choice((2, 4))
        table = draw.tensor(time, rotary)
        return {
            "x": draw.tensor(batch, heads, time, size),
            "cos": table,
            "sin": table,
            "a": draw.choice((None, 0)),
            "b": rotary,
            "c": rotary if draw.chance(0.9) else rotary - 1,
            "d": 9223372036854775807,
        }


RULES = (HalvesRope, InterleavedRope, PairsRope, NarrowRope, PartialRope)
