"""Layers that move elements: shuffle, slice, concatenation, gather, scatter, squeeze, unsqueeze,
padding, reverse sequence, one-hot, shape, non-zero.

None of them computes with values, so every dtype goes through as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from rewright.testing.layer import Layer

__all__ = [
    "concatenation",
    "gather",
    "non_zero",
    "one_hot",
    "padding",
    "reverse_sequence",
    "scatter",
    "shape",
    "shuffle",
    "slice_",
    "squeeze",
    "unsqueeze",
]

Tensor: TypeAlias = torch.Tensor


def ints(tensor: Tensor) -> list[int]:
    """The values of a shape tensor, of any rank."""
    return [int(value) for value in tensor.flatten().tolist()]


# ---------------------------------------------------------------- shapes


def shape(layer: Layer, x: Tensor) -> Tensor:
    """The sizes of x, as an i64 vector."""
    return torch.tensor(tuple(x.shape), dtype=layer.output_dtype())


def shuffle(layer: Layer, x: Tensor, dims: Tensor | None = None) -> Tensor:
    """Transpose, reshape, transpose.

    In the sizes of the reshape (static, or input 1), -1 is inferred, and 0 stands for the size at
    the same place after the first transpose where ``zero_is_placeholder`` is set.
    """
    x = x.permute(tuple(layer.native.first_transpose)[: x.dim()])
    sizes = layer.dims("reshape_dims") if dims is None else ints(dims)
    if sizes is not None:
        x = x.reshape(_reshape_sizes(layer, x, list(sizes)))
    return x.permute(tuple(layer.native.second_transpose)[: x.dim()])


def _reshape_sizes(layer: Layer, x: Tensor, sizes: list[int]) -> list[int]:
    if layer.native.zero_is_placeholder:
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        # Of an empty tensor, torch infers nothing; 0 is the only size that can be meant.
        sizes[sizes.index(-1)] = x.numel() // known if known else 0
    if math.prod(sizes) != x.numel():
        raise layer.fault(f"can't reshape {list(x.shape)} to {sizes}")
    return sizes


def squeeze(layer: Layer, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x without the ``axes``, each of size 1; without every size of 1 where no axes are given."""
    if axes is None:
        return x.squeeze()
    dims = {axis % x.dim() for axis in ints(axes)}
    if any(x.shape[axis] != 1 for axis in dims):
        raise layer.fault(f"can't squeeze axes {sorted(dims)} of {list(x.shape)}")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in dims])


def unsqueeze(layer: Layer, x: Tensor, axes: Tensor) -> Tensor:
    """x with sizes of 1 at the ``axes`` of the output."""
    rank = x.dim() + axes.numel()
    dims = {axis % rank for axis in ints(axes)}
    sizes = iter(x.shape)
    return x.reshape([1 if axis in dims else next(sizes) for axis in range(rank)])


def concatenation(layer: Layer, *inputs: Tensor) -> Tensor:
    """The inputs, one after the other along ``axis``."""
    # torch.cat takes no 8-bit float on some versions, and skips 1-D empties of another rank.
    return _as_bits(torch.cat, list(inputs), layer.native.axis)


def _as_bits(function: Callable[..., Tensor], tensors: list[Tensor], *args: object) -> Tensor:
    """``function(tensors, *args)`` of a function that only moves elements, for dtypes of one byte
    for which torch has not got it.
    """
    dtype = tensors[0].dtype
    if dtype.itemsize == 1 and dtype not in (torch.bool, torch.int8, torch.uint8):
        return function([tensor.view(torch.uint8) for tensor in tensors], *args).view(dtype)
    return function(tensors, *args)


# ---------------------------------------------------------------- slice


def _wrap(index: Tensor, size: int) -> Tensor:
    return index % max(size, 1)


