"""Reading and writing at places that tensors give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.backends.tensorrt.converters.common import operand
from rewright.backends.tensorrt.converters.selection import places_of
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import BOOL, COMPUTED, INTEGERS
from rewright.backends.tensorrt.enums import GatherMode, ScatterMode
from rewright.backends.tensorrt.needs import OneOf, Query, That
from rewright.backends.tensorrt.reducing import arange
from rewright.backends.tensorrt.shaping import (
    cat,
    expand,
    permute,
    reshape,
    slice_,
    unsqueeze,
)
from rewright.backends.tensorrt.tensor import Tensor

_INDEX: Final = {"index": INTEGERS, "indices": INTEGERS}


def counted_from_front(index: Tensor, size: Any) -> Tensor:
    """Indices of which negative ones count from the end of a dimension of `size`."""
    if index.value is not None:
        if not bool((index.value < 0).any()):
            return index
        if isinstance(size, int):
            return index.net.constant(torch.where(index.value < 0, index.value + size, index.value))
    return (index < 0).where(index + operand_size(index, size), index)


def operand_size(index: Tensor, size: Any) -> Tensor:
    """A size as a tensor that can be added to indices."""
    return index.like(size)


@converts("aten.embedding", dtypes={"indices": INTEGERS})
def embedding(call: Call, weight: Tensor, indices: Tensor, padding_idx: Any,
              scale_grad_by_freq: Any, sparse: Any) -> Tensor:  # fmt: skip
    """GATHER of rows"""
    return call.net.layer("add_gather", weight, indices, 0)


@converts("aten.index_select", dtypes=_INDEX)
def index_select(call: Call, self: Tensor, dim: int, index: Tensor) -> Tensor:
    """GATHER along a dimension"""
    if not self.rank:
        return reshape(self, ())
    places = reshape(index, (1,)) if not index.rank else index
    return call.net.layer("add_gather", self, places, dim % self.rank)


@converts("aten.gather", dtypes=_INDEX)
def gather(call: Call, self: Tensor, dim: int, index: Tensor, sparse_grad: Any) -> Tensor:
    """GATHER of elements"""
    if not self.rank:
        return expand(self, call.sizes)
    x, places = self, index
    if not index.rank:
        places = unsqueeze(index, (0,))
    axis = dim % x.rank
    had, wanted = call.shape("self"), call.shape("index") or (1,)
    cut = [have if d == axis or have == want else want
           for d, (have, want) in enumerate(zip(had, wanted, strict=True))]  # fmt: skip
    if tuple(cut) != tuple(had):  # torch reads only as far as the index goes
        x = slice_(x, [0] * x.rank, cut, [1] * x.rank)
    made = _gather_elements(x, places, axis)
    return made if index.rank else reshape(made, ())


def _gather_elements(x: Tensor, places: Tensor, axis: int) -> Tensor:
    return x.net.layer("add_gather_v2", x, places, GatherMode.ELEMENT, axis=axis)


@converts("aten.take_along_dim", dtypes={"indices": INTEGERS},
          needs=[That("a dimension", lambda query: query.arg("dim") is not None)])  # fmt: skip
def take_along_dim(call: Call, self: Tensor, indices: Tensor, dim: int) -> Tensor:
    """GATHER of elements"""
    axis = dim % self.rank
    data = [call.shape("self")[d] if d == axis else size for d, size in enumerate(call.sizes)]
    return _gather_elements(expand(self, data), expand(indices, call.sizes), axis)


# --------------------------------------------------------------------------- x[i, j, ...]


def _whole_numbers(query: Query) -> bool:
    return all(found.dtype in INTEGERS for found in query.tensors("indices"))


def _readable(query: Query) -> bool:
    return _whole_numbers(query) or [x.dtype for x in query.tensors("indices")] == [torch.bool]


_PLACES: Final = That(
    "indices that are integers (a mask gives a size that depends on values)", _whole_numbers
)
_READABLE: Final = That("indices that are integers, or a single mask", _readable)


def _indexed(indices: Sequence[Tensor | None]) -> tuple[int, ...]:
    return tuple(dim for dim, index in enumerate(indices) if index is not None)


def _together(dims: Sequence[int]) -> bool:
    return tuple(dims) == tuple(range(dims[0], dims[0] + len(dims)))


def _places(call: Call, indices: Sequence[Tensor | None], shape: Sequence[Any]) -> Tensor:
    """The indices as one tensor of coordinates: their broadcast shape, then one number for each."""
    dims = _indexed(indices)
    parts = []
    for dim in dims:
        index = indices[dim]
        assert index is not None
        parts.append(counted_from_front(index.to(torch.int64), shape[dim]))
    broadcast = _broadcast_shape(call)
    expanded = [unsqueeze(expand(part, broadcast), (len(broadcast),)) for part in parts]
    return cat(expanded, len(broadcast))


def _broadcast_shape(call: Call) -> tuple[Any, ...]:
    """The shape that the index tensors broadcast to."""
    given = [item.type.shape for item in call.node.arg("indices") if item is not None]
    rank = max(map(len, given))
    result: list[Any] = [1] * rank
    for shape in given:
        for offset, size in enumerate(reversed(shape), 1):
            if size != 1:
                result[-offset] = size
    return tuple(result)


@converts("aten.index.Tensor", "aten._unsafe_index.Tensor", dtypes={"indices": COMPUTED},
          needs=[_READABLE])  # fmt: skip
def index(call: Call, self: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """GATHER along a dimension, or of several at once; of a mask, NON_ZERO first"""
    shape, dims = call.shape("self"), _indexed(indices)
    if not dims:
        return self
    first = indices[dims[0]]
    if first is not None and first.dtype in BOOL:
        return _masked(self, dims[0], first)
    if len(dims) == 1:
        (dim,) = dims
        only = indices[dim]
        assert only is not None
        places = counted_from_front(only, shape[dim])
        return call.net.layer("add_gather", self, places, dim)
    rest = [dim for dim in range(self.rank) if dim not in dims]
    front = permute(self, [*dims, *rest])
    made = call.net.layer("add_gather_v2", front, _places(call, indices, shape), GatherMode.ND)
    return _placed(made, dims, len(_broadcast_shape(call)))


def _masked(x: Tensor, dim: int, mask: Tensor) -> Tensor:
    """``x[:, mask]``, the mask over the dimensions from `dim` on."""
    dims = [*range(dim, dim + mask.rank)]
    rest = [d for d in range(x.rank) if d not in dims]
    front = permute(x, [*dims, *rest])
    return _placed(x.net.layer("add_gather_v2", front, places_of(mask), GatherMode.ND), dims, 1)


def _placed(made: Tensor, dims: Sequence[int], rank: int) -> Tensor:
    """The broadcast dimensions where torch puts them: in the place of indexed ones in a row."""
    if not _together(dims) or dims[0] == 0:
        return made
    rest = list(range(rank, made.rank))
    return permute(made, [*rest[: dims[0]], *range(rank), *rest[dims[0] :]])


@converts("aten.index_put", "aten._unsafe_index_put", dtypes={"indices": COMPUTED},
          needs=[_PLACES, OneOf("accumulate", (False,))])  # fmt: skip
def index_put(call: Call, self: Tensor, indices: Sequence[Tensor | None], values: Tensor,
              accumulate: bool) -> Tensor:  # fmt: skip
    """SCATTER at coordinates"""
    shape, dims = call.shape("self"), _indexed(indices)
    rest = [dim for dim in range(self.rank) if dim not in dims]
    order = [*dims, *rest]
    broadcast = _broadcast_shape(call)
    together = _together(dims)
    tail = [shape[dim] for dim in rest]
    lead = dims[0] if together else 0
    value_shape = [*tail[:lead], *broadcast, *tail[lead:]] if together else [*broadcast, *tail]
    update = expand(values.to(self.dtype), value_shape)
    if together and lead:
        middle = range(lead, lead + len(broadcast))
        others = [d for d in range(update.rank) if d not in middle]
        update = permute(update, [*middle, *others])
    made = call.net.layer(
        "add_scatter", permute(self, order), _places(call, indices, shape), update, ScatterMode.ND
    )
    inverse = [order.index(dim) for dim in range(self.rank)]
    return permute(made, inverse)


# --------------------------------------------------------------------------- writes


@converts("aten.scatter.src", dtypes=_INDEX)
def scatter(call: Call, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """SCATTER of elements"""
    sizes = call.shape("index")
    if src.rank and tuple(call.shape("src")) != tuple(sizes):
        src = slice_(src, [0] * src.rank, sizes, [1] * src.rank)
    return _scatter_elements(self, index, src, dim)


@converts("aten.scatter.value", dtypes=_INDEX)
def scatter_value(call: Call, self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """SCATTER of elements"""
    one = call.net.scalar(value, torch.int32 if self.dtype in BOOL else self.dtype)
    update = expand(one, call.shape("index")).to(self.dtype)
    return _scatter_elements(self, index, update, dim)


def _scatter_elements(x: Tensor, index: Tensor, update: Tensor, dim: int) -> Tensor:
    if not x.rank:
        return reshape(update, ())
    index = index if index.rank else unsqueeze(index, (0,))
    update = update if update.rank else unsqueeze(update, (0,))
    return x.net.layer(
        "add_scatter", x, index, update.to(x.dtype), ScatterMode.ELEMENT, axis=dim % x.rank
    )


@converts("aten.index_copy", dtypes=_INDEX)
def index_copy(call: Call, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """SCATTER of elements, the same places in every row"""
    if not self.rank:
        return reshape(source, ())
    axis = dim % self.rank
    column = index if index.rank else unsqueeze(index, (0,))
    column = unsqueeze(column, [d for d in range(self.rank) if d != axis])
    places = expand(column, call.shape("source") or (1,))
    return _scatter_elements(self, places, source, axis)


@converts("aten.slice_scatter")
def slice_scatter(call: Call, self: Tensor, src: Tensor, dim: int, start: Any, end: Any,
                  step: int) -> Tensor:  # fmt: skip
    """SCATTER of elements"""
    from rewright.backends.tensorrt.converters.shapes import _start

    shape, axis = call.shape("self"), dim % self.rank
    size = call.shape("src")[axis]
    if size == shape[axis] and step == 1:
        return src.to(self.dtype)
    first = _start(call, start, shape[axis])
    row = arange(self, size) * step + operand(call, first, torch.int64)
    column = unsqueeze(row, [d for d in range(self.rank) if d != axis])
    places = expand(column, call.shape("src"))
    return _scatter_elements(self, places, src, axis)


@converts("aten.select_scatter")
def select_scatter(call: Call, self: Tensor, src: Tensor, dim: int, index: Any) -> Tensor:
    """SCATTER of elements"""
    from rewright.backends.tensorrt.converters.shapes import _start

    shape, axis = call.shape("self"), dim % self.rank
    sizes = [1 if d == axis else size for d, size in enumerate(shape)]
    place = operand(call, _start(call, index, shape[axis]), torch.int64)
    return _scatter_elements(self, expand(place, sizes), unsqueeze(src, (axis,)), axis)


@converts("aten.one_hot", needs=[That("a fixed number of classes",
          lambda query: isinstance(query.arg("num_classes"), int)
          and query.arg("num_classes") > 0)])  # fmt: skip
def one_hot(call: Call, self: Tensor, num_classes: int) -> Tensor:
    """EQUAL to each class"""
    classes = call.net.constant(torch.arange(num_classes))
    return unsqueeze(self, (self.rank,)).equal(classes).to(torch.int64)
