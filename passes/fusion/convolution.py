"""Convolutions: the spellings of ``rw.conv``, and what is folded into their weights.

    conv1d(x, w, b, ...), conv2d, conv3d       ->  rw.conv(x, w, b, ...)
    conv_transpose1d(x, w, b, ...), 2d, 3d     ->  rw.conv(x, w, b, ..., transposed=True)
    conv2d(x, w, b, padding="same")            ->  rw.conv(x, w, b, padding=half of what is needed)
    convolution(x, w, b, ...)                  ->  rw.conv(x, w, b, ...)
    batch_norm(conv(x, w, b))                  ->  conv(x, w * k, (b - mean) * k + beta)
    conv(x, w) + b                             ->  conv(x, w, b)            for b one per channel
    conv(pad(x, zeros), w, b)                  ->  conv(x, w, b, padding + zeros)
    conv(x, w, b), stride = kernel             ->  linear(patches of x, w as a matrix, b)

Activations after a convolution stay what they are: each backend fuses those that it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.passes.handles import BoundOp, Handle
from rewright.passes.ops import aten, rw
from rewright.passes.patterns import OpVar, either
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Attr, Const, Maybe, Rest, Tensor

Vector: Final = Const(rank=1)


# --------------------------------------------------------------------------- spellings


def _each(numbers: Any, default: int, count: int) -> tuple[int, ...]:
    """One number for each of `count` dimensions, of what torch takes for that."""
    given = (default,) if numbers is None or numbers == () else numbers
    given = given if isinstance(given, tuple) else (given,)
    return given * count if len(given) == 1 else given


def _batched(x: Handle, w: Handle) -> bool | NoMatch:
    return x.rank == w.rank or NoMatch("{0} has no dimension for the batch", x)


class TorchConv(Rule):
    """conv1d(x, w, b, ...)  ->  rw.conv(x, w, b, ...)      and conv2d, conv3d"""

    def pattern(self, x, w, b: Maybe, conv: OpVar(aten.conv1d, aten.conv2d, aten.conv3d)):
        return conv(x, w, b)

    def where(self, x, w):
        return _batched(x, w)

    def replace(self, x, w, b, conv):
        given, count = conv.attributes, w.rank - 2
        return rw.conv(
            x,
            w,
            b,
            stride=_each(given.get("stride"), 1, count),
            padding=_each(given.get("padding"), 0, count),
            dilation=_each(given.get("dilation"), 1, count),
            groups=given.get("groups", 1),
        )


class TorchTransposedConv(Rule):
    """conv_transpose1d(x, w, b, ...)  ->  rw.conv(x, w, b, ..., transposed=True)      and 2d, 3d"""

    def pattern(
        self,
        x,
        w,
        b: Maybe,
        conv: OpVar(
            aten.conv_transpose1d, aten.conv_transpose2d.input, aten.conv_transpose3d.input
        ),
    ):
        return conv(x, w, b)

    def where(self, x, w):
        return _batched(x, w)

    def replace(self, x, w, b, conv):
        given, count = conv.attributes, w.rank - 2
        return rw.conv(
            x,
            w,
            b,
            stride=_each(given.get("stride"), 1, count),
            padding=_each(given.get("padding"), 0, count),
            dilation=_each(given.get("dilation"), 1, count),
            groups=given.get("groups", 1),
            transposed=True,
            output_padding=_each(given.get("output_padding"), 0, count),
        )


class TorchPaddedConv(Rule):
    """conv2d(x, w, b, padding="same")  ->  rw.conv(x, w, b, padding=half of what is needed)"""

    def pattern(
        self,
        x,
        w,
        b: Maybe,
        conv: OpVar(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
    ):
        return conv(x, w, b)

    def where(self, x, w, conv):
        return _batched(x, w) and (
            None not in _padding(w, conv) or NoMatch("{0} needs more on one side", w)
        )

    def replace(self, x, w, b, conv):
        given, count = conv.attributes, w.rank - 2
        return rw.conv(
            x,
            w,
            b,
            stride=_each(given.get("stride"), 1, count),
            padding=_padding(w, conv),
            dilation=_each(given.get("dilation"), 1, count),
            groups=given.get("groups", 1),
        )


def _padding(w: Handle, conv: BoundOp) -> tuple[int | None, ...]:
    """What "same" or "valid" is in numbers; None for a dimension that needs an odd one."""
    count = w.rank - 2
    if conv.attributes.get("padding", "valid") == "valid":
        return (0,) * count
    dilation = _each(conv.attributes.get("dilation"), 1, count)
    needed = [step * (size - 1) for step, size in zip(dilation, w.shape[2:], strict=True)]
    return tuple(total // 2 if total % 2 == 0 else None for total in needed)


class TorchConvolution(Rule):
    """convolution(x, w, b, ...)  ->  rw.conv(x, w, b, ...)"""

    def pattern(
        self,
        x,
        w,
        b: Maybe,
        stride: Attr,
        padding: Attr,
        dilation: Attr,
        transposed: Attr,
        output_padding: Attr,
        groups: Attr,
    ):
        return aten.convolution(
            x, w, b, stride, padding, dilation, transposed, output_padding, groups
        )

    def replace(self, x, w, b, stride, padding, dilation, transposed, output_padding, groups):
        count = w.rank - 2
        extra = _each(output_padding, 0, count)
        return rw.conv(
            x,
            w,
            b,
            stride=_each(stride, 1, count),
            padding=_each(padding, 0, count),
            dilation=_each(dilation, 1, count),
            groups=groups,
            transposed=transposed,
            output_padding=extra if any(extra) else (),
        )


# --------------------------------------------------------------------------- folding


class FoldBatchNorm(Rule):
    """batch_norm(conv(x, w, b))  ->  conv(x, w * k, (b - mean) * k + beta),  k = gamma / std"""

    exactness = REFOLD

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        w: Const,
        b: Maybe(Const),
        gamma: Maybe(Vector),
        beta: Maybe(Vector),
        mean: Vector,
        var: Vector,
        eps: Attr,
        stride: Attr,
        padding: Attr,
        dilation: Attr,
        groups: Maybe(Attr),
        _: Rest,
    ):
        steps = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y = rw.conv(x, w, b, **steps)
        return aten.batch_norm(y, gamma, beta, mean, var, training=False, eps=eps, **_)

    def replace(self, x, w, b, gamma, beta, mean, var, eps, stride, padding, dilation, groups):
        # In f64, since this is computed once: only the rounding of the weights themselves is new.
        k = aten.rsqrt(var.to(torch.float64) + eps)
        k = k if gamma is None else k * gamma
        shift = -mean.to(torch.float64) if b is None else b.to(torch.float64) - mean
        shift = shift * k if beta is None else shift * k + beta
        scaled = w * aten.reshape(k, [-1] + [1] * (w.rank - 1))
        return rw.conv(
            x,
            scaled.to(w.dtype),
            shift.to(w.dtype),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=1 if groups is None else groups,
        )


class AddConvBias(Rule):
    """conv(x, w) + b  ->  conv(x, w, b)      for b one per channel"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), w, b: Const, conv: Rest):
        return rw.conv(x, w, **conv) + b

    def where(self, x, w, b, conv):
        return _is_per_channel(b, _channels(w, conv), x.rank) and b.dtype == x.dtype

    def replace(self, x, w, b, conv):
        return rw.conv(x, w, aten.reshape(b, [_channels(w, conv)]), **conv)