def _clamp(index: Tensor, size: int) -> Tensor:
    return index.clamp(0, max(size - 1, 0))


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirrored at the first and the last element, which are not repeated: 2 1 | 0 1 2 | 1 0."""
    period = max(2 * (size - 1), 1)
    folded = index % period
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(index)


#: Sample mode -> what an index out of bounds becomes. FILL reads any element, then replaces it.
_OUT_OF_BOUNDS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "STRICT_BOUNDS": lambda index, size: index,
    "WRAP": _wrap,
    "CLAMP": _clamp,
    "REFLECT": _reflect,
    "FILL": _clamp,
}


def slice_(
    layer: Layer,
    x: Tensor,
    start: Tensor | None = None,
    size: Tensor | None = None,
    stride: Tensor | None = None,
    fill: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Along each of the axes, elements ``start + stride * i`` for i below ``size``, which is the
    size of the output. Each input replaces the static Dims of its name.
    """
    mode = layer.option("mode")
    if mode not in _OUT_OF_BOUNDS:
        raise layer.refuse(f"sample mode {mode} is not known here")
    starts, sizes, strides = (
        _vector(layer, tensor, attribute)
        for tensor, attribute in ((start, "start"), (size, "shape"), (stride, "stride"))
    )
    chosen: Sequence[int] = layer.dims("axes") or () if axes is None else ints(axes)
    along = [axis % x.dim() for axis in chosen] if chosen else list(range(x.dim()))
    outside: Tensor | None = None
    for axis, first, count, step in zip(along, starts, sizes, strides, strict=True):
        extent = x.shape[axis]
        index = first + step * torch.arange(max(count, 0))
        out = (index < 0) | (index >= extent)
        if mode == "STRICT_BOUNDS" and bool(out.any()):
            raise layer.fault(
                f"start {first}, size {count}, stride {step} leave axis {axis} of size {extent}"
            )
        if mode == "FILL":
            outside = _or_along(outside, out, axis, x.dim())
        index = _OUT_OF_BOUNDS[mode](index, extent)
        x = _take(layer, x, axis, index, mode)
    if outside is None:
        return x
    value = torch.zeros((), dtype=x.dtype) if fill is None else fill.reshape(())
    return torch.where(outside, value, x)


def _vector(layer: Layer, tensor: Tensor | None, attribute: str) -> Sequence[int]:
    if tensor is not None:
        return ints(tensor)
    dims = layer.dims(attribute)
    if dims is None:
        raise layer.refuse(f"it has no {attribute}")
    return dims


def _take(layer: Layer, x: Tensor, axis: int, index: Tensor, mode: str) -> Tensor:
    if x.shape[axis] == 0 and index.numel():
        if mode != "FILL":
            raise layer.fault(f"mode {mode} has nothing to read along axis {axis} of size 0")
        sizes = [index.numel() if d == axis else size for d, size in enumerate(x.shape)]
        return torch.zeros(sizes, dtype=x.dtype)
    return _as_bits(lambda tensors: tensors[0].index_select(axis, index), [x])


def _or_along(mask: Tensor | None, row: Tensor, axis: int, rank: int) -> Tensor:
    row = row.reshape([-1 if d == axis else 1 for d in range(rank)])
    return row if mask is None else mask | row


def padding(layer: Layer, x: Tensor) -> Tensor:
    """x with zeros before and after its last two axes; negative paddings cut."""
    pre, post = layer.dims("pre_padding_nd"), layer.dims("post_padding_nd")
    if pre is None or post is None:
        raise layer.refuse("it has no paddings")
    amounts = [
        amount for pair in zip(reversed(pre), reversed(post), strict=True) for amount in pair
    ]
    return torch.nn.functional.pad(x, amounts)


# ---------------------------------------------------------------- gather, scatter


