"""Tensors made from numbers and sizes."""

from __future__ import annotations

from typing import Any

import torch

from rewright.backends.tensorrt.converters.common import operand
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.filling import full, linspace
from rewright.backends.tensorrt.reducing import arange
from rewright.backends.tensorrt.shaping import expand, reshape, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor


@converts("aten.arange", "aten.arange.start", "aten.arange.start_step")
def arange_(call: Call, start: Any = 0, end: Any = None, step: Any = 1,
            dtype: Any = None) -> Tensor:  # fmt: skip
    """FILL LINSPACE"""
    (size,) = call.sizes
    return linspace(call.net, start, step, size, call.dtype)


@converts("aten.full", "aten.new_full", "aten.full_like", "aten.fill.Scalar", "aten.fill.Tensor",
          "aten.scalar_tensor", "aten.copy")  # fmt: skip
def full_(call: Call, self: Any = None, size: Any = None, fill_value: Any = None,
          value: Any = None, s: Any = None, src: Any = None,
          dtype: Any = None) -> Tensor:  # fmt: skip
    """A number (or tensor) everywhere: CONSTANT, SLICE with a stride of 0"""
    given = next(item for item in (fill_value, value, s, src) if item is not None)
    if isinstance(given, Tensor) and given.rank:
        return expand(given.to(call.dtype), call.sizes)
    return full(call.net, given, call.sizes, call.dtype)


def _declare_fills() -> None:
    for name, number in {"zeros": 0, "ones": 1, "empty": 0}.items():
        suffix = ".memory_format" if name == "empty" else ""
        ops = [f"aten.{name}{suffix}", f"aten.{name}_like", f"aten.new_{name}"]
        ops += ["aten.empty_strided", "aten.new_empty_strided"] if name == "empty" else []
        converts(*ops, formula=f"{number} everywhere")(
            lambda call, size=None, self=None, stride=None, dtype=None, number=number: full(
                call.net, number, call.sizes, call.dtype
            )
        )


_declare_fills()


@converts("aten.eye", "aten.eye.m")
def eye(call: Call, n: Any, m: Any = None, dtype: Any = None) -> Tensor:
    """EQUAL of row and column"""
    rows, columns = call.sizes
    like = call.net.scalar(0, torch.int64, 2)
    column = reshape(arange(like, rows), (rows, 1))
    row = reshape(arange(like, columns), (1, columns))
    return column.equal(row).to(call.dtype)


@converts("aten.linspace")
def linspace_(call: Call, start: Any, end: Any, steps: Any, dtype: Any = None) -> Tensor:
    """FILL LINSPACE"""
    (size,) = call.sizes
    if size == 1:
        return full(call.net, start, (1,), call.dtype)
    if all(isinstance(item, int | float) for item in (start, end, size)):
        return call.net.constant(torch.linspace(start, end, size, dtype=call.dtype))
    places = arange(call.net.scalar(0, torch.int64), size).to(torch.float32)
    first, last = (operand(call, item, torch.float32) for item in (start, end))
    count = operand(call, size - 1, torch.float32)
    return (first + places * (last - first) / count.clamp(1.0)).to(call.dtype)


@converts("aten.meshgrid", "aten.meshgrid.indexing")
def meshgrid(call: Call, tensors: list[Tensor], indexing: str = "ij") -> list[Tensor]:
    """Each tensor along a dimension of its own, repeated along the others"""
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    made = []
    for x, axis, sizes in zip(tensors, order, call.all_sizes, strict=True):
        flat = x if x.rank else unsqueeze(x, (0,))
        wide = unsqueeze(flat, [dim for dim in range(len(tensors)) if dim != axis])
        made.append(expand(wide, sizes))
    return made
