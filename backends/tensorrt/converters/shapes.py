"""Movement: reshaping, slicing, joining, padding, repeating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sympy
import torch
from torch.utils._sympy import functions as sizes_of

from rewright.backends.tensorrt.converters.common import ANY
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import COMPUTED, QUANTIZED
from rewright.backends.tensorrt.enums import SampleMode
from rewright.backends.tensorrt.needs import Numbers, OneOf, Query, Rank, That
from rewright.backends.tensorrt.shaping import (
    cat,
    expand,
    narrow,
    permute,
    reshape,
    slice_,
    squeeze,
    transpose,
    unsqueeze,
)
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.sizes import simplify

# --------------------------------------------------------------------------- the same elements


@converts(
    *("aten.reshape", "aten.view", "aten._unsafe_view", "aten.flatten.using_ints"),
    *("aten.unflatten.int", "aten.view_as", "aten._reshape_copy"),
    dtypes=ANY,
)
def reshape_(call: Call, self: Tensor, shape: Any = None, size: Any = None, start_dim: Any = None,
             end_dim: Any = None, dim: Any = None, sizes: Any = None,
             other: Any = None) -> Tensor:  # fmt: skip
    """SHUFFLE to the shape of the result"""
    return reshape(self, call.sizes)


@converts("aten.permute", dtypes=ANY)
def permute_(call: Call, self: Tensor, dims: Sequence[int]) -> Tensor:
    """SHUFFLE"""
    return permute(self, dims)


@converts("aten.transpose.int", dtypes=ANY)
def transpose_(call: Call, self: Tensor, dim0: int, dim1: int) -> Tensor:
    """SHUFFLE"""
    return transpose(self, dim0, dim1) if self.rank else self


@converts("aten.t", dtypes=ANY)
def t(call: Call, self: Tensor) -> Tensor:
    """SHUFFLE"""
    return transpose(self, 0, 1) if self.rank > 1 else self


@converts("aten.numpy_T", dtypes=ANY)
def numpy_t(call: Call, self: Tensor) -> Tensor:
    """SHUFFLE that reverses the dimensions"""
    return permute(self, range(self.rank)[::-1])


@converts("aten.unsqueeze", dtypes=ANY)
def unsqueeze_(call: Call, self: Tensor, dim: int) -> Tensor:
    """SHUFFLE, UNSQUEEZE"""
    return unsqueeze(self, (dim % (self.rank + 1),))


@converts("aten.squeeze", "aten.squeeze.dim", "aten.squeeze.dims", dtypes=ANY)
def squeeze_(call: Call, self: Tensor, dim: Any = None) -> Tensor:
    """SHUFFLE, SQUEEZE"""
    shape = call.shape("self")
    given = range(self.rank) if dim is None else (dim if isinstance(dim, list) else [dim])
    axes = {axis % max(self.rank, 1) for axis in given}
    return squeeze(self, [axis for axis in axes if self.rank and shape[axis] == 1])


@converts("aten.pixel_shuffle")
def pixel_shuffle(call: Call, self: Tensor, upscale_factor: int) -> Tensor:
    """Channels to blocks of pixels"""
    *batch, _, high, across = call.shape("self")
    channels, r, n = call.sizes[-3], upscale_factor, len(batch)
    blocks = reshape(self, (*batch, channels, r, r, high, across))
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshape(permute(blocks, order), call.sizes)


@converts("aten.pixel_unshuffle")
def pixel_unshuffle(call: Call, self: Tensor, downscale_factor: int) -> Tensor:
    """Blocks of pixels to channels"""
    *batch, channels, _, _ = call.shape("self")
    high, across = call.sizes[-2:]
    r, n = downscale_factor, len(batch)
    blocks = reshape(self, (*batch, channels, high, r, across, r))
    return reshape(permute(blocks, [*range(n), n, n + 2, n + 4, n + 1, n + 3]), call.sizes)


@converts("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(call: Call, self: Tensor, groups: int) -> Tensor:
    """Channels of several groups in turn"""
    batch, channels, *rest = call.shape("self")
    split = reshape(self, (batch, groups, channels // groups, *rest))
    return reshape(transpose(split, 1, 2), call.sizes)


# --------------------------------------------------------------------------- repeated elements


@converts("aten.expand", "aten.expand_as", "aten.broadcast_to", dtypes=ANY)
def expand_(call: Call, self: Tensor, size: Any = None, other: Any = None) -> Tensor:
    """SLICE with a stride of 0"""
    return expand(self, call.sizes)


@converts("aten.repeat", "aten.tile")
def repeat(call: Call, self: Tensor, repeats: Any = None, dims: Any = None) -> Tensor:
    """SLICE that wraps around"""
    x = unsqueeze(self, range(len(call.sizes) - self.rank))
    if not x.rank:
        return x
    return slice_(x, [0] * x.rank, call.sizes, [1] * x.rank, SampleMode.WRAP)


@converts("aten.repeat_interleave.self_int", needs=[Numbers("repeats")])
def repeat_interleave(call: Call, self: Tensor, repeats: int, dim: Any = None,
                      output_size: Any = None) -> Tensor:  # fmt: skip
    """SLICE with a stride of 0, then SHUFFLE"""
    shape = list(call.shape("self"))
    if dim is None:
        self, shape, dim = reshape(self, (call.type("self").numel,)), [call.type("self").numel], 0
    axis = dim % self.rank
    deeper = [*shape[: axis + 1], repeats, *shape[axis + 1 :]]
    return reshape(expand(unsqueeze(self, (axis + 1,)), deeper), call.sizes)


# --------------------------------------------------------------------------- parts


def _start(call: Call, start: Any, size: Any) -> Any:
    """The first element of a slice, counted from the front and within the dimension."""
    start = 0 if start is None else start
    if isinstance(start, int) and isinstance(size, int):
        return range(size + 1)[slice(start, None)].start if start >= 0 else max(size + start, 0)
    if call.is_sure(sympy.sympify(start) < 0):
        start = start + size
        return start if call.is_sure(start >= 0) else simplify(sizes_of.Max(0, start))
    if not call.is_sure(sympy.sympify(start) >= 0):
        start = sizes_of.Where(sympy.sympify(start) < 0, start + size, start)
    if call.is_sure(sympy.sympify(start) <= size):
        return start
    return simplify(sizes_of.Max(0, sizes_of.Min(start, size)))


@converts("aten.slice.Tensor", dtypes=ANY, needs=[Numbers("step")])
def slice_tensor(call: Call, self: Tensor, dim: int, start: Any, end: Any, step: int) -> Tensor:
    """SLICE"""
    shape = call.shape("self")
    axis = dim % self.rank
    if call.sizes[axis] == shape[axis] and step == 1:
        return self
    first = _start(call, start, shape[axis])
    return narrow(self, axis, first, call.sizes[axis], shape, step)


@converts("aten.narrow", dtypes=ANY)
def narrow_(call: Call, self: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """SLICE"""
    shape, axis = call.shape("self"), dim % self.rank
    return narrow(self, axis, _start(call, start, shape[axis]), call.sizes[axis], shape)


@converts("aten.select.int", dtypes=ANY)
def select(call: Call, self: Tensor, dim: int, index: Any) -> Tensor:
    """SLICE of one, then SHUFFLE; GATHER for an index that only a run tells"""
    shape, axis = call.shape("self"), dim % self.rank
    if isinstance(index, Tensor):
        return call.net.layer("add_gather", self, reshape(index, ()), axis)
    one = narrow(self, axis, _start(call, index, shape[axis]), 1, shape)
    return squeeze(one, (axis,))


@converts("aten.split.Tensor", "aten.split_with_sizes", "aten.chunk", "aten.split.sizes",
          "aten.unsafe_split.Tensor", "aten.tensor_split.sections", dtypes=ANY)  # fmt: skip
def split(call: Call, self: Tensor, split_size: Any = None, split_sizes: Any = None,
          chunks: Any = None, sections: Any = None,
          dim: int = 0) -> list[Tensor | None]:  # fmt: skip
    """SLICE for each part"""
    shape, axis = call.shape("self"), dim % self.rank
    parts: list[Tensor | None] = []
    start: Any = 0
    for result, sizes in zip(call.node.results, call.all_sizes, strict=True):
        size = sizes[axis]
        parts.append(narrow(self, axis, start, size, shape) if result.has_uses else None)
        start = simplify(start + size)
    return parts


@converts("aten.unbind.int", dtypes=ANY)
def unbind(call: Call, self: Tensor, dim: int) -> list[Tensor | None]:
    """SLICE and SHUFFLE for each part"""
    shape, axis = call.shape("self"), dim % self.rank
    return [
        squeeze(narrow(self, axis, index, 1, shape), (axis,)) if result.has_uses else None
        for index, result in enumerate(call.node.results)
    ]


@converts("aten.diagonal")
def diagonal(call: Call, self: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """GATHER along the second dimension, of one element in each row"""
    a, b = dim1 % self.rank, dim2 % self.rank
    order = [dim for dim in range(self.rank) if dim not in (a, b)]
    x = permute(self, [*order, a, b])
    *batch, rows, columns = (call.shape("self")[dim] for dim in (*order, a, b))
    length = call.sizes[-1]
    flat = reshape(x, (*batch, simplify(rows * columns)))
    first = offset if offset >= 0 else simplify(-offset * columns)
    starts = [0] * len(batch) + [first]
    return slice_(flat, starts, (*batch, length), [1] * len(batch) + [simplify(columns + 1)])


# --------------------------------------------------------------------------- joined


@converts("aten.cat", dtypes={"tensors": COMPUTED | QUANTIZED, "out": COMPUTED | QUANTIZED})
def cat_(call: Call, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """CONCATENATION"""
    rank = len(call.sizes)
    real = [x.to(call.dtype) for x in tensors if x.rank == rank]  # torch lets empty 1-D ones pass
    return cat(real, dim % rank)


@converts("aten.stack")
def stack(call: Call, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """UNSQUEEZE each, then CONCATENATION"""
    axis = dim % len(call.sizes)
    return cat([unsqueeze(x.to(call.dtype), (axis,)) for x in tensors], axis)


# --------------------------------------------------------------------------- turned


@converts("aten.flip")
def flip(call: Call, self: Tensor, dims: Sequence[int]) -> Tensor:
    """SLICE with a stride of -1"""
    turned = {dim % max(self.rank, 1) for dim in dims}
    if not turned or not self.rank:
        return self
    shape = call.shape("self")
    starts = [simplify(shape[d] - 1) if d in turned else 0 for d in range(self.rank)]
    return slice_(self, starts, shape, [-1 if d in turned else 1 for d in range(self.rank)])


@converts("aten.roll")
def roll(call: Call, self: Tensor, shifts: Sequence[Any], dims: Sequence[int]) -> Tensor:
    """The end before the beginning: two SLICEs and a CONCATENATION for each dimension"""
    if not self.rank:
        return self
    shape: Sequence[Any] = call.shape("self")
    x = self
    if not dims:
        shape, dims = (call.type("self").numel,), [0]
        x = reshape(self, shape)
    for shift, dim in zip(shifts, dims, strict=True):
        size = shape[dim]
        if isinstance(size, int) and (not size or not shift % size):
            continue
        moved = simplify(sizes_of.PythonMod(shift, size)) if not isinstance(size, int) else (
            shift % size
        )  # fmt: skip
        rest, axis = simplify(size - moved), dim % x.rank
        x = cat([narrow(x, axis, rest, moved, shape), narrow(x, axis, 0, rest, shape)], axis)
    return reshape(x, call.sizes)


# --------------------------------------------------------------------------- padded

PADDING: Final = {
    "constant": SampleMode.FILL,
    "reflect": SampleMode.REFLECT,
    "replicate": SampleMode.CLAMP,
    "circular": SampleMode.WRAP,
}
"""What is read outside of a tensor, for each mode of padding."""


def _pad(call: Call, x: Tensor, pad: Sequence[Any], mode: str, value: Any = None) -> Tensor:
    """A slice that starts before the first element and ends after the last."""
    starts: list[Any] = [0] * x.rank
    for index in range(len(pad) // 2):
        starts[-1 - index] = -pad[2 * index]
    dtype, fill = x.dtype, None
    if dtype is torch.bool:  # a fill value that is a bool is read as a byte
        x = x.to(torch.int32)
    if mode == "constant" and value:
        fill = call.net.scalar(value, x.dtype)
    padded = slice_(x, starts, call.sizes, [1] * x.rank, PADDING[mode], fill)
    return padded.to(dtype)


@converts("aten.constant_pad_nd")
def constant_pad(call: Call, self: Tensor, pad: Sequence[Any], value: Any) -> Tensor:
    """SLICE that fills outside"""
    return _pad(call, self, pad, "constant", value)


@converts("aten.pad", needs=[OneOf("mode", tuple(PADDING))])
def pad_(call: Call, self: Tensor, pad: Sequence[Any], mode: str, value: Any) -> Tensor:
    """SLICE that fills, repeats, mirrors or wraps outside"""
    return _pad(call, self, pad, mode, value)


def _declare_paddings() -> None:
    for kind, mode in {"reflection": "reflect", "replication": "replicate"}.items():
        for rank in (1, 2, 3):
            converts(f"aten.{kind}_pad{rank}d", formula=f"SLICE, {PADDING[mode].name}")(
                lambda call, self, padding, mode=mode: _pad(call, self, padding, mode)
            )
    converts("aten._pad_circular", formula="SLICE, WRAP")(
        lambda call, self, pad: _pad(call, self, pad, "circular")
    )


_declare_paddings()


# --------------------------------------------------------------------------- triangles, windows


def _grid(call: Call, self: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of rows and of columns of a matrix, as a column and as a row."""
    from rewright.backends.tensorrt.reducing import iota

    shape = call.shape("self")
    return iota(self, self.rank - 2, shape[-2]), iota(self, self.rank - 1, shape[-1])


@converts("aten.tril")
def tril(call: Call, self: Tensor, diagonal: Any) -> Tensor:
    """SELECT by row and column"""
    rows, columns = _grid(call, self)
    return (columns - rows <= diagonal).where(self, self.like(0))


@converts("aten.triu")
def triu(call: Call, self: Tensor, diagonal: Any) -> Tensor:
    """SELECT by row and column"""
    rows, columns = _grid(call, self)
    return (columns - rows >= diagonal).where(self, self.like(0))


def _is_fixed(query: Query) -> bool:
    return isinstance(query.tensors("self")[0].shape[query.arg("dimension")], int)


@converts("aten.unfold", needs=[Numbers("size"), Numbers("step"),
          Rank("self", 1), That("a dimension that does not vary", _is_fixed)])  # fmt: skip
def unfold(call: Call, self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """GATHER of all windows at once"""
    axis = dimension % self.rank
    count = call.sizes[axis]
    places = torch.arange(count).unsqueeze(1) * step + torch.arange(size)
    windows = call.net.layer("add_gather", self, call.net.constant(places), axis)
    order = [dim for dim in range(windows.rank) if dim != axis + 1]
    return permute(windows, [*order, axis + 1])
