"""Normalizations: from torch's ops, and from their formulas.

    layer_norm(x, shape, w, b, eps)            ->  rw.layer_norm(x, w, b, dims, eps)
    rms_norm(x, shape, w, eps)                 ->  rw.rms_norm(x, w, dims, eps)
    group_norm(x, n, w, b, eps)                ->  rw.group_norm(x, w, b, groups=n, eps)
    x / sqrt(mean(x²) + eps)                   ->  rms_norm(x, eps)
    x * rsqrt(mean(wide(x)²) + eps)            ->  rms_norm(wide(x), eps)
    (x - mean(x)) / sqrt(var(x) + eps)         ->  layer_norm(x, eps)
    rms_norm(x) * w,  layer_norm(x) * w        ->  rms_norm(x, w),  layer_norm(x, w)
    layer_norm(x, w) + b                       ->  layer_norm(x, w, b)
    narrow(rms_norm(wide(x), w))               ->  rms_norm(x, w)           and layer_norm
    silu(group_norm(x))                        ->  group_norm(x, silu=True)

A formula is met in pieces: its root (no weight, in whatever dtype it is computed), then its weight
and bias, then the casts around it. So all placings of the casts come out as the same op: Llama's
(``w * narrow(norm(wide(x)))``), T5's (``wide`` only below the square root) and Gemma's
(``narrow(norm(wide(x)) * (1 + wide(w)))``).
"""

from __future__ import annotations

from typing import Any, Final

import torch

from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.patterns import either
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Attr, Maybe, Rest, Tensor

NARROW: Final = (torch.float16, torch.bfloat16)
Epsilon: Final = Attr(float)


# --------------------------------------------------------------------------- torch's ops


class TorchLayerNorm(Rule):
    """layer_norm(x, shape, w, b, eps)  ->  rw.layer_norm(x, w, b, dims, eps)"""

    exactness = REFOLD

    def pattern(self, x, shape: Attr, w: Maybe, b: Maybe, eps: Maybe(Attr), _: Rest):
        return aten.layer_norm(x, shape, w, b, eps=eps, **_)

    def replace(self, x, shape, w, b, eps):
        return rw.layer_norm(x, w, b, dims=len(shape), eps=1e-5 if eps is None else eps)


class TorchRmsNorm(Rule):
    """rms_norm(x, shape, w, eps)  ->  rw.rms_norm(x, w, dims, eps)"""

    exactness = REFOLD

    def pattern(self, x, shape: Attr, w: Maybe, eps: Attr(float)):
        return aten.rms_norm(x, shape, w, eps=eps)

    def replace(self, x, shape, w, eps):
        return rw.rms_norm(x, w, dims=len(shape), eps=eps)


class TorchGroupNorm(Rule):
    """group_norm(x, n, w, b, eps)  ->  rw.group_norm(x, w, b, groups=n, eps)"""

    exactness = REFOLD

    def pattern(self, x, groups: Attr, w: Maybe, b: Maybe, eps: Maybe(Attr), _: Rest):
        return aten.group_norm(x, groups, w, b, eps=eps, **_)

    def replace(self, x, groups, w, b, eps):
        return rw.group_norm(x, w, b, groups=groups, eps=1e-5 if eps is None else eps)


# --------------------------------------------------------------------------- formulas


def _reciprocals(root: Any) -> tuple[Any, ...]:
    """The ways to write ``1 / sqrt(root)``."""
    return aten.rsqrt(root), aten.pow.Tensor_Scalar(root, -0.5), 1 / aten.sqrt(root)


class RmsNormFormula(Rule):
    """x / sqrt(mean(x²) + eps)  ->  rms_norm(x, eps)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), eps: Epsilon):
        root = aten.mean.dim(either(x**2, x * x), [-1], keepdim=True) + eps
        return either(x * either(*_reciprocals(root)), x / aten.sqrt(root))

    def replace(self, x, eps):
        return rw.rms_norm(x, eps=eps)


class RmsNormOfNarrow(Rule):
    """x * rsqrt(mean(wide(x)²) + eps)  ->  rms_norm(wide(x), eps)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=NARROW), wide: Attr, eps: Epsilon):
        h = aten._to_copy(x, dtype=wide)
        root = aten.mean.dim(either(h**2, h * h), [-1], keepdim=True) + eps
        return x * either(*_reciprocals(root))

    def where(self, wide):
        return wide in (torch.float32, torch.float64)

    def replace(self, x, wide, eps):
        return rw.rms_norm(x.to(wide), eps=eps)


