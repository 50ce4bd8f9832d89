"""Layers that move elements, taking sizes that may vary.

Static sizes go into a layer itself; others are computed in the network and given as an input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rewright.backends.tensorrt.enums import SampleMode
from rewright.backends.tensorrt.sizes import Size, Sizes
from rewright.backends.tensorrt.tensor import Tensor, promoted


def is_static(sizes: Sizes) -> bool:
    """Whether all sizes are numbers."""
    return all(isinstance(size, int) for size in sizes)


def reshape(x: Tensor, sizes: Sizes) -> Tensor:
    """`x` with another shape of as many elements."""
    sizes = tuple(sizes)
    if sizes == x.shape and is_static(sizes):
        return x
    if x.value is not None and is_static(sizes):
        return x.net.constant(x.value.reshape(sizes))  # type: ignore[arg-type]
    plain = _placeholders(x, sizes)
    if plain is not None:
        return x.net.layer("add_shuffle", x, reshape_dims=plain, zero_is_placeholder=False)
    vector = x.net.sizes.vector(sizes)
    return x.net.layer("add_shuffle", x, inputs={1: vector}, zero_is_placeholder=False)


def _placeholders(x: Tensor, sizes: Sizes) -> tuple[int, ...] | None:
    """`sizes` with -1 for the only one that varies; None where there are several."""
    unknown = [index for index, size in enumerate(sizes) if not isinstance(size, int)]
    if not unknown:
        return tuple(sizes)  # type: ignore[arg-type]
    if len(unknown) > 1 or 0 in sizes:
        return None
    return tuple(-1 if index == unknown[0] else size for index, size in enumerate(sizes))  # type: ignore[misc]


def unsqueeze(x: Tensor, axes: Iterable[int]) -> Tensor:
    """`x` with dimensions of 1 at `axes` of the result, all from 0 up."""
    new = set(axes)
    if not new:
        return x
    rest = iter(range(x.rank))
    rank = x.rank + len(new)
    source = [None if axis in new else next(rest) for axis in range(rank)]
    if x.value is not None or x.shape.count(-1) < 2:
        return _reshape_known(x, [1 if dim is None else x.shape[dim] for dim in source])
    if x.net.library.has("INetworkDefinition.add_unsqueeze"):
        return x.net.layer("add_unsqueeze", x, _axes(x, new))
    return reshape(x, [1 if dim is None else x.net.sizes.of(x, dim) for dim in source])


def squeeze(x: Tensor, axes: Iterable[int]) -> Tensor:
    """`x` without its dimensions `axes`, which are 1, all from 0 up."""
    gone = set(axes)
    if not gone:
        return x
    kept = [dim for dim in range(x.rank) if dim not in gone]
    if x.value is not None or sum(x.shape[dim] == -1 for dim in kept) < 2:
        return _reshape_known(x, [x.shape[dim] for dim in kept])
    if x.net.library.has("INetworkDefinition.add_squeeze"):
        return x.net.layer("add_squeeze", x, _axes(x, gone))
    return reshape(x, [x.net.sizes.of(x, dim) for dim in kept])


def _reshape_known(x: Tensor, dims: Sequence[int]) -> Tensor:
    """A reshape in which at most one dimension is -1."""
    if -1 in dims and 0 in dims:
        raise x.net.error("a shape with an empty and a varying dimension can't be inferred")
    if -1 not in dims:
        return reshape(x, dims)
    return x.net.layer("add_shuffle", x, reshape_dims=tuple(dims), zero_is_placeholder=False)


def _axes(x: Tensor, axes: Iterable[int]) -> Tensor:
    import torch

    return x.net.constant(torch.tensor(sorted(axes), dtype=torch.int32))


def permute(x: Tensor, order: Sequence[int]) -> Tensor:
    """Dimension ``order[i]`` of `x` becomes dimension ``i``."""
    order = tuple(dim % x.rank for dim in order)
    if order == tuple(range(x.rank)):
        return x
    if x.value is not None:
        return x.net.constant(x.value.permute(order))
    return x.net.layer("add_shuffle", x, first_transpose=order)


def transpose(x: Tensor, a: int, b: int) -> Tensor:
    """Exchanges two dimensions."""
    order = list(range(x.rank))
    order[a], order[b] = order[b], order[a]
    return permute(x, order)


def slice_(
    x: Tensor,
    start: Sizes,
    size: Sizes,
    stride: Sizes,
    mode: SampleMode | None = None,
    fill: Tensor | None = None,
) -> Tensor:
    """For each dimension, `size` elements from `start` on, `stride` apart.

    Args:
        x: any tensor.
        start: one for each dimension; may lie outside if `mode` allows it.
        size: one for each dimension.
        stride: one for each dimension; 0 repeats an element.
        mode: what is read outside; by default nothing may be.
        fill: the element outside, for ``FILL``.
    """
    parts = tuple(map(tuple, (start, size, stride)))
    inputs = {1 + i: x.net.sizes.vector(p) for i, p in enumerate(parts) if not is_static(p)}
    static = [part if is_static(part) else (0,) * x.rank for part in parts]
    settings = {} if mode is None else {"mode": mode}
    if fill is not None:
        inputs[4] = fill
    return x.net.layer("add_slice", x, *static, inputs=inputs, **settings)


def narrow(x: Tensor, dim: int, start: Size, size: Size, sizes: Sizes, stride: int = 1) -> Tensor:
    """`size` elements of dimension `dim`, from `start` on; `sizes` is the shape of `x`."""
    starts: list[Any] = [0] * x.rank
    strides = [1] * x.rank
    result = list(sizes)
    starts[dim], result[dim], strides[dim] = start, size, stride
    return slice_(x, starts, result, strides)


def expand(x: Tensor, sizes: Sizes) -> Tensor:
    """`x` with its dimensions of 1 repeated to `sizes`; new ones come first."""
    from rewright.backends.tensorrt.tensor import ranked

    x = ranked(x, len(tuple(sizes)))
    repeated = [old == 1 and new != 1 for old, new in zip(x.shape, sizes, strict=True)]
    if not any(repeated):
        return x
    return slice_(x, [0] * x.rank, sizes, [0 if again else 1 for again in repeated])


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors of one rank one after another along `dim`."""
    if len(tensors) == 1:
        return tensors[0]
    net = tensors[0].net
    return net.layer("add_concatenation", promoted(tensors), axis=dim % tensors[0].rank)


def shape_of(x: Tensor) -> list[Size]:
    """The dimensions of `x`: numbers, or tensors where they vary."""
    return [x.net.sizes.of(x, dim) for dim in range(x.rank)]
