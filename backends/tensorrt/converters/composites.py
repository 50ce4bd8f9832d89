"""Operators that TensorRT has no layer for, put together from several."""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from rewright.backends.tensorrt.converters.common import operand, wide
from rewright.backends.tensorrt.converters.convolutions import Window, convolve, deconvolve, spatial
from rewright.backends.tensorrt.converters.products import matmul
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS, INTEGERS, NUMBERS
from rewright.backends.tensorrt.enums import CumulativeOperation, SampleMode
from rewright.backends.tensorrt.enums import ElementWiseOperation as Binary
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import (
    Feature,
    Numbers,
    OneOf,
    Query,
    Rank,
    Static,
    That,
    Unused,
)
from rewright.backends.tensorrt.reducing import arange, iota, reduce
from rewright.backends.tensorrt.shaping import expand, reshape, slice_, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.sizes import simplify

# --------------------------------------------------------------------------- distances


def _norm(x: Tensor, p: float) -> Tensor:
    """The p-norm along the last dimension."""
    axis, size = (x.rank - 1,), x.unary(Unary.ABS)
    if p == 0:
        return reduce((~x.equal(0.0)).to(x.dtype), Reduce.SUM, axis)
    if p == 1:
        return reduce(size, Reduce.SUM, axis)
    if p == 2:
        return reduce(x * x, Reduce.SUM, axis).unary(Unary.SQRT)
    if math.isinf(p):
        return reduce(size, Reduce.MAX, axis)
    return reduce(size**p, Reduce.SUM, axis) ** (1 / p)


@converts("aten._cdist_forward", dtypes={"x1": FLOATS, "x2": FLOATS}, needs=[Numbers("p")])
@wide
def cdist(call: Call, x1: Tensor, x2: Tensor, p: float, compute_mode: Any) -> Tensor:
    """The p-norm of every row less every other"""
    return _norm(unsqueeze(x1, (x1.rank - 1,)) - unsqueeze(x2, (x2.rank - 2,)), float(p))


def _few_rows(query: Query) -> bool:
    rows = query.tensors("self")[0].shape[0]
    return isinstance(rows, int) and 1 < rows <= 1024


@converts("aten._pdist_forward", dtypes={"self": FLOATS},
          needs=[Numbers("p"), That("2 to 1024 rows", _few_rows)])  # fmt: skip
@wide
def pdist(call: Call, self: Tensor, p: float) -> Tensor:
    """The p-norm of every pair of rows"""
    pairs = torch.triu_indices(self.shape[0], self.shape[0], 1)
    first, second = (
        call.net.layer("add_gather", self, call.net.constant(row.clone()), 0) for row in pairs
    )
    return _norm(first - second, float(p))


@converts("aten.linalg_cross", dtypes={"self": NUMBERS, "other": NUMBERS})
def cross(call: Call, self: Tensor, other: Tensor, dim: int) -> Tensor:
    """a[1] b[2] - a[2] b[1], and so on around"""
    axis = dim % len(call.sizes)
    a, b = (expand(x.to(call.dtype), call.sizes) for x in (self, other))

    def turned(x: Tensor, by: int) -> Tensor:
        order = call.net.constant((torch.arange(3) + by) % 3)
        return call.net.layer("add_gather", x, order, axis)

    return turned(a, 1) * turned(b, 2) - turned(a, 2) * turned(b, 1)


# --------------------------------------------------------------------------- windows as channels

_FOLDS: Final = (Numbers("kernel_size"), Numbers("stride"), Numbers("padding"))


