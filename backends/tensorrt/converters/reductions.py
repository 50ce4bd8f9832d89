"""Reductions, softmax, cumulative sums, places of extremes, and orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import sympy
import torch

from rewright.backends.tensorrt.converters.common import FLOAT_OUT, dims_of, wide
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS, NUMBERS
from rewright.backends.tensorrt.enums import CumulativeOperation, TopKOperation
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import Feature, Numbers, Query, That
from rewright.backends.tensorrt.reducing import iota, mask_of, mean, reduce, softmax
from rewright.backends.tensorrt.shaping import cat, narrow, reshape, squeeze, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.sizes import simplify

# --------------------------------------------------------------------------- reductions

REDUCTIONS: Final[dict[str, tuple[Reduce, tuple[str, ...]]]] = {
    "sum": (Reduce.SUM, ("", ".dim_IntList")),
    "prod": (Reduce.PROD, ("", ".dim_int")),
    "amax": (Reduce.MAX, ("",)),
    "amin": (Reduce.MIN, ("",)),
    "max": (Reduce.MAX, ("",)),
    "min": (Reduce.MIN, ("",)),
    "mean": (Reduce.AVG, ("", ".dim")),
}
"""One layer, in the dtype of the result."""


def _reducing(operation: Reduce) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False,
                dtype: Any = None) -> Tensor:  # fmt: skip
        computed = torch.int32 if call.dtype is torch.bool else call.dtype
        found = reduce(self.to(computed), operation, dims_of(dim, self.rank), keepdim)
        return found.to(call.dtype)

    return compute


for _name, (_operation, _overloads) in REDUCTIONS.items():
    converts(*(f"aten.{_name}{overload}" for overload in _overloads), formula=_operation.name)(
        _reducing(_operation)
    )


def _truth(operation: Reduce) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        numbers = self.to(torch.bool).to(torch.int32)
        # not a cast: of no elements, the maximum is the least number, and the minimum the largest
        return reduce(numbers, operation, dims_of(dim, self.rank), keepdim) > 0

    return compute


for _name, _operation in {"any": Reduce.MAX, "all": Reduce.MIN}.items():
    converts(*(f"aten.{_name}{kind}" for kind in ("", ".dim", ".dims")), formula=_operation.name)(
        _truth(_operation)
    )


@converts("aten.var.correction", "aten.var.dim", "aten.var", dtypes={"self": FLOATS})
@wide
def var(call: Call, self: Tensor, dim: Any = None, correction: Any = None, unbiased: bool = True,
        keepdim: bool = False) -> Tensor:  # fmt: skip
    """sum((x - mean)²) / (n - correction)"""
    return _variance(call, self, dim, correction, unbiased, keepdim)


@converts("aten.std.correction", "aten.std.dim", "aten.std", dtypes={"self": FLOATS})
@wide
def std(call: Call, self: Tensor, dim: Any = None, correction: Any = None, unbiased: bool = True,
        keepdim: bool = False) -> Tensor:  # fmt: skip
    """The root of the variance"""
    return _variance(call, self, dim, correction, unbiased, keepdim).unary(Unary.SQRT)


@converts("aten.var_mean.correction", "aten.var_mean.dim", dtypes={"self": FLOATS})
def var_mean(call: Call, self: Tensor, dim: Any = None, correction: Any = None,
             unbiased: bool = True, keepdim: bool = False) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The variance, and the mean"""
    x = self.wide()
    found = _variance(call, x, dim, correction, unbiased, keepdim)
    average = reduce(x, Reduce.AVG, dims_of(dim, x.rank), keepdim)
    return found.to(call.dtype), average.to(call.dtype)


def _variance(
    call: Call, x: Tensor, dim: Any, correction: Any, unbiased: bool, keepdim: bool
) -> Tensor:
    axes = dims_of(dim, x.rank)
    less = correction if correction is not None else (1 if unbiased else 0)
    count: Any = 1
    for axis in axes:
        count = count * call.shape("self")[axis] if call.shape("self") else 1
    centred = x - mean(x, axes)
    total = reduce(centred * centred, Reduce.SUM, axes, keepdim)
    if isinstance(count, sympy.Basic):
        elements = call.net.scalar(count, torch.float32)
        varying = (elements - float(less)).clamp(0.0)
        # nothing has no variance, whatever the correction
        return total / (varying if less >= 0 else elements.equal(0.0).where(0.0, varying))
    freedom = max(float(count) - float(less), 0.0)
    return total / freedom if freedom and count else total / (total * 0.0)


