"""Layers that combine elements along dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.shaping import reshape, squeeze, unsqueeze
from rewright.backends.tensorrt.sizes import Size
from rewright.backends.tensorrt.tensor import Tensor


def mask_of(axes: Iterable[int]) -> int:
    """Axes as the bits that TensorRT takes them as."""
    return sum(1 << axis for axis in set(axes))


def reduce(x: Tensor, operation: Reduce, axes: Iterable[int], keep: bool = False) -> Tensor:
    """`x` combined along `axes`, counted from the front; `keep` leaves dimensions of 1."""
    axes = tuple(axes)
    if not x.rank:  # TensorRT reduces nothing without dimensions, and there is nothing to reduce
        return x
    if not axes:
        return x
    return x.net.layer("add_reduce", x, operation, mask_of(axes), keep)


def mean(x: Tensor, axes: Iterable[int]) -> Tensor:
    """The mean along `axes`, which stay as dimensions of 1."""
    return reduce(x, Reduce.AVG, axes, True)


def softmax(x: Tensor, axis: int) -> Tensor:
    """Softmax along one axis."""
    if x.rank < 2:
        return squeeze(softmax(unsqueeze(x, (0,)), 1), (0,)) if x.rank else x - x + 1.0
    return x.net.layer("add_softmax", x, axes=mask_of((axis % x.rank,)))


def iota(x: Tensor, axis: int, size: Size, dtype: torch.dtype = torch.int64) -> Tensor:
    """0, 1, 2 ... along `axis` of a tensor of the rank of `x`, other dimensions 1."""
    shape: list[Any] = [1] * x.rank
    shape[axis] = size
    return reshape(arange(x, size, dtype), shape)


def arange(like: Tensor, size: Size, dtype: torch.dtype = torch.int64) -> Tensor:
    """``0 .. size - 1``, in the network of `like`."""
    from rewright.backends.tensorrt.filling import linspace

    return linspace(like.net, 0, 1, size, dtype)
