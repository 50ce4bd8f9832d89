"""The three rules that the rule language was designed for: read these first."""

import math

import torch

from rewright.passes import (
    FLOATS,
    REFOLD,
    Attr,
    Const,
    Maybe,
    NoMatch,
    OpVar,
    Rest,
    Rule,
    Tensor,
    aten,
    either,
    maybe_cast,
    rw,
)

Vector = Const(rank=1)


class FoldBatchNorm(Rule):
    """batch_norm(conv(x, w, b))  ->  conv(x, w * k, (b - mean) * k + beta),  k = gamma / std"""

    exactness = REFOLD

    def pattern(
        self,
        x,
        w: Const,
        b: Maybe(Const),
        gamma: Maybe(Vector),
        beta: Maybe(Vector),
        mean: Vector,
        var: Vector,
        eps: Attr,
        conv: OpVar(aten.conv1d, aten.conv2d, aten.conv3d),
        _: Rest,
    ):
        y = conv(x, w, b)
        return aten.batch_norm(y, gamma, beta, mean, var, training=False, eps=eps, **_)

    def where(self, x, w):
        return x.rank == w.rank or NoMatch("{0} has no dimension for the batch", x)

    def replace(self, x, w, b, gamma, beta, mean, var, eps, conv):
        k = aten.rsqrt(var.wide() + eps)
        k = k if gamma is None else k * gamma
        shift = -mean.wide() if b is None else b.wide() - mean
        shift = shift * k if beta is None else shift * k + beta
        scaled = w * aten.reshape(k, [w.shape[0]] + [1] * (w.rank - 1))
        return conv(x, scaled.to(w.dtype), shift.to(w.dtype))


class LinearTanhGelu(Rule):
    """h/2 (1 + tanh(sqrt(2/pi) (h + 0.044715 h^3))), h = linear(x)  ->  gelu(linear(x))"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), w, b: Maybe):
        h = aten.linear(x, w, b)
        cube = either(h**3, h * h * h)
        inner = math.sqrt(2 / math.pi) * (h + 0.044715 * cube)
        return 0.5 * h * (1 + aten.tanh(inner))

    def replace(self, x, w, b):
        return aten.gelu(aten.linear(x, w, b), approximate="tanh")


class FuseRmsNorm(Rule):
    """w * x / sqrt(mean(x^2) + eps)  ->  rms_norm(x, w, eps)      and its mixed-precision form"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        w: Const(rank=1),
        eps: Attr(float),
        wide: Maybe(Attr),
        narrow: Maybe(Attr),
    ):
        h = maybe_cast(x, wide)
        y = h * aten.rsqrt(aten.mean.dim(h**2, [-1], keepdim=True) + eps)
        return w * maybe_cast(y, narrow)

    def where(self, x, w, wide, narrow):
        if w.shape[0] != x.shape[-1]:
            return NoMatch("{0} would be broadcast over {1}", w, x)
        return w.dtype == x.dtype and (wide, narrow) in ((None, None), (torch.float32, x.dtype))

    def replace(self, x, w, eps):
        return rw.rms_norm(x, w, eps=eps)