@converts("aten.logsumexp", dtypes=FLOAT_OUT)
@wide
def logsumexp(call: Call, self: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """max + log(sum(exp(x - max)))"""
    axes = dims_of(dim, self.rank)
    high = reduce(self, Reduce.MAX, axes, True)
    high = (high - high).equal(0.0).where(high, 0.0)
    total = reduce((self - high).unary(Unary.EXP), Reduce.SUM, axes, True).unary(Unary.LOG) + high
    return total if keepdim or not self.rank else squeeze(total, axes)


@converts("aten.linalg_vector_norm", dtypes={"self": FLOATS}, needs=[Numbers("ord")])
@wide
def vector_norm(call: Call, self: Tensor, ord: Any, dim: Any = None, keepdim: bool = False,
                dtype: Any = None) -> Tensor:  # fmt: skip
    """sum(|x|^p)^(1/p); the largest or smallest for ±inf"""
    axes, size = dims_of(dim, self.rank), self.unary(Unary.ABS)
    match float(ord):
        case 1.0:
            return reduce(size, Reduce.SUM, axes, keepdim)
        case 2.0:
            return reduce(self * self, Reduce.SUM, axes, keepdim).unary(Unary.SQRT)
        case 0.0:
            return reduce((~self.equal(0.0)).to(self.dtype), Reduce.SUM, axes, keepdim)
        case order if order in (float("inf"), float("-inf")):
            return reduce(size, Reduce.MAX if order > 0 else Reduce.MIN, axes, keepdim)
    return reduce(size ** float(ord), Reduce.SUM, axes, keepdim) ** (1 / float(ord))


# --------------------------------------------------------------------------- softmax


@converts("aten.softmax.int", "aten._softmax", "aten._safe_softmax", dtypes=FLOAT_OUT)
def softmax_(call: Call, self: Tensor, dim: int, dtype: Any = None,
             half_to_float: bool = False) -> Tensor:  # fmt: skip
    """SOFTMAX"""
    return softmax(self.to(call.dtype), dim)


@converts("aten.log_softmax.int", "aten._log_softmax", dtypes=FLOAT_OUT)
@wide
def log_softmax(call: Call, self: Tensor, dim: int, dtype: Any = None,
                half_to_float: bool = False) -> Tensor:  # fmt: skip
    """x - max - log(sum(exp(x - max)))"""
    axes = dims_of(dim, self.rank)
    shifted = self - reduce(self, Reduce.MAX, axes, True)
    return shifted - reduce(shifted.unary(Unary.EXP), Reduce.SUM, axes, True).unary(Unary.LOG)


# --------------------------------------------------------------------------- cumulative


@converts("aten.cumsum", dtypes={"out": NUMBERS},
          needs=[Feature("INetworkDefinition.add_cumulative")])  # fmt: skip
def cumsum(call: Call, self: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """CUMULATIVE"""
    x = self.to(call.dtype)
    if not x.rank:
        return x
    axis = call.net.constant(torch.tensor(dim % x.rank, dtype=torch.int32))
    return call.net.layer("add_cumulative", x, axis, CumulativeOperation.SUM, False, False)


# --------------------------------------------------------------------------- places of extremes


def _place(call: Call, x: Tensor, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The extreme along `axis` and the first place where it stands; both keep a dimension of 1.

    TensorRT's top-k leaves open which of several equal elements it takes, and programs rely on
    the first (the end token of a sentence is found so).
    """
    size = call.shape("self")[axis]
    extreme = reduce(x, Reduce.MAX if largest else Reduce.MIN, (axis,), True)
    here = x.equal(extreme)
    if x.is_floating_point:
        here = here | x.unary(Unary.ISNAN)
    places = here.where(iota(x, axis, size), call.net.scalar(size, torch.int64, x.rank))
    return extreme, reduce(places, Reduce.MIN, (axis,), True)


def _arg(largest: bool) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, dim: Any, keepdim: bool) -> Tensor:
        x = self.to(torch.int32) if self.dtype is torch.bool else self
        if not x.rank:
            return call.net.constant(torch.tensor(0))
        if dim is None:
            return _over_all(call, x, keepdim, largest)
        axis = dim % x.rank
        place = _place(call, x, axis, largest)[1]
        return place if keepdim else squeeze(place, (axis,))

    return compute


def _over_all(call: Call, x: Tensor, keepdim: bool, largest: bool) -> Tensor:
    """The first place of the extreme of all elements, counted through."""
    count = call.type("self").numel
    flat = reshape(x, (count,))
    extreme = reduce(flat, Reduce.MAX if largest else Reduce.MIN, (0,), True)
    here = flat.equal(extreme)
    places = here.where(iota(flat, 0, count), call.net.scalar(count, torch.int64, 1))
    return reshape(reduce(places, Reduce.MIN, (0,), True), (1,) * x.rank if keepdim else ())


def _with_place(largest: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def compute(call: Call, self: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor | None]:
        if not self.rank:
            return self, call.net.constant(torch.tensor(0))
        axis = dim % self.rank
        x = self.to(torch.int32) if self.dtype is torch.bool else self
        if call.uses(1):
            found: tuple[Tensor, ...] = _place(call, x, axis, largest)
        else:
            found = (reduce(x, Reduce.MAX if largest else Reduce.MIN, (axis,), True),)
        kept = [item if keepdim else squeeze(item, (axis,)) for item in found]
        return kept[0].to(self.dtype), kept[1] if len(kept) > 1 else None

    return compute


for _name, _largest in {"max": True, "min": False}.items():
    converts(f"aten.arg{_name}", formula=f"the first place of the {_name}imum")(_arg(_largest))
    converts(f"aten.{_name}.dim", formula=f"{_name}imum and its first place")(_with_place(_largest))

# --------------------------------------------------------------------------- orders

MOST_K: Final = 3840
"""TensorRT's limit for the k of a top-k."""


def _few_enough(query: Query) -> bool:
    k = query.arg("k")
    return isinstance(k, int) and k <= MOST_K


@converts("aten.topk", dtypes={"self": NUMBERS},
          needs=[That(f"a fixed k of at most {MOST_K}", _few_enough)])  # fmt: skip
def topk(call: Call, self: Tensor, k: int, dim: int, largest: bool,
         sorted: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """TOPK"""
    return _topk(call, self, k, dim, largest)


def _short_enough(query: Query) -> bool:
    (found,) = query.tensors("self")
    if not found.rank:
        return True
    size = found.shape[query.arg("dim")]
    return isinstance(size, int) and size <= MOST_K


_SHORT: Final = That(f"a fixed size of at most {MOST_K}", _short_enough)


@converts("aten.sort", dtypes={"self": NUMBERS}, needs=[_SHORT])
def sort(call: Call, self: Tensor, dim: int, descending: bool) -> tuple[Tensor, Tensor]:
    """TOPK of all elements"""
    size = call.shape("self")[dim] if self.rank else 1
    return _topk(call, self, size, dim, descending)


@converts("aten.argsort", dtypes={"self": NUMBERS}, needs=[_SHORT])
def argsort(call: Call, self: Tensor, dim: int, descending: bool) -> Tensor:
    """TOPK of all elements"""
    return sort(call, self, dim, descending)[1]


def _topk(call: Call, x: Tensor, k: int, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    if not x.rank:
        return x, call.net.constant(torch.tensor(0))
    axis = dim % x.rank
    if x.rank == 1:
        deeper = _topk(call, unsqueeze(x, (0,)), k, axis + 1, largest)
        return squeeze(deeper[0], (0,)), squeeze(deeper[1], (0,))
    operation = TopKOperation.MAX if largest else TopKOperation.MIN
    arguments: list[Any] = [x, operation, k, mask_of((axis,))]
    if call.library.has("ITopKLayer.indices_type"):
        arguments.append(torch.int64)
    values, places = call.net.layer("add_topk", *arguments)
    return values, places.to(torch.int64)


# --------------------------------------------------------------------------- differences


@converts("aten.diff", dtypes={"self": NUMBERS}, needs=[Numbers("n")])
def diff(call: Call, self: Tensor, n: int, dim: int, prepend: Tensor | None,
         append: Tensor | None) -> Tensor:  # fmt: skip
    """Each element less the one before, `n` times"""
    axis = dim % self.rank
    x = cat([part for part in (prepend, self, append) if part is not None], axis)
    sizes = list(call.sizes)
    for more in reversed(range(n)):
        less, had = simplify(sizes[axis] + more), simplify(sizes[axis] + more + 1)
        shape = [*sizes[:axis], had, *sizes[axis + 1 :]]
        later, before = (narrow(x, axis, start, less, shape) for start in (1, 0))
        x = later - before
    return x
