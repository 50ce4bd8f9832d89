"""Layers that combine elements along axes: reduce, softmax, ragged softmax, cumulative, top-k,
normalization.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from rewright.testing.layer import Layer
from rewright.testing.precision import wide

__all__ = ["cumulative", "normalization", "ragged_softmax", "reduce", "softmax", "topk"]

Tensor: TypeAlias = torch.Tensor


def _lowest(dtype: torch.dtype) -> float | int:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float | int:
    return math.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def _extremum(
    function: Callable[..., Tensor], neutral: Callable[[torch.dtype], float | int]
) -> Callable[[Tensor, Sequence[int]], Tensor]:
    def reduced(x: Tensor, axes: Sequence[int]) -> Tensor:
        if any(x.shape[axis] == 0 for axis in axes):
            sizes = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
            return torch.full(sizes, neutral(x.dtype), dtype=x.dtype)
        return function(x, dim=tuple(axes), keepdim=True)

    return reduced


def _product(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _average(x: Tensor, axes: Sequence[int]) -> Tensor:
    total = x.sum(tuple(axes), keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes)
    if x.is_floating_point():
        return total / count
    # TensorRT's table for empty volumes: the average of no integers is 0.
    return torch.div(total, count, rounding_mode="trunc") if count else total


_REDUCE: Mapping[str, Callable[[Tensor, Sequence[int]], Tensor]] = {
    "SUM": lambda x, axes: x.sum(tuple(axes), keepdim=True),
    "PROD": _product,
    "MAX": _extremum(torch.amax, _lowest),
    "MIN": _extremum(torch.amin, _highest),
    "AVG": _average,
}


def reduce(layer: Layer, x: Tensor) -> Tensor:
    """``op`` over the axes of a bitmask; integers wrap, and their averages are truncated."""
    op = layer.option("op")
    if op not in _REDUCE:
        raise layer.refuse(f"reduce operation {op} is not known here")
    axes = layer.axes(x.dim())
    out = _REDUCE[op](wide(x), axes).to(x.dtype)
    if layer.native.keep_dims:
        return out
    return out.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


def softmax(layer: Layer, x: Tensor) -> Tensor:
    """Softmax along the one axis of the bitmask."""
    axes = layer.axes(x.dim())
    if len(axes) != 1:
        raise layer.refuse(f"softmax over axes {axes}")
    return torch.softmax(wide(x), axes[0]).to(x.dtype)


def ragged_softmax(layer: Layer, x: Tensor, bounds: Tensor) -> Tensor:
    """Softmax over the first ``bounds[i]`` elements of each row i; 0 after them.

    x is (…, Z, S), bounds (…, Z, 1) of i32.
    """
    inside = torch.arange(x.shape[-1]) < bounds
    out = torch.softmax(wide(x).masked_fill(~inside, -math.inf), -1)
    return out.masked_fill(~inside, 0).to(x.dtype)


def cumulative(layer: Layer, x: Tensor, axis: Tensor) -> Tensor:
    """Running sums along ``axis`` (0-D); with ``exclusive`` without the element itself, with
    ``reverse`` from the end.
    """
    if (op := layer.option("op")) != "SUM":
        raise layer.refuse(f"cumulative operation {op} is not known here")
    dim = int(axis) % x.dim()
    y = wide(x)
    if layer.native.reverse:
        y = y.flip(dim)
    out = y.cumsum(dim)
    if layer.native.exclusive:
        out = out.roll(1, dim)
        if x.shape[dim]:
            out.select(dim, 0).zero_()
    return (out.flip(dim) if layer.native.reverse else out).to(x.dtype)


def topk(layer: Layer, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) along one axis, in order, and where they were.

    Of equal elements, the first counts as larger (TensorRT does not say).
    """
    axes = layer.axes(x.dim())
    if len(axes) != 1:
        raise layer.refuse(f"top-k over axes {axes}")
    count = layer.native.k if k is None else int(k)
    (axis,) = axes
    if not 0 <= count <= x.shape[axis]:
        raise layer.fault(f"k is {count}, but axis {axis} has size {x.shape[axis]}")
    values, places = torch.sort(
        wide(x), dim=axis, descending=layer.option("op") == "MAX", stable=True
    )
    return (
        values.narrow(axis, 0, count).to(x.dtype),
        places.narrow(axis, 0, count).to(layer.output_dtype(1)),
    )


def normalization(layer: Layer, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` over the axes of the bitmask, with
    the biased variance.

    With ``num_groups`` above 1, axis 1 is split into that many groups, and the channels of a group
    are normalized together. Version 1 then has scale and bias of size num_groups along axis 1;
    version 2, of the number of channels.
    """
    groups = layer.native.num_groups
    axes = layer.axes(x.dim())
    y = wide(x)
    if groups == 1:
        out = _normalized(y, axes, layer.native.epsilon)
        return (out * wide(scale) + wide(bias)).to(x.dtype)
    if any(axis < 2 for axis in axes):
        raise layer.refuse(f"groups of channels with axes {axes}")
    split = y.reshape(y.shape[0], groups, y.shape[1] // groups, *y.shape[2:])
    out = _normalized(split, (2, *(axis + 1 for axis in axes)), layer.native.epsilon)
    if getattr(layer.native, "is_v2", False):
        return (out.reshape(x.shape) * wide(scale) + wide(bias)).to(x.dtype)
    out = out * wide(scale).unsqueeze(2) + wide(bias).unsqueeze(2)
    return out.reshape(x.shape).to(x.dtype)


def _normalized(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    if not axes:
        return (x - x) / math.sqrt(epsilon)
    centred = x - x.mean(tuple(axes), keepdim=True)
    variance = centred.square().mean(tuple(axes), keepdim=True)
    return centred / torch.sqrt(variance + epsilon)