def _channels(w: Handle, conv: dict[str, Any]) -> Any:
    """How many channels a convolution gives."""
    if conv.get("transposed", False):
        return w.shape[1] * conv.get("groups", 1)
    return w.shape[0]


def _is_per_channel(b: Handle, channels: Any, rank: int) -> Any:
    """Whether `b` broadcasts over all of ``[n, channels, *spatial]`` but the channels."""
    spatial = rank - 2
    if b.rank not in (spatial + 1, spatial + 2):
        return NoMatch("{0} is not one number for each channel", b)
    *batch, count = b.shape[: b.rank - spatial]
    return count == channels and all(dim == 1 for dim in (*batch, *b.shape[b.rank - spatial :]))


class FoldPadding(Rule):
    """conv(pad(x, zeros), w, b)  ->  conv(x, w, b, padding + zeros)"""

    # Zeros that are there make nan of an infinite weight; those that are only meant are skipped.
    exactness = REFOLD

    def pattern(self, x, w, b: Maybe, pad: Attr, padding: Attr, conv: Rest):
        padded = either(aten.pad(x, pad), aten.pad(x, pad, value=0), aten.constant_pad_nd(x, pad))
        return rw.conv(padded, w, b, padding=padding, **conv)

    def where(self, x, pad, conv):
        if _sides(pad, x.rank) is None:
            return NoMatch("the padding {0} is not the same on both sides", pad)
        return not conv.get("transposed", False)

    def replace(self, x, w, b, pad, padding, conv):
        sides: Any = _sides(pad, x.rank)
        total = tuple(a + b for a, b in zip(padding, sides, strict=True))
        return rw.conv(x, w, b, padding=total, **conv)


