"""Attention kept whole: ``rw.attention`` from torch's op and from its formula.

    scaled_dot_product_attention(q, k, v, m)   ->  rw.attention(q, k, v, m)
    softmax(q @ t * s + m) @ v                 ->  rw.attention(q, tᵀ, v, m, scale=s)
    attention(q, kᵀᵀ, v)                       ->  attention(q, k, v)
    attention(q * c, k, v, scale=s)            ->  attention(q, k, v, scale=c * s)
    attention(q, repeat(k), repeat(v))         ->  attention(q, k, v)       heads in groups
    attention(q, k, v, everything)             ->  attention(q, k, v)
    attention(q, k, v, triangle)               ->  attention(q, k, v, causal=True)

A mask is added, or fills the scores that it hides; a bias and a mask become one mask. The last two
are proved by :mod:`rewright.passes.fusion.masks`; what can't be proved stays a mask, and so do
sliding windows: torch's kernels know no window, but skip what a mask hides.

A query that sees nothing gets zeros from ours. From the formula it gets nan, if what hides is -inf.
So an added mask that may do that gives its nan to the result, and one that fills must be known to
leave something (:mod:`rewright.passes.fusion.blind`).
"""

from __future__ import annotations

import math
from typing import Any, Final

import attrs
import torch

from rewright.passes.fusion import masks
from rewright.passes.fusion.blind import may_blind
from rewright.passes.fusion.shapes import broadcasts_to, is_one
from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.patterns import either, maybe_cast
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Attr, Maybe, Rest, Tensor

HEADS: Final = (3, 4)
"""The ranks of queries: ``[batch * heads, queries, dim]``, or ``[batch, heads, queries, dim]``."""

Number: Final = Attr()
WIDE: Final = (None, torch.float32, torch.float64)


# --------------------------------------------------------------------------- torch's op


class TorchAttention(Rule):
    """scaled_dot_product_attention(q, k, v, m)  ->  rw.attention(q, k, v, m)"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(dtype=FLOATS, rank=HEADS),
        k,
        v,
        m: Maybe,
        causal: Maybe(Attr),
        scale: Maybe(Attr),
        grouped: Maybe(Attr),
    ):
        return aten.scaled_dot_product_attention(
            q, k, v, m, 0.0, causal, scale=scale, enable_gqa=grouped
        )

    def where(self, q, k, v, m, causal, grouped):
        if m is not None and causal:
            return NoMatch("torch takes no mask with is_causal")
        keys = _Keys(k, k.shape)
        return _heads_fit(q, keys, v, bool(grouped)) and _masks_fit(q, keys, m, dtype=torch.bool)

    def replace(self, q, k, v, m, causal, scale):
        return rw.attention(q, k, v, m, causal=bool(causal), scale=scale)


@attrs.frozen
class _Keys:
    """What is asked of keys: those of a pattern, or what it has transposed."""

    name: Handle
    shape: tuple[Any, ...]

    @classmethod
    def turned(cls, t: Handle) -> _Keys:
        """The keys of which `t` is the transpose."""
        return cls(t, (*t.shape[:-2], *reversed(t.shape[-2:])))


def _heads_fit(q: Handle, k: _Keys, v: Handle, grouped: bool = False) -> Any:
    """Whether queries, keys and values have the same leading dimensions, or heads in groups."""
    if not q.rank == len(k.shape) == v.rank:
        return NoMatch("{0}, {1} and {2} are not of one rank", q, k.name, v)
    if q.dtype not in FLOATS or q.dtype != k.name.dtype or q.dtype != v.dtype:
        return NoMatch("{0}, {1} and {2} are not of one floating dtype", q, k.name, v)
    if k.shape[:-3] != q.shape[:-3] or v.shape[:-2] != k.shape[:-2]:
        return NoMatch("the batches of {0}, {1} and {2} differ", q, k.name, v)
    ours, theirs = q.shape[-3], k.shape[-3]
    if (q.rank == 4 and is_one(theirs)) or ours == theirs:
        return True
    return (grouped and ours % theirs == 0) or NoMatch("heads of {0} and {1} differ", q, k.name)


def _masks_fit(q: Handle, k: _Keys, *given: Handle | None, dtype: torch.dtype | None = None) -> Any:
    """Whether masks broadcast to the scores, and are of the queries' dtype, or of `dtype`."""
    wanted = (*q.shape[:-1], k.shape[-2])
    for mask in given:
        if mask is None:
            continue
        if mask.dtype not in (q.dtype, dtype):
            return NoMatch("the mask {0} is {1}, and {2} is {3}", mask, mask.dtype, q, q.dtype)
        if not 2 <= mask.rank <= len(wanted):
            return NoMatch("the mask {0} has {1} dimensions", mask, mask.rank)
        if not broadcasts_to(mask.shape, wanted):
            return NoMatch("the mask {0} does not broadcast to the scores", mask)
    return True


