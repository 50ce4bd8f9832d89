"""Layers that make tensors of no tensor: constant, fill."""

import zlib
from collections.abc import Sequence
from typing import TypeAlias

import torch

from rewright.testing.arrangement import ints
from rewright.testing.layer import Layer
from rewright.testing.windows import required

__all__ = ["constant", "fill"]

Tensor: TypeAlias = torch.Tensor


def constant(layer: Layer) -> Tensor:
    """The layer's weights, in its shape."""
    sizes = required(layer, "shape")
    values = layer.weights("weights", sizes)
    if values is None and 0 not in sizes:
        raise layer.refuse("it has no values")
    return torch.empty(sizes, dtype=layer.output_dtype()) if values is None else values


def fill(
    layer: Layer,
    sizes: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:
    """A tensor of ``sizes`` (input 0, or static) by ``operation``:

    LINSPACE: ``alpha + sum(beta[d] * i[d])`` at index i, beta having one step per axis;
    RANDOM_UNIFORM: between alpha and beta; RANDOM_NORMAL: of mean alpha and deviation beta.

    Random numbers are the layer's own at every evaluation, and not those of TensorRT.
    """
    shape: Sequence[int] = required(layer, "shape") if sizes is None else ints(sizes)
    operation = layer.option("operation")
    dtype = layer.output_dtype()
    first = layer.native.alpha if alpha is None else alpha
    second = layer.native.beta if beta is None else beta
    if operation == "LINSPACE":
        return _linspace(shape, first, second, dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(layer.name.encode()))
    low, high = float(first), float(second)
    if operation == "RANDOM_UNIFORM":
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(dtype)
    if operation == "RANDOM_NORMAL":
        return (low + high * torch.randn(shape, generator=generator)).to(dtype)
    raise layer.refuse(f"fill operation {operation} is not known here")


def _linspace(
    shape: Sequence[int], start: Tensor | float, steps: Tensor | float, dtype: torch.dtype
) -> Tensor:
    exact = dtype if not dtype.is_floating_point else torch.float32
    out = torch.as_tensor(start).to(exact).reshape(())
    deltas = torch.as_tensor(steps).to(exact).flatten()
    for axis, (size, delta) in enumerate(zip(shape, deltas, strict=True)):
        tail = [1] * (len(shape) - axis - 1)
        out = out + (delta * torch.arange(size, dtype=exact)).reshape(size, *tail)
    return out.expand(tuple(shape)).to(dtype)