def _sides(pad: Sequence[Any], rank: int) -> tuple[int, ...] | None:
    """The zeros on both sides of each spatial dimension, in order; None where they differ."""
    pairs = [(pad[at], pad[at + 1]) for at in range(0, len(pad), 2)]
    numbers = all(isinstance(side, int) and side >= 0 for pair in pairs for side in pair)
    if not numbers or len(pairs) > rank - 2 or any(low != high for low, high in pairs):
        return None
    missing = [0] * (rank - 2 - len(pairs))
    return (*missing, *(low for low, _ in reversed(pairs)))


_FEW: Final = 16
"""A patch embedding looks at an image or at latents: it has few channels."""


class PatchEmbedding(Rule):
    """conv(x, w, b), stride = kernel  ->  linear(patches of x, w as a matrix, b)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(rank=4), w: Tensor(rank=4), b: Maybe, stride: Attr):
        return rw.conv(x, w, b, stride=stride, padding=[0, 0], dilation=[1, 1])

    def where(self, x, w, stride):
        high, wide = w.shape[2:]
        if (high, wide) != stride or high * wide == 1 or w.shape[1] > _FEW:
            return NoMatch("{0} does not embed patches", w)
        return x.shape[2] % high == 0 and x.shape[3] % wide == 0

    def replace(self, x, w, b):
        (n, c, height, width), (out, _, high, wide) = x.shape, w.shape
        rows, columns = height // high, width // wide
        grid = aten.reshape(x, [n, c, rows, high, columns, wide])
        patches = aten.reshape(
            aten.permute(grid, [0, 2, 4, 1, 3, 5]), [n, rows, columns, c * high * wide]
        )
        y = rw.linear(patches, aten.reshape(w, [out, c * high * wide]), b)
        return aten.permute(y, [0, 3, 1, 2])

    def example(self, draw):
        n, c, out, rows, columns = draw.sizes(5)
        high, wide = draw.choice(((2, 2), (2, 3), (4, 1), (3, 3)))
        more = draw.choice((0, 0, 0, 1))
        return {
            "x": draw.tensor(n, c, rows * high, columns * wide + more),
            "w": draw.tensor(out, c, high, wide),
            "b": draw.tensor(out) if draw.chance(0.5) else None,
            "stride": (high, wide),
        }


SPELLINGS = (TorchConv, TorchTransposedConv, TorchPaddedConv, TorchConvolution)
RULES = (FoldBatchNorm, AddConvBias, FoldPadding, PatchEmbedding)