# --------------------------------------------------------------------------- the formula


def _turned(k: Any) -> tuple[Any, Any]:
    """The spellings of ``kᵀ``."""
    return aten.transpose.int(k, -2, -1), aten.transpose.int(k, -1, -2)


def _keeps_precision(q: Handle, *dtypes: torch.dtype | None) -> Any:
    """Whether scores stay at least as precise as `q` through casts to `dtypes`."""
    if all(item in (*WIDE, q.dtype) for item in dtypes):
        return True
    return NoMatch("the scores of {0} are rounded to another dtype", q)


def _scale(s: Any, d: Any) -> float:
    """The number that scores are multiplied with, if it is `s`, or divided by, if it is `d`."""
    return 1.0 / d if d is not None else 1.0 if s is None else float(s)


def _blinded(made: Any, mask: Any, *parts: Handle | None) -> Any:
    """What an attention made, with nan where `mask`, the sum of `parts`, adds -inf to all scores.

    It is `made` itself where no part can.
    """
    if not any(part is not None and may_blind(part.value) for part in parts):
        return made
    blind = aten.all.dim(aten.eq.Scalar(mask, -math.inf), -1, True)
    return aten.masked_fill.Scalar(made, blind, math.nan)


class AttentionFormula(Rule):
    """softmax(q @ t * s + m) @ v  ->  rw.attention(q, tᵀ, v, m, scale=s)"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(rank=HEADS),
        t,
        v,
        s: Maybe(Number),
        d: Maybe(Number),
        m: Maybe,
        n: Maybe,
        dtype: Maybe(Attr),
        wide: Maybe(Attr),
        narrow: Maybe(Attr),
        _start: Maybe,
    ):
        scores = rw.matmul(q, t)
        product = aten.baddbmm(_start, q, t, beta=0, alpha=s)
        scaled = either(scores * s, scores / d, product, scores)
        masked = either((scaled + m) + n, scaled + m, scaled)
        chances = aten.softmax.int(maybe_cast(masked, wide), -1, dtype=dtype)
        return rw.matmul(maybe_cast(chances, narrow), v)

    def where(self, q, t, v, m, n, d, dtype, wide):
        if d == 0:
            return NoMatch("the scores are divided by 0")
        keys = _Keys.turned(t)
        return (
            _keeps_precision(q, dtype, wide)
            and _heads_fit(q, keys, v)
            and _masks_fit(q, keys, m, n)
        )

    def replace(self, q, t, v, s, d, m, n, narrow):
        mask = m if n is None else m + n
        made = rw.attention(q, aten.transpose.int(t, -2, -1), v, mask, scale=_scale(s, d))
        return _blinded(made, mask, m, n) if v.shape[-2] != 0 else made


class WideAttention(Rule):
    """narrow(softmax(wide(q) @ wide(k)ᵀ * s + m)) @ v  ->  rw.attention(q, k, v, m, scale=s)"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(dtype=(torch.float16, torch.bfloat16), rank=HEADS),
        k,
        v,
        s: Maybe(Number),
        d: Maybe(Number),
        m: Maybe,
        dtype: Maybe(Attr),
        narrow: Attr,
    ):
        turned = either(*_turned(aten._to_copy(k, dtype=torch.float32)))
        scores = rw.matmul(aten._to_copy(q, dtype=torch.float32), turned)
        scaled = either(scores * s, scores / d, scores)
        chances = aten.softmax.int(either(scaled + m, scaled), -1, dtype=dtype)
        return rw.matmul(aten._to_copy(chances, dtype=narrow), v)

    def where(self, q, k, v, m, d, dtype, narrow):
        if d == 0 or narrow != q.dtype:
            return NoMatch("the chances are {0}, and {1} is {2}", narrow, q, q.dtype)
        keys = _Keys(k, k.shape)
        return _keeps_precision(q, dtype) and _heads_fit(q, keys, v) and _masks_fit(q, keys, m)

    def replace(self, q, k, v, s, d, m):
        made = rw.attention(q, k, v, m, scale=_scale(s, d))
        return _blinded(made, m, m) if v.shape[-2] != 0 else made

    def example(self, draw):
        *batch, heads, queries, keys, dim = draw.sizes(draw.choice((4, 5, 5)))
        many = draw.choice((heads, heads, heads, 1))
        near = dim if draw.chance(0.9) else keys
        mask = draw.choice(((queries, keys), (1, keys), (*batch, 1, queries, keys)))
        return {
            "q": draw.tensor(*batch, heads, queries, dim),
            "k": draw.tensor(*batch, many, keys, dim),
            "v": draw.tensor(*batch, many, keys, near),
            "m": draw.tensor(*mask),
        }