def _taps(channels: int, kernel: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A kernel for each channel and place of a window, with a one at that place."""
    count = math.prod(kernel)
    return torch.eye(count, dtype=dtype).reshape(count, 1, *kernel).repeat(channels, 1, 1, 1)


@converts("aten.im2col", dtypes={"self": FLOATS},
          needs=[*_FOLDS, Rank("self", 4), That("channels that do not vary",
                 lambda query: isinstance(query.tensors("self")[0].shape[1], int))])  # fmt: skip
def im2col(call: Call, self: Tensor, kernel_size: Any, dilation: Any, padding: Any,
           stride: Any) -> Tensor:  # fmt: skip
    """CONVOLUTION with kernels of a single one"""
    channels, kernel = call.shape("self")[1], spatial(kernel_size, 2)
    pad = spatial(padding, 2, 0)
    window = Window(spatial(stride, 2), pad, pad, spatial(dilation, 2), channels)
    taps = call.net.constant(_taps(channels, kernel, self.dtype))
    return reshape(convolve(call, self, taps, None, window), call.sizes)


def _single_step(query: Query) -> bool:
    steps = [spatial(query.arg(name), 2) for name in ("stride", "dilation")]
    return any(all(step == 1 for step in each) for each in steps)


@converts("aten.col2im", dtypes={"self": FLOATS},
          needs=[*_FOLDS, Rank("self", 3, 3), Static("self", 1), Numbers("output_size"),
                 That("no stride with dilation", _single_step)])  # fmt: skip
def col2im(call: Call, self: Tensor, output_size: Any, kernel_size: Any, dilation: Any,
           padding: Any, stride: Any) -> Tensor:  # fmt: skip
    """DECONVOLUTION with kernels of a single one"""
    kernel, step, pad = spatial(kernel_size, 2), spatial(stride, 2), spatial(padding, 2, 0)
    apart, size = spatial(dilation, 2), spatial(output_size, 2)
    blocks = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, pad, apart, kernel, step, strict=True)
    ]
    channels = call.sizes[1]
    x = reshape(self, (call.shape("self")[0], channels * math.prod(kernel), *blocks))
    taps = call.net.constant(_taps(channels, kernel, self.dtype))
    # the image with its padding, then without: what windows don't reach is filled with zeros
    whole = Window(step, (0, 0), (0, 0), apart, channels)
    made = deconvolve(call, x, taps, None, whole, (0, 0))
    return slice_(made, [0, 0, *pad], call.sizes, [1] * 4, SampleMode.FILL)


# --------------------------------------------------------------------------- bags

_BAG_MODES: Final = {0: "sum", 1: "mean", 2: "max"}


def _bags(call: Call, weight: Tensor, indices: Tensor, offsets: Tensor, mode: int,
          per_sample_weights: Tensor | None) -> Tensor:  # fmt: skip
    """Rows of a table combined by the bags that offsets begin."""
    rows = call.net.layer("add_gather", weight, indices, 0).wide()
    if per_sample_weights is not None:
        rows = rows * unsqueeze(per_sample_weights.wide(), (1,))
    count = call.shape("indices")[0]
    place = unsqueeze(arange(weight, count), (0,))
    begin = unsqueeze(offsets.to(torch.int64), (1,))
    bags = call.sizes[0]
    began = (begin <= place).to(torch.int64)
    bag_of = reduce(began, Reduce.SUM, (0,), True) - 1
    member = iota(begin, 0, bags).equal(bag_of)
    filled = reduce(member.to(rows.dtype), Reduce.SUM, (1,), True)
    if _BAG_MODES[mode] == "max":
        spread = unsqueeze(member, (2,)).where(unsqueeze(rows, (0,)), -math.inf)
        return (filled > 0.0).where(reduce(spread, Reduce.MAX, (1,)), 0.0).to(call.dtype)
    total = matmul(member.to(rows.dtype), rows)
    if _BAG_MODES[mode] == "mean":
        total = total / filled.clamp(1.0)
    return total.to(call.dtype)


def _plain_bags(query: Query) -> bool:
    return query.arg("padding_idx") in (None, -1)


@converts(
    "aten._embedding_bag", "aten.embedding_bag", "aten.embedding_bag.padding_idx",
    "aten._embedding_bag_forward_only",
    dtypes={"weight": FLOATS, "indices": INTEGERS, "offsets": INTEGERS,
            "per_sample_weights": FLOATS, "out": FLOATS | INTEGERS},
    needs=[OneOf("mode", (0, 1, 2)), OneOf("include_last_offset", (False,)),
           Rank("indices", 1, 1), That("no padding_idx", _plain_bags),
           Unused((1, 2, 3), "what only a gradient needs")],
)  # fmt: skip
def embedding_bag(call: Call, weight: Tensor, indices: Tensor, offsets: Tensor, mode: int,
                  scale_grad_by_freq: Any = None, sparse: Any = None,
                  per_sample_weights: Any = None, include_last_offset: Any = None,
                  padding_idx: Any = None) -> tuple[Tensor, None, None, None]:  # fmt: skip
    """GATHER of rows, MATRIX_MULTIPLY by membership of bags (REDUCE for the maximum)"""
    made = _bags(call, weight, indices, offsets, mode, per_sample_weights)
    return made, None, None, None


# --------------------------------------------------------------------------- scattered sums

_MOST: Final = 1024
_REDUCES: Final[dict[str, tuple[Reduce, float, Binary]]] = {
    "sum": (Reduce.SUM, 0, Binary.SUM),
    "prod": (Reduce.PROD, 1, Binary.PROD),
    "amax": (Reduce.MAX, -math.inf, Binary.MAX),
    "amin": (Reduce.MIN, math.inf, Binary.MIN),
}
"""How each reduction combines, what leaves it as it is, and how it takes in what was there."""


def _fits(query: Query) -> bool:
    x, index = query.tensors("self")[0], query.tensors("index")[0]
    if not x.rank:
        return False
    axis = query.arg("dim") % x.rank
    rest = [d for d in range(x.rank) if d != axis]
    same = all(x.shape[d] == index.shape[d] for d in rest)
    source = query.tensors("src")
    same = same and (not source or source[0].shape == index.shape)
    return same and isinstance(x.shape[axis], int) and x.shape[axis] <= _MOST


_FITS: Final = That(f"an index as wide as the data, and a fixed size of at most {_MOST}", _fits)


def _spread(call: Call, self: Tensor, dim: int, index: Tensor, src: Tensor, reduction: str,
            include_self: bool) -> Tensor:  # fmt: skip
    """Every element compared with every place along `dim`: TensorRT's scatter adds nothing up."""
    operation, neutral, combine = _REDUCES[reduction]
    axis = dim % self.rank
    size = call.shape("self")[axis]
    deep = unsqueeze(index, (axis,))
    here = deep.equal(iota(deep, axis, size))
    values = unsqueeze(src.to(self.dtype), (axis,))
    if not values.is_floating_point and math.isinf(neutral):
        limits = torch.iinfo(values.dtype)
        neutral = limits.max if neutral > 0 else limits.min
    found = reduce(here.where(values, neutral), operation, (axis + 1,))
    if include_self:
        return self.binary(combine, found)
    hit = reduce(here.to(torch.int32), Reduce.MAX, (axis + 1,)).to(torch.bool)
    return hit.where(found, self)


@converts("aten.scatter_add", dtypes={"index": INTEGERS, "self": NUMBERS, "src": NUMBERS},
          needs=[_FITS])  # fmt: skip
def scatter_add(call: Call, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """EQUAL of places, SELECT, REDUCE"""
    return _spread(call, self, dim, index, src, "sum", True)


@converts("aten.scatter_reduce.two", dtypes={"index": INTEGERS, "self": NUMBERS, "src": NUMBERS},
          needs=[_FITS, OneOf("reduce", tuple(_REDUCES))])  # fmt: skip
def scatter_reduce(call: Call, self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str,
                   include_self: bool) -> Tensor:  # fmt: skip
    """EQUAL of places, SELECT, REDUCE"""
    return _spread(call, self, dim, index, src, reduce, include_self)


@converts("aten.masked_scatter", needs=[Feature("INetworkDefinition.add_cumulative")])
def masked_scatter(call: Call, self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """GATHER of the source at how often the mask was true before, SELECT"""
    count = call.result.numel
    wide_mask = reshape(expand(mask, call.sizes), (count,))
    axis = call.net.constant(torch.tensor(0, dtype=torch.int32))
    before = call.net.layer("add_cumulative", wide_mask.to(torch.int64), axis,
                            CumulativeOperation.SUM, True, False)  # fmt: skip
    given = simplify(call.type("source").numel)
    places = before.binary(Binary.MIN, simplify(given - 1))
    taken = call.net.layer("add_gather", reshape(source, (given,)), places, 0)
    x = reshape(expand(self, call.sizes), (count,))
    return reshape(wide_mask.where(taken, x), call.sizes)


# --------------------------------------------------------------------------- prims

_DIV: Final = {"self": NUMBERS, "other": NUMBERS}


@converts("prims.div", dtypes=_DIV)
def prims_div(call: Call, self: Any, other: Any) -> Tensor:
    """DIV, which truncates integers"""
    return operand(call, self, call.dtype) / operand(call, other, call.dtype)


@converts("prims.sum")
def prims_sum(call: Call, inp: Tensor, dims: Any, output_dtype: Any = None) -> Tensor:
    """SUM"""
    computed = torch.int32 if call.dtype is torch.bool else call.dtype
    axes = range(inp.rank) if dims is None else dims
    return reduce(inp.to(computed), Reduce.SUM, axes).to(call.dtype)


@converts("prims.broadcast_in_dim")
def broadcast_in_dim(call: Call, a: Tensor, shape: Any, broadcast_dimensions: Any) -> Tensor:
    """SLICE with a stride of 0"""
    new = [dim for dim in range(len(call.sizes)) if dim not in broadcast_dimensions]
    return expand(unsqueeze(a, new), call.sizes)
