"""What converters of several families share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import sympy
import torch

from rewright.backends.tensorrt.declaration import Call
from rewright.backends.tensorrt.dtypes import COMPUTED, FLOATS, QUANTIZED, is_narrow
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.graph import Value
from rewright.ir.types import ScalarType, TensorType

ANY: Final = dict.fromkeys(("self", "input", "out"), COMPUTED | QUANTIZED)
"""What may be moved without a change."""

FLOAT_OUT: Final = {"self": COMPUTED, "out": FLOATS}
"""Ops whose result is a float, whatever they take."""


def wide(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A formula as torch computes it: in ``f32`` for 16-bit floats, rounded once, at the end.

    Its tensors arrive in the dtype of the result, or wider.
    """

    @functools.wraps(function)
    def computed(call: Call, **arguments: Any) -> Tensor:
        put = {
            name: item.to(call.dtype).wide() if isinstance(item, Tensor) else item
            for name, item in arguments.items()
        }
        return function(call, **put).to(call.dtype)

    return computed


def common_dtype(call: Call, *names: str) -> torch.dtype:
    """The dtype that torch computes in, for the arguments of these names."""
    samples = [_sample(call.node.arg(name)) for name in names]
    return functools.reduce(torch.result_type, samples) if len(samples) < 3 else _of_many(samples)


def _of_many(samples: list[Any]) -> torch.dtype:
    kinds = [s if isinstance(s, torch.Tensor) else torch.tensor(s) for s in samples]
    return functools.reduce(torch.promote_types, (kind.dtype for kind in kinds))


_NUMBER: Final = {"int": 1, "float": 1.0, "bool": True}


def _sample(argument: Any) -> Any:
    """Something of the kind of an argument, for torch's rules of promotion."""
    if isinstance(argument, Value):
        match argument.type:
            case TensorType(dtype, shape):
                return torch.empty((1,) * len(shape), dtype=dtype, device="meta")
            case ScalarType(kind):
                return _NUMBER[kind]
    if isinstance(argument, sympy.Basic):
        return 1 if argument.is_integer else 1.0
    return argument


def operand(call: Call, value: Any, dtype: torch.dtype) -> Tensor:
    """An argument that may be a tensor, number or size, as a tensor of `dtype`."""
    return value.to(dtype) if isinstance(value, Tensor) else call.net.scalar(value, dtype)


def term(call: Call, value: Any, dtype: torch.dtype) -> Tensor:
    """An operand of arithmetic in `dtype`; in ``f32`` if it is a number that `dtype` can't hold.

    To torch, numbers are no 16-bit floats: ``x * -1e9`` of a zero is a zero, not the NaN of
    ``0 * -inf``. So the result may be in ``f32``, too, and is to be rounded.
    """
    if is_narrow(dtype) and _is_out_of_range(value, dtype):
        dtype = torch.float32
    return operand(call, value, dtype)


def _is_out_of_range(value: Any, dtype: torch.dtype) -> bool:
    """Whether `value` is a number that would become infinite, or lose digits next to zero."""
    number = value.value if isinstance(value, Tensor) else value
    if isinstance(number, torch.Tensor):
        number = number.item() if number.ndim == 0 else None
    if not isinstance(number, int | float) or number == 0 or not math.isfinite(number):
        return False
    kind = torch.finfo(dtype)
    return not kind.tiny <= abs(number) <= kind.max


def dims_of(dims: Any, rank: int) -> tuple[int, ...]:
    """Dimensions counted from the front, in order; all of them where none are given."""
    if dims is None or dims == [] or dims == ():
        return tuple(range(rank))
    listed = dims if isinstance(dims, list | tuple) else (dims,)
    return tuple(sorted(dim % max(rank, 1) for dim in listed))
