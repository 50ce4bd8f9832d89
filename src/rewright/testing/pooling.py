"""Layers over windows that sum no products: pooling, and local response normalization."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

from rewright.testing.layer import Layer
from rewright.testing.precision import wide
from rewright.testing.windows import paddings, required

__all__ = ["lrn", "pooling"]

Tensor: TypeAlias = torch.Tensor


def pooling(layer: Layer, x: Tensor) -> Tensor:
    """The maximum, the average or a blend of both over windows of x (N, C, *spatial)."""
    kind = layer.option("type")
    window, stride = required(layer, "window_size_nd"), required(layer, "stride_nd")
    pads = paddings(layer, x.shape[2:], window, stride)
    y = wide(x)
    if kind == "MAX":
        out = _maximum(y, window, stride, pads)
    elif kind == "AVERAGE":
        out = _average(layer, y, window, stride, pads)
    elif kind == "MAX_AVERAGE_BLEND":
        blend = layer.native.blend_factor
        average = _average(layer, y, window, stride, pads)
        out = (1 - blend) * _maximum(y, window, stride, pads) + blend * average
    else:
        raise layer.refuse(f"pooling type {kind} is not known here")
    return out.to(x.dtype)


Pads: TypeAlias = Sequence[tuple[int, int]]


def _padded(x: Tensor, pads: Pads, value: float) -> Tensor:
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


def _maximum(x: Tensor, window: Sequence[int], stride: Sequence[int], pads: Pads) -> Tensor:
    # Padding never wins: it is left out of the maximum, also where all else is negative.
    windows = _padded(x, pads, -math.inf)
    for axis, (size, step) in enumerate(zip(window, stride, strict=True), start=2):
        windows = windows.unfold(axis, size, step).amax(-1)
    return windows


def _average(
    layer: Layer, x: Tensor, window: Sequence[int], stride: Sequence[int], pads: Pads
) -> Tensor:
    """The sum over each window by the number of its elements in the unpadded input, or in the
    padded one where ``average_count_excludes_padding`` is False.
    """
    sums = _padded(x, pads, 0.0)
    for axis, (size, step) in enumerate(zip(window, stride, strict=True), start=2):
        sums = sums.unfold(axis, size, step).sum(-1)
    if layer.native.average_count_excludes_padding:
        borders = [(0, 0)] * len(window)
    elif layer.option("padding_mode").startswith("SAME"):
        borders = [(max(pre, 0), max(post, 0)) for pre, post in pads]
    else:
        pre, post = required(layer, "pre_padding"), required(layer, "post_padding")
        borders = list(zip(pre, post, strict=True))
    counts = torch.ones(())
    for axis in range(len(window)):
        count = _counts(
            x.shape[2 + axis], sums.shape[2 + axis], window[axis], stride[axis],
            pads[axis][0], borders[axis],
        )  # fmt: skip
        counts = counts[..., None] * count
    return sums / counts


def _counts(
    size: int, windows: int, extent: int, stride: int, pre: int, border: tuple[int, int]
) -> Tensor:
    """For each window along an axis, how many of its elements lie in the input widened by
    ``border``.
    """
    first = torch.arange(windows) * stride - pre
    last = (first + extent).clamp(max=size + border[1])
    return (last - first.clamp(min=-border[0])).clamp(min=0).float()


def lrn(layer: Layer, x: Tensor) -> Tensor:
    """``x / (k + alpha / window * s) ** beta``, s the sum of squares over ``window`` channels."""
    native = layer.native
    out = F.local_response_norm(
        wide(x), native.window_size, alpha=native.alpha, beta=native.beta, k=native.k
    )
    return out.to(x.dtype)
