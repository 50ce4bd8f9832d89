"""Tensors made from nothing: ranges and repeated numbers, of sizes that may vary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rewright.backends.tensorrt.dtypes import BOOL
from rewright.backends.tensorrt.enums import FillOperation
from rewright.backends.tensorrt.shaping import expand, is_static
from rewright.backends.tensorrt.sizes import Size, Sizes
from rewright.backends.tensorrt.tensor import Tensor, ranked

if TYPE_CHECKING:
    from rewright.backends.tensorrt.network import Network

_SMALL = 1 << 16
"""Elements of a static range that are stored rather than computed."""


def linspace(net: Network, start: Any, step: Any, size: Size, dtype: torch.dtype) -> Tensor:
    """``start + i * step`` for ``i`` below `size`; computed as ``i64`` or ``f32``.

    Args:
        net: where to.
        start: the first, a number or size.
        step: what each adds to the one before.
        size: how many.
        dtype: of the result.
    """
    exact = torch.float32 if dtype.is_floating_point else torch.int64
    plain = all(isinstance(item, int | float) for item in (start, step))
    if plain and isinstance(size, int) and size <= _SMALL:
        # i * step in double precision, as torch computes a range
        steps = torch.arange(size, dtype=torch.float64 if exact is torch.float32 else exact)
        return net.constant((start + steps * step).to(dtype))
    first, delta = net.scalar(start, exact), net.scalar(step, exact, 1)
    inputs: dict[int, Tensor | None] = {1: first, 2: delta}
    if not isinstance(size, int):
        inputs[0] = net.sizes.vector((size,))
    dims = (size if isinstance(size, int) else 0,)
    made = net.layer("add_fill", dims, FillOperation.LINSPACE, exact, inputs=inputs)
    return made.to(dtype)


def full(net: Network, value: Any, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """`value` (a number, size or tensor without dimensions), everywhere."""
    sizes = tuple(sizes)
    plain = isinstance(value, int | float)
    if plain and is_static(sizes) and torch.Size(sizes).numel() <= _SMALL:  # type: ignore[arg-type]
        return net.constant(torch.full(sizes, value, dtype=dtype))  # type: ignore[arg-type]
    one = net.scalar(value, torch.int32 if dtype in BOOL else dtype)
    return expand(ranked(one, len(sizes)), sizes).to(dtype)