class FilledAttention(Rule):
    """softmax(masked_fill(q @ kᵀ * s, m, -inf)) @ v  ->  rw.attention(q, k, v, ~m, scale=s)"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(rank=HEADS),
        k,
        v,
        s: Maybe(Number),
        d: Maybe(Number),
        hidden,
        fill: Attr(float),
        dtype: Maybe(Attr),
    ):
        scores = rw.matmul(q, either(*_turned(k)))
        scaled = either(scores * s, scores / d, scores)
        masked = aten.masked_fill.Scalar(scaled, hidden, fill)
        return rw.matmul(aten.softmax.int(masked, -1, dtype=dtype), v)

    def where(self, q, k, v, d, hidden, fill, dtype):
        if d == 0 or not fill <= masks.HIDDEN:
            return NoMatch("{0} does not hide a score", fill)
        if fill == -math.inf and not masks.leaves_something(hidden.value):
            return NoMatch("a query that sees nothing through {0} gets nan", hidden)
        keys = _Keys(k, k.shape)
        return (
            _keeps_precision(q, dtype)
            and _heads_fit(q, keys, v)
            and _masks_fit(q, keys, hidden, dtype=torch.bool)
        )

    def replace(self, q, k, v, s, d, hidden, fill):
        if fill == -math.inf:
            mask = aten.logical_not(hidden)
        else:
            mask = aten.masked_fill.Scalar(aten.new_zeros(q, hidden.shape), hidden, fill)
        return rw.attention(q, k, v, mask, scale=_scale(s, d))


# --------------------------------------------------------------------------- queries and keys


class TurnedKeys(Rule):
    """attention(q, kᵀᵀ, v)  ->  attention(q, k, v)"""

    def pattern(self, q: Tensor(dtype=FLOATS), k, v, m: Maybe, _: Rest):
        turned = either(*(way.shared() for way in _turned(k)))
        return rw.attention(q, aten.transpose.int(turned, -2, -1), v, m, **_)

    def where(self, q, k, v):
        return k.dtype == q.dtype and v.dtype == q.dtype

    def replace(self, q, k, v, m, _):
        return rw.attention(q, k, v, m, **_)


class ScaledQuery(Rule):
    """attention(q * c, k, v, scale=s)  ->  attention(q, k, v, scale=c * s)"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(dtype=FLOATS),
        k,
        v,
        m: Maybe,
        c: Maybe(Number),
        d: Maybe(Number),
        scale: Maybe(Attr),
        shape: Maybe(Attr),
        _: Rest,
    ):
        scaled = either(q * c, q / d)
        heads = aten.transpose.int(aten.reshape(scaled, shape), 1, 2)
        return rw.attention(either(heads, scaled), k, v, m, scale=scale, **_)

    def replace(self, q, k, v, m, c, d, scale, shape, _):
        if d == 0 or (scale is None and not isinstance(k.shape[-1], int)):
            return NoMatch("the scale of {0} is no number", q)
        own = k.shape[-1] ** -0.5 if scale is None else scale
        if shape is not None:
            q = aten.transpose.int(aten.reshape(q, shape), 1, 2)
        return rw.attention(q, k, v, m, scale=own / d if c is None else own * c, **_)