def _within(layer: Layer, index: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Indices made non-negative and legal, and where they were out of bounds."""
    index = index.long()
    index = torch.where(index < 0, index + extent, index)
    outside = (index < 0) | (index >= extent)
    return index.clamp(0, max(extent - 1, 0)), outside


def gather(layer: Layer, data: Tensor, indices: Tensor) -> Tensor:
    """Elements of ``data`` at ``indices``, as ONNX's Gather (mode DEFAULT), GatherElements
    (ELEMENT) and GatherND (ND). Negative indices count from the end; out of bounds reads 0.
    """
    mode = layer.option("mode")
    if mode not in _GATHER:
        raise layer.refuse(f"gather mode {mode} is not known here")
    bits = data.dtype.itemsize == 1 and data.dtype != torch.bool
    source = data.view(torch.uint8) if bits else data
    out, outside = _GATHER[mode](layer, source, indices)
    if bool(outside.any()):
        out = torch.where(outside, torch.zeros((), dtype=out.dtype), out)
    return out.view(data.dtype) if bits else out


def _gather_default(layer: Layer, data: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    axis, batch = layer.native.axis, layer.native.num_elementwise_dims
    index, outside = _within(layer, indices, data.shape[axis])
    tail = data.dim() - axis - 1
    if data.shape[axis] == 0:
        sizes = [*data.shape[:axis], *indices.shape[batch:], *data.shape[axis + 1 :]]
        return data.new_zeros(sizes), torch.ones(()).bool()
    mask = outside.reshape([*outside.shape, *[1] * tail])
    if batch == 0:
        picked = data.index_select(axis, index.flatten())
        sizes = [*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]]
        return picked.reshape(sizes), mask
    rows = [d.index_select(axis - 1, i.flatten()) for d, i in zip(data, index, strict=True)]
    picked = torch.stack(rows).reshape(
        [*data.shape[:axis], *index.shape[1:], *data.shape[axis + 1 :]]
    )
    middle = [1] * (axis - 1)
    mask = outside.reshape([outside.shape[0], *middle, *outside.shape[1:], *[1] * tail])
    return picked, mask


def _gather_element(layer: Layer, data: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    index, outside = _within(layer, indices, data.shape[layer.native.axis])
    return torch.gather(data, layer.native.axis, index), outside


def _gather_nd(layer: Layer, data: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    batch = layer.native.num_elementwise_dims
    depth = indices.shape[-1]
    flat, outside, out_shape = _flat_positions(layer, data, indices, batch, depth)
    lead = math.prod(data.shape[:batch])
    sizes = (math.prod(data.shape[batch : batch + depth]), math.prod(data.shape[batch + depth :]))
    rows = data.reshape(lead, *sizes)
    if not sizes[0]:  # nowhere to read from, so all is out of bounds
        rows = data.new_zeros((lead, 1, sizes[1]))
    offset = torch.arange(lead)[:, None]
    places = flat.reshape(lead, math.prod(flat.shape[batch:]))
    picked = rows[offset, places].reshape(out_shape)
    tail = data.dim() - batch - depth
    return picked, outside.reshape([*outside.shape, *[1] * tail])


def _flat_positions(
    layer: Layer, data: Tensor, indices: Tensor, batch: int, depth: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Positions among the ``depth`` axes of data after its ``batch`` ones, where they are out of
    bounds, and the shape of what they read.
    """
    position = torch.zeros(indices.shape[:-1], dtype=torch.long)
    outside = torch.zeros(indices.shape[:-1], dtype=torch.bool)
    for k in range(depth):
        extent = data.shape[batch + k]
        index, out = _within(layer, indices[..., k], extent)
        position = position * extent + index
        outside |= out
    return position, outside, [*indices.shape[:-1], *data.shape[batch + depth :]]


_GATHER: Mapping[str, Callable[[Layer, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "DEFAULT": _gather_default,
    "ELEMENT": _gather_element,
    "ND": _gather_nd,
}


def scatter(layer: Layer, data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy of ``data`` with ``updates`` at ``indices``, as ONNX's ScatterElements (ELEMENT, along
    ``axis``) and ScatterND (ND). What a place given twice holds is not defined; here, one of them.
    """
    mode = layer.option("mode")
    if mode == "ELEMENT":
        axis = layer.native.axis % data.dim()
        index, outside = _within(layer, indices, data.shape[axis])
        _refuse_outside(layer, outside)
        return data.scatter(axis, index, updates)
    if mode != "ND":
        raise layer.refuse(f"scatter mode {mode} is not known here")
    depth = indices.shape[-1]
    flat, outside, _ = _flat_positions(layer, data, indices, 0, depth)
    _refuse_outside(layer, outside)
    rows = data.reshape(math.prod(data.shape[:depth]), math.prod(data.shape[depth:])).clone()
    rows[flat.flatten()] = updates.reshape(flat.numel(), rows.shape[1])
    return rows.reshape(data.shape)


def _refuse_outside(layer: Layer, outside: Tensor) -> None:
    if bool(outside.any()):
        raise layer.fault("an index is out of bounds, where writing is not defined")


def one_hot(layer: Layer, indices: Tensor, values: Tensor, depth: Tensor) -> Tensor:
    """``values[1]`` at each index along a new axis of size ``depth``, ``values[0]`` elsewhere; an
    index out of bounds sets nothing. Negative indices count from the end, as in ONNX.
    """
    size = int(depth)
    axis = layer.native.axis % (indices.dim() + 1)
    places = torch.arange(size).reshape([-1] + [1] * (indices.dim() - axis))
    index = indices.long().unsqueeze(axis)
    hot = torch.where(index < 0, index + size, index) == places
    return torch.where(hot, values[1], values[0])


def non_zero(layer: Layer, x: Tensor) -> Tensor:
    """The indices of what is not zero, in row-major order: (rank, count)."""
    return torch.nonzero(x).T.contiguous().to(layer.output_dtype())


def reverse_sequence(layer: Layer, x: Tensor, lengths: Tensor) -> Tensor:
    """x with, for each slice i along ``batch_axis``, the first ``lengths[i]`` elements along
    ``sequence_axis`` in reverse order.
    """
    batch, sequence = layer.native.batch_axis, layer.native.sequence_axis
    place = torch.arange(x.shape[sequence])[None, :]
    length = lengths.long()[:, None]
    index = torch.where(place < length, length - 1 - place, place)
    if batch > sequence:
        index = index.T
    sizes = [x.shape[d] if d in (batch, sequence) else 1 for d in range(x.dim())]
    return torch.gather(x, sequence, index.reshape(sizes).expand(x.shape))
