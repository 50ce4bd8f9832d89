"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.enums import (
    PoolingType,
)
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.needs import Need, Numbers, Query, Rank, That, Unused
from rewright.backends.tensorrt.reducing import reduce
from rewright.backends.tensorrt.shaping import (
    is_static,
    squeeze,
    transpose,
)
from rewright.backends.tensorrt.tensor import Tensor
from rewright.backends.tensorrt.windows import Window, argument, batched, spatial, two, widen

# --------------------------------------------------------------------------- pooling

_POOL: Final[tuple[Need, ...]] = (
    Rank("self", 2, 5),
    Numbers("kernel_size"),
)


def _pool(call: Call, x: Tensor, kind: PoolingType, count: int, kernel: Any, stride: Any,
          padding: Any, ceil: bool, **settings: Any) -> Tensor:  # fmt: skip
    size = spatial(kernel, count)
    step = spatial(stride, count) if stride not in ([], (), None) else size
    pad = spatial(padding, count, 0)
    x, alone = batched(x, count)
    after = _after(call, size, step, pad) if ceil else pad
    window = Window(step, pad, after, (1,) * count)
    made = call.net.layer(
        "add_pooling_nd", widen(x, count), kind, two(size, 1),
        stride_nd=window.stride, pre_padding=window.before, post_padding=window.after, **settings,
    )  # fmt: skip
    made = squeeze(made, (made.rank - 2,)) if count == 1 else made
    return squeeze(made, (0,)) if alone else made


def _after(call: Call, size: Sequence[int], step: Sequence[int],
           pad: Sequence[int]) -> tuple[int, ...]:  # fmt: skip
    """Padding at the far side with which no window is cut: what `ceil_mode` means.

    torch leaves out a window that would start in that padding; TensorRT's own rounding does not.
    """
    count = len(size)
    had, made = call.shape("self")[-count:], call.sizes[-count:]
    return tuple(
        max((out - 1) * s + k - have - p, 0)
        for out, s, k, have, p in zip(made, step, size, had, pad, strict=True)
    )


def _static_if_ceil(query: Query) -> bool:
    return not query.arg("ceil_mode") or is_static(query.tensors("self")[0].shape[1:])


_CEIL: Final = That("a fixed size with ceil_mode", _static_if_ceil)
_POOLED: Final = {"self": FLOATS, "out": FLOATS}


def _max_pooling(count: int) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, kernel_size: Any, stride: Any, padding: Any,
                dilation: Any, ceil_mode: bool) -> Tensor:  # fmt: skip
        return _pool(call, self, PoolingType.MAX, count, kernel_size, stride, padding, ceil_mode)

    return compute


def _with_indices(count: int) -> Callable[..., tuple[Tensor, None]]:
    pooled = _max_pooling(count)
    return lambda call, self, kernel_size, stride, padding, dilation, ceil_mode: (
        pooled(call, self, kernel_size, stride, padding, dilation, ceil_mode),
        None,
    )


def _undilated(query: Query) -> bool:
    return all(step == 1 for step in spatial(query.arg("dilation"), 1))


_UNDILATED: Final = That("no dilation", _undilated)


def _average_pooling(count: int) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, kernel_size: Any, stride: Any, padding: Any,
                ceil_mode: bool, count_include_pad: bool,
                divisor_override: Any = None) -> Tensor:  # fmt: skip
        size = spatial(kernel_size, count)
        padded = any(spatial(padding, count, 0))
        over = padded and count_include_pad
        x = _pool(call, self, PoolingType.AVERAGE, count, kernel_size, stride, padding, ceil_mode,
                  average_count_excludes_padding=not over)  # fmt: skip
        return x if divisor_override is None else x * (math.prod(size) / divisor_override)

    return compute


def _average_reason(query: Query) -> bool:
    """Whether TensorRT divides as torch does, which counts no padding that `ceil_mode` adds."""
    if not query.arg("ceil_mode") and argument(query, "divisor_override", None) is None:
        return True
    return not any(spatial(query.arg("padding"), 1, 0)) and (
        argument(query, "divisor_override", None) is None or not query.arg("ceil_mode")
    )


_AVERAGE: Final = That("no padding with ceil_mode or divisor_override", _average_reason)

for _count in (1, 2, 3):
    converts(f"aten.max_pool{_count}d", dtypes=_POOLED, needs=[*_POOL, _CEIL, _UNDILATED],
             formula="POOLING MAX")(_max_pooling(_count))  # fmt: skip
    converts(f"aten.avg_pool{_count}d", dtypes=_POOLED, needs=[*_POOL, _CEIL, _AVERAGE],
             formula="POOLING AVERAGE")(_average_pooling(_count))  # fmt: skip
    if _count > 1:
        converts(f"aten.max_pool{_count}d_with_indices", dtypes=_POOLED,
                 needs=[*_POOL, _CEIL, _UNDILATED, Unused((1,), "places of maxima")],
                 formula="POOLING MAX")(_with_indices(_count))  # fmt: skip


# --------------------------------------------------------------------------- adaptive pooling


def _adaptive(query: Query) -> bool:
    (found,) = query.tensors("self")
    wanted = _output_size(query.node.op.name, query.arg("output_size"))
    return all(
        out == 1 or isinstance(have, int)
        for out, have in zip(wanted, found.shape[-len(wanted) :], strict=True)
    )


def _output_size(op: str, size: Any) -> tuple[Any, ...]:
    return spatial(size, int(op.rstrip("d")[-1]))


_ADAPTIVE: Final = That("a fixed size, or an output of 1", _adaptive)


@converts(
    *(f"aten.{name}{count}d" for name in ("adaptive_avg_pool", "_adaptive_avg_pool")
      for count in (1, 2, 3) if (name, count) != ("_adaptive_avg_pool", 1)),
    dtypes=_POOLED,
    needs=[Numbers("output_size"), _ADAPTIVE],
)  # fmt: skip
def adaptive_average(call: Call, self: Tensor, output_size: Any) -> Tensor:
    """REDUCE to 1; POOLING where windows are equal; else MATRIX_MULTIPLY by averages"""
    wanted = _output_size(call.node.op.name, output_size)
    had = call.shape("self")[-len(wanted) :]
    first = self.rank - len(wanted)
    ones = [first + i for i, out in enumerate(wanted) if out == 1]
    x = reduce(self, Reduce.AVG, ones, True)
    for index, (out, have) in enumerate(zip(wanted, had, strict=True)):
        if out != 1 and out != have:
            x = _averaged(x, first + index, have, out)
    return x


def _averaged(x: Tensor, axis: int, have: int, out: int) -> Tensor:
    """Windows of one dimension averaged: ``floor(i*have/out)`` to ``ceil((i+1)*have/out)``."""
    from rewright.backends.tensorrt.converters.products import matmul

    weights = torch.zeros(out, have)
    for i in range(out):
        low, high = i * have // out, -(-(i + 1) * have // out)
        weights[i, low:high] = 1 / (high - low)
    last = transpose(x, axis, x.rank - 1)
    made = matmul(last, x.net.constant(weights.to(x.dtype)), transpose_b=True)
    return transpose(made, axis, x.rank - 1)