class GroupedHeads(Rule):
    """attention(q, repeat(k), repeat(v))  ->  attention(q, k, v)      heads in groups"""

    exactness = REFOLD

    def pattern(
        self,
        q: Tensor(rank=4),
        k: Tensor(rank=4),
        v: Tensor(rank=4),
        m: Maybe,
        size: Attr,
        size_v: Attr,
        shape: Attr,
        shape_v: Attr,
        _: Rest,
    ):
        keys = aten.reshape(aten.expand(aten.unsqueeze(k, 2), size), shape)
        values = aten.reshape(aten.expand(aten.unsqueeze(v, 2), size_v), shape_v)
        return rw.attention(q, keys, values, m, **_)

    def where(self, q, k, v, size, size_v, shape, shape_v):
        return _repeats(k, size, shape) and _repeats(v, size_v, shape_v) and shape[1] == q.shape[1]

    def replace(self, q, k, v, m, _):
        return rw.attention(q, k, v, m, **_)

    def example(self, draw):
        batch, queries, keys, dim = draw.sizes(4)
        heads, times, wrong = draw.choice((1, 2, 3)), draw.choice((1, 2)), draw.chance(0.2)
        size = (batch, heads, times, keys, dim)
        shape = (batch, times * heads, keys, dim)
        return {
            "q": draw.tensor(batch, times * heads, queries, dim),
            "k": draw.tensor(batch, heads, keys, dim),
            "v": draw.tensor(batch, heads, keys, dim),
            "m": None,
            "size": size,
            "size_v": size,
            "shape": shape,
            "shape_v": (*shape[:2], dim, keys) if wrong else shape,
        }


def _repeats(x: Handle, size: tuple[Any, ...], shape: tuple[Any, ...]) -> Any:
    """Whether ``x.unsqueeze(2).expand(size).reshape(shape)`` repeats each head in a row."""
    batch, heads, *rest = x.shape
    times = size[2]
    if shape != (batch, heads * times, *rest):
        return NoMatch("{0} is no repetition of heads", x)
    return True


# --------------------------------------------------------------------------- masks


class ProvableMask(Rule):
    """attention(q, k, v, mask)  ->  attention(q, k, v), or causal=True      for a provable mask"""

    exactness = REFOLD

    def pattern(self, q: Tensor(dtype=FLOATS), k, v, mask, scale: Maybe(Attr)):
        return rw.attention(q, k, v, mask, scale=scale)

    def where(self, q, k, v, mask):
        found = masks.sees(mask.value)
        if found is None:
            return NoMatch("what {0} hides is not known", mask)
        return found in (masks.ALWAYS, masks.CAUSAL) or NoMatch("{0} is no triangle", mask)

    def replace(self, q, k, v, mask, scale):
        causal = masks.sees(mask.value) == masks.CAUSAL
        return rw.attention(q, k, v, scale=scale, causal=causal)

    def example(self, draw):
        batch, heads, queries, keys, dim = draw.sizes(5)
        return {
            "q": draw.tensor(batch, heads, queries, dim),
            "k": draw.tensor(batch, heads, keys, dim),
            "v": draw.tensor(batch, heads, keys, dim),
            "mask": masks.example(draw, queries, keys),
        }


RULES = (
    TorchAttention,
    AttentionFormula,
    WideAttention,
    FilledAttention,
    TurnedKeys,
    ScaledQuery,
    GroupedHeads,
    ProvableMask,
)
