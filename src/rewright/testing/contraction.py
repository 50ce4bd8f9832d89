"""Layers that sum products: matrix multiply, einsum, convolution, deconvolution.

All accumulate in float32 and round once to the dtype of the output.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

from rewright.testing.layer import Layer
from rewright.testing.precision import wide
from rewright.testing.windows import paddings, required

__all__ = ["convolution", "deconvolution", "einsum", "matrix_multiply"]

Tensor: TypeAlias = torch.Tensor


def matrix_multiply(layer: Layer, a: Tensor, b: Tensor) -> Tensor:
    """``op0(a) @ op1(b)`` of collections of matrices, or of vectors where an op is VECTOR; the
    collections' sizes of 1 broadcast.
    """
    op0, op1 = layer.option("op0"), layer.option("op1")
    left, right = _operand(wide(a), op0, -2), _operand(wide(b), op1, -1)
    if all(size == 1 for size in right.shape[:-2]) and left.dim() >= right.dim():
        # One matrix for all: torch would copy it for each of the others.
        right = right.reshape(right.shape[-2:])
    out = torch.matmul(left, right)
    if op1 == "VECTOR":
        out = out.squeeze(-1)
    if op0 == "VECTOR":
        out = out.squeeze(-1 if op1 == "VECTOR" else -2)
    return out.to(a.dtype)


def _operand(x: Tensor, op: str, vector_axis: int) -> Tensor:
    if op == "TRANSPOSE":
        return x.mT
    return x.unsqueeze(vector_axis) if op == "VECTOR" else x


def einsum(layer: Layer, *inputs: Tensor) -> Tensor:
    """Einstein summation by ``equation``."""
    return torch.einsum(layer.native.equation, *map(wide, inputs)).to(inputs[0].dtype)


_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONVOLVE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolution(
    layer: Layer, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Correlation of x (N, C, *spatial) with kernel (K, C/groups, *window), plus bias (K).

    The kernel and the bias are inputs 1 and 2, or weights.
    """
    window = required(layer, "kernel_size_nd")
    stride, dilation = required(layer, "stride_nd"), required(layer, "dilation_nd")
    groups, maps = layer.native.num_groups, layer.native.num_output_maps
    if kernel is None:
        kernel = layer.weights("kernel", (maps, x.shape[1] // groups, *window))
    if kernel is None:
        raise layer.refuse("it has no kernel")
    bias = layer.weights("bias") if bias is None else bias
    dilated = [d * (w - 1) + 1 for d, w in zip(dilation, window, strict=True)]
    pads = paddings(layer, x.shape[2:], dilated, stride)
    out = _CONVOLVE[len(window)](
        F.pad(wide(x), [amount for pair in reversed(pads) for amount in pair]),
        wide(kernel),
        None if bias is None else wide(bias).flatten(),
        stride=stride,
        dilation=dilation,
        groups=groups,
    )
    return out.to(x.dtype)


def deconvolution(
    layer: Layer, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """The transpose of a convolution: x (N, C, *spatial), kernel (C, K/groups, *window), bias (K).

    With d the extent of the dilated window, an output of explicit paddings has size
    ``(size - 1) * stride + d - pre - post``; one of mode SAME has ``size * stride``, or all there
    is where that is less.
    """
    window = required(layer, "kernel_size_nd")
    stride, dilation = required(layer, "stride_nd"), required(layer, "dilation_nd")
    groups, maps = layer.native.num_groups, layer.native.num_output_maps
    if kernel is None:
        kernel = layer.weights("kernel", (x.shape[1], maps // groups, *window))
    if kernel is None:
        raise layer.refuse("it has no kernel")
    bias = layer.weights("bias") if bias is None else bias
    full = _DECONVOLVE[len(window)](
        wide(x), wide(kernel), None, stride=stride, dilation=dilation, groups=groups
    )
    cut = _deconvolution_cuts(layer, x.shape[2:], full.shape[2:], stride)
    out = F.pad(full, [-amount for pair in reversed(cut) for amount in pair])
    if bias is not None:
        out = out + wide(bias).reshape(1, -1, *[1] * len(window))
    return out.to(x.dtype)


def _deconvolution_cuts(
    layer: Layer, sizes: Sequence[int], full: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """What is cut off before and after the full output."""
    mode = layer.option("padding_mode")
    if mode in ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP"):
        return list(
            zip(required(layer, "pre_padding"), required(layer, "post_padding"), strict=True)
        )
    cuts = []
    for size, extent, step in zip(sizes, full, stride, strict=True):
        total = max(extent - size * step, 0)
        less, more = math.floor(total / 2), math.ceil(total / 2)
        cuts.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return cuts
