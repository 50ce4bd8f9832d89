"""Layers that read between elements: resize, grid sample."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

from rewright.testing.arrangement import ints
from rewright.testing.layer import Layer
from rewright.testing.precision import wide

__all__ = ["grid_sample", "resize"]

Tensor: TypeAlias = torch.Tensor

_ROUNDED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "HALF_UP": lambda x: torch.floor(x + 0.5),
    "HALF_DOWN": lambda x: torch.ceil(x - 0.5),
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
}

#: (place in the output, size of the input, size of the output) -> place in the input
_COORDINATE: Mapping[str, Callable[[Tensor, int, int], Tensor]] = {
    "ALIGN_CORNERS": lambda x, old, new: x * ((old - 1) / max(new - 1, 1)),
    "ASYMMETRIC": lambda x, old, new: x * (old / new),
    "HALF_PIXEL": lambda x, old, new: (x + 0.5) * (old / new) - 0.5,
}


def resize(layer: Layer, x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """x interpolated to the sizes of input 1, of ``shape``, or ``floor(size * scale)``.

    An axis is resized after the other: the weights of an element are products of those along each
    axis.
    """
    mode = layer.option("resize_mode")
    if mode not in _INTERPOLATE:
        raise layer.refuse(f"interpolation {mode} is not known here")
    y = wide(x)
    for axis, size in enumerate(_sizes(layer, x, sizes)):
        if size != x.shape[axis]:
            y = _INTERPOLATE[mode](layer, y, axis, _coordinates(layer, x.shape[axis], size))
        elif mode != "NEAREST" and layer.option("coordinate_transformation") not in _COORDINATE:
            raise layer.refuse("its coordinate transformation is not known here")
    return y.to(x.dtype)


def _sizes(layer: Layer, x: Tensor, sizes: Tensor | None) -> Sequence[int]:
    if sizes is not None:
        return ints(sizes)
    scales = list(layer.native.scales)
    if scales:
        return [math.floor(size * scale) for size, scale in zip(x.shape, scales, strict=True)]
    dims = layer.dims("shape")
    if dims is None:
        raise layer.refuse("it has neither sizes nor scales")
    return dims


def _coordinates(layer: Layer, old: int, new: int) -> Tensor:
    transformation = layer.option("coordinate_transformation")
    if transformation not in _COORDINATE:
        raise layer.refuse(f"coordinate transformation {transformation} is not known here")
    if new == 1 and layer.option("selector_for_single_pixel") == "UPPER":
        return torch.zeros(1)
    return _COORDINATE[transformation](torch.arange(new, dtype=torch.float32), old, new)


def _nearest(layer: Layer, x: Tensor, axis: int, place: Tensor) -> Tensor:
    index = _ROUNDED[layer.option("nearest_rounding")](place).long()
    return x.index_select(axis, index.clamp(0, x.shape[axis] - 1))


def _weighted(x: Tensor, axis: int, taps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of x at some indices along an axis, each with its weights; indices are clamped."""
    out = None
    for index, weight in taps:
        column = weight.reshape([-1] + [1] * (x.dim() - axis - 1))
        part = x.index_select(axis, index.clamp(0, x.shape[axis] - 1)) * column
        out = part if out is None else out + part
    assert out is not None
    return out


def _linear(layer: Layer, x: Tensor, axis: int, place: Tensor) -> Tensor:
    place = place.clamp(0, x.shape[axis] - 1)
    low = place.floor()
    return _weighted(x, axis, [(low.long(), 1 - (place - low)), (low.long() + 1, place - low)])


def _cubic(layer: Layer, x: Tensor, axis: int, place: Tensor) -> Tensor:
    """Keys' cubic convolution of four neighbours, with ``cubic_coeff`` as its parameter a."""
    a, size = layer.native.cubic_coeff, x.shape[axis]
    low = place.floor()
    taps = []
    for offset in (-1, 0, 1, 2):
        index = low.long() + offset
        d = (place - (low + offset)).abs()
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        weight = torch.where(d <= 1, near, far)
        if layer.native.exclude_outside:
            weight = torch.where((index >= 0) & (index < size), weight, 0)
        taps.append((index, weight))
    if layer.native.exclude_outside:
        total = sum((weight for _, weight in taps), torch.zeros(()))
        taps = [(index, weight / total) for index, weight in taps]
    return _weighted(x, axis, taps)


_INTERPOLATE: Mapping[str, Callable[[Layer, Tensor, int, Tensor], Tensor]] = {
    "NEAREST": _nearest,
    "LINEAR": _linear,
    "CUBIC": _cubic,
}

#: TensorRT's sample mode -> torch's. The header supports only these.
_BORDERS = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}
_KERNELS = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}


def grid_sample(layer: Layer, x: Tensor, grid: Tensor) -> Tensor:
    """x (N, C, *spatial) read at the places in grid (N, *sizes, spatial rank), where -1 and 1 are
    the borders; as ONNX's GridSample.
    """
    mode, kernel = layer.option("sample_mode"), layer.option("interpolation_mode")
    if mode not in _BORDERS or kernel not in _KERNELS:
        raise layer.refuse(f"sampling {kernel} with {mode} is not documented")
    return F.grid_sample(
        wide(x),
        wide(grid),
        _KERNELS[kernel],
        _BORDERS[mode],
        align_corners=layer.native.align_corners,
    ).to(x.dtype)