class LayerNormFormula(Rule):
    """(x - mean(x)) / sqrt(var(x) + eps)  ->  layer_norm(x, eps)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), eps: Epsilon):
        centred = x - aten.mean.dim(x, [-1], keepdim=True)
        variance = either(
            aten.mean.dim(either(centred**2, centred * centred), [-1], keepdim=True),
            aten.var.dim(x, [-1], unbiased=False, keepdim=True),
            aten.var.correction(x, [-1], correction=0, keepdim=True),
        )
        root = variance + eps
        return either(centred * either(*_reciprocals(root)), centred / aten.sqrt(root))

    def replace(self, x, eps):
        return rw.layer_norm(x, eps=eps)


# --------------------------------------------------------------------------- weights, casts


def _fits(x: Handle, w: Handle) -> Any:
    """Whether `w` is a weight for the last dimension of `x`, which it leaves in its dtype."""
    if w.dtype != x.dtype:
        return NoMatch("{0} is {1}, and {2} is {3}", w, w.dtype, x, x.dtype)
    return w.shape[0] == x.shape[-1]


class RmsNormWeight(Rule):
    """rms_norm(x) * w  ->  rms_norm(x, w)"""

    exactness = REFOLD

    def pattern(self, x, w: Tensor(rank=1), eps: Maybe(Attr)):
        return rw.rms_norm(x, eps=eps) * w

    def where(self, x, w):
        return _fits(x, w)

    def replace(self, x, w, eps):
        return rw.rms_norm(x, w, eps=1e-6 if eps is None else eps)


class LayerNormWeight(Rule):
    """layer_norm(x) * w  ->  layer_norm(x, w)"""

    exactness = REFOLD

    def pattern(self, x, w: Tensor(rank=1), eps: Maybe(Attr)):
        return rw.layer_norm(x, eps=eps) * w

    def where(self, x, w):
        return _fits(x, w)

    def replace(self, x, w, eps):
        return rw.layer_norm(x, w, eps=1e-5 if eps is None else eps)


class LayerNormBias(Rule):
    """layer_norm(x, w) + b  ->  layer_norm(x, w, b)"""

    exactness = REFOLD

    def pattern(self, x, w: Tensor(rank=1), b: Tensor(rank=1), eps: Maybe(Attr)):
        return rw.layer_norm(x, w, eps=eps) + b

    def where(self, x, b):
        return _fits(x, b)

    def replace(self, x, w, b, eps):
        return rw.layer_norm(x, w, b, eps=1e-5 if eps is None else eps)


class NarrowRmsNorm(Rule):
    """narrow(rms_norm(wide(x), w))  ->  rms_norm(x, w)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=NARROW), w: Maybe, narrow: Attr, _: Rest):
        wide = aten._to_copy(x, dtype=torch.float32).shared()
        return aten._to_copy(rw.rms_norm(wide, w, **_), dtype=narrow)

    def where(self, x, narrow):
        return narrow == x.dtype

    def replace(self, x, w, _):
        return rw.rms_norm(x, w, **_)


class NarrowLayerNorm(Rule):
    """narrow(layer_norm(wide(x), w, b))  ->  layer_norm(x, w, b)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=NARROW), w: Maybe, b: Maybe, narrow: Attr, _: Rest):
        wide = aten._to_copy(x, dtype=torch.float32).shared()
        return aten._to_copy(rw.layer_norm(wide, w, b, **_), dtype=narrow)

    def where(self, x, narrow):
        return narrow == x.dtype

    def replace(self, x, w, b, _):
        return rw.layer_norm(x, w, b, **_)


class GroupNormSilu(Rule):
    """silu(group_norm(x))  ->  group_norm(x, silu=True)"""

    exactness = REFOLD

    def pattern(self, x, w: Maybe, b: Maybe, groups: Attr, eps: Maybe(Attr)):
        return aten.silu(rw.group_norm(x, w, b, groups=groups, eps=eps))

    def replace(self, x, w, b, groups, eps):
        eps = 1e-5 if eps is None else eps
        return rw.group_norm(x, w, b, groups=groups, eps=eps, silu=True)


RULES = (
    TorchLayerNorm,
    TorchRmsNorm,
    TorchGroupNorm,
    RmsNormFormula,
    RmsNormOfNarrow,
    LayerNormFormula,
    RmsNormWeight,
    LayerNormWeight,
    LayerNormBias,
    NarrowRmsNorm,
    NarrowLayerNorm,
    GroupNormSilu,
)
