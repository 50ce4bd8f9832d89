"""Layers between floats and 8- or 4-bit numbers: quantize, dequantize, dynamic quantize."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch

from rewright.testing.dtypes import INTEGER_RANGE, to_fp4
from rewright.testing.layer import Layer
from rewright.testing.precision import wide

__all__ = ["dequantize", "dynamic_quantize", "quantize", "requantized"]

Tensor: TypeAlias = torch.Tensor

_FP8_MAX = 448.0


def _rounded(layer: Layer, x: Tensor, kind: str) -> Tensor:
    """x (float32) in a narrow type: to the nearest, ties to even, saturating."""
    if kind in INTEGER_RANGE:
        return torch.round(x).clamp(*INTEGER_RANGE[kind]).to(torch.int8)
    if kind == "FP8":
        return x.clamp(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn)
    if kind == "FP4":
        return to_fp4(x)
    raise layer.refuse(f"quantizing to {kind} is not known here")


def _spread(layer: Layer, scale: Tensor, sizes: Sequence[int]) -> Tensor:
    """The scale of each element of a tensor of ``sizes``, in float32.

    One for all; or one for each index along ``axis``; or, where the scale has the tensor's rank,
    one for each block, a block's size along an axis being the ratio of the two sizes.
    """
    scale = scale.float()
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.dim() == 1:
        axis = layer.native.axis
        if axis < 0:
            raise layer.refuse("it has a scale for each index of an axis, but no axis")
        return scale.reshape([-1 if d == axis else 1 for d in range(len(sizes))])
    if scale.dim() != len(sizes):
        raise layer.refuse(f"scale {list(scale.shape)} for a tensor {list(sizes)}")
    for axis, size in enumerate(sizes):
        blocks = scale.shape[axis]
        if blocks and size % blocks:
            raise layer.fault(f"axis {axis} of size {size} has no {blocks} equal blocks")
        scale = scale.repeat_interleave(size // max(blocks, 1), axis)
    return scale


def _no_zero_point(layer: Layer, zero_point: Tensor | None) -> None:
    if zero_point is not None and bool((zero_point.float() != 0).any()):
        raise layer.fault("a zero point other than 0: TensorRT quantizes symmetrically only")


def quantize(layer: Layer, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """``clamp(round(x / scale))`` in the output's type, ties to even."""
    _no_zero_point(layer, zero_point)
    return _rounded(layer, wide(x) / _spread(layer, scale, x.shape), layer.output_kind())


def dequantize(layer: Layer, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """``x * scale`` in the output's type."""
    _no_zero_point(layer, zero_point)
    return (x.float() * _spread(layer, scale, x.shape)).to(layer.output_dtype())


def requantized(layer: Layer, x: Tensor, scale: Tensor, kind: str) -> Tensor:
    """x (float32) quantized to ``kind`` with one scale for all, and back."""
    return _rounded(layer, x / scale.float().reshape(()), kind).float() * scale.float().reshape(())


def dynamic_quantize(
    layer: Layer, x: Tensor, double_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x quantized in blocks, and the blocks' scales, which are computed of their largest elements.

    NVFP4 (to FP4, scales in FP8): scale = amax / 6 / double_scale, rounded; then
    ``x / (scale * double_scale)``. MXFP8 (to FP8, scales in E8M0): the least power of two that
    brings amax within 448.
    """
    kind, scale_kind = layer.output_kind(0), layer.output_kind(1)
    block = _block(layer, x)
    amax = wide(x).abs()
    for axis, size in enumerate(block):
        sizes = [*amax.shape[:axis], amax.shape[axis] // size, size, *amax.shape[axis + 1 :]]
        amax = amax.reshape(sizes).amax(axis + 1)
    if (kind, scale_kind) == ("FP4", "FP8") and double_scale is not None:
        outer = double_scale.float().reshape(())
        scale = _rounded(layer, amax / 6 / outer, "FP8")
        divisor = scale.float() * outer
    elif (kind, scale_kind) == ("FP8", "E8M0"):
        exponent = torch.ceil(torch.log2(amax / _FP8_MAX)).clamp(-127, 127)
        divisor = torch.exp2(exponent)
        scale = divisor.to(torch.float8_e8m0fnu)
    else:
        raise layer.refuse(f"dynamic quantization to {kind} with scales in {scale_kind}")
    spread = divisor
    for axis, size in enumerate(block):
        spread = spread.repeat_interleave(size, axis)
    quotient = torch.where(spread == 0, 0, wide(x) / spread)
    return _rounded(layer, quotient, kind), scale


def _block(layer: Layer, x: Tensor) -> tuple[int, ...]:
    """The block's size along each axis of x."""
    dims = layer.dims("block_shape")
    if dims:
        sizes = tuple(x.shape[d] if size == -1 else size for d, size in enumerate(dims))
    else:
        axis = layer.native.axis % x.dim()
        sizes = tuple(layer.native.block_size if d == axis else 1 for d in range(x.dim()))
    if len(sizes) != x.dim() or math.prod(sizes) == 0:
        raise layer.refuse(f"block {list(sizes)} for a tensor {list(x.shape)}")
    return sizes
