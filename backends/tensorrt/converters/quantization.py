"""Quantize and dequantize, as PT2E exports them: TensorRT's own Q and DQ layers.

TensorRT quantizes symmetrically: zero points must be 0, and the range that of the dtype. Its int8
and fp8 tensors stand between a Q and a DQ only.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS, QUANTIZED
from rewright.backends.tensorrt.enums import ElementWiseOperation as Binary
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import Constant, Query, That
from rewright.backends.tensorrt.shaping import unsqueeze
from rewright.backends.tensorrt.tensor import Tensor

_RANGES: Final = {
    torch.int8: ((-128, 127), (-127, 127)),
    torch.float8_e4m3fn: ((-448, 448),),
}
"""The limits that an exporter may state for each dtype: TensorRT's are the first of them."""


def _whole_range(query: Query) -> bool:
    limits = (query.arg("quant_min"), query.arg("quant_max"))
    dtype = query.arg("dtype")
    return dtype in _RANGES and limits in _RANGES[dtype]


def _symmetric(query: Query) -> bool:
    """Whether all zero points are known to be 0."""
    name = "zero_points" if "per_channel" in query.node.op.name else "zero_point"
    found = query.arg(name)
    if not query.values(name):
        return found in (0, None)
    data = [getattr(value, "data", None) for value in query.values(name)]
    return all(item is not None and not bool(item.any()) for item in data)


_RANGE: Final = That("the whole range of int8 or f8e4m3fn", _whole_range)
_SYMMETRIC: Final = That("zero points of 0", _symmetric)
_Q: Final = {"input": FLOATS, "scales": FLOATS | {torch.float64}, "zero_points": frozenset(
    (torch.int64, torch.int32, torch.int8, torch.float32)), "out": QUANTIZED}  # fmt: skip
_DQ: Final = {**_Q, "input": QUANTIZED, "out": FLOATS}


def _scale(call: Call, scale: Any) -> Tensor:
    """The scale as f32: a number, or the constant of all channels."""
    if isinstance(scale, Tensor):
        return scale.to(torch.float32)
    return call.net.constant(torch.tensor(float(scale)))


def _quantized(call: Call, x: Tensor, scale: Tensor, low: Any, axis: int | None = None) -> Tensor:
    """`x` rounded and clipped as torch's formula has it, by TensorRT's layer."""
    settings: dict[str, Any] = {} if axis is None else {"axis": axis}
    along = scale if axis is None else unsqueeze(scale, range(1, x.rank - axis))
    if call.dtype is not torch.int8:
        # torch's formula rounds to whole numbers, whatever it stores them in
        x = (x.wide() * along.unary(Unary.RECIP)).unary(Unary.ROUND)
        scale = call.net.constant(torch.ones(scale.shape))
    elif low != -128:
        x = x.wide().binary(Binary.MAX, along * float(low)).to(x.dtype)
    return call.net.layer("add_quantize", x, scale, call.dtype, **settings)


@converts("quantized_decomposed.quantize_per_tensor", dtypes=_Q, needs=[_RANGE, _SYMMETRIC])
def quantize(call: Call, input: Tensor, scale: Any, zero_point: Any, quant_min: Any,
             quant_max: Any, dtype: Any) -> Tensor:  # fmt: skip
    """QUANTIZE"""
    return _quantized(call, input, _scale(call, scale), quant_min)


@converts("quantized_decomposed.dequantize_per_tensor", dtypes=_DQ, needs=[_RANGE, _SYMMETRIC])
def dequantize(call: Call, input: Tensor, scale: Any, zero_point: Any, quant_min: Any,
               quant_max: Any, dtype: Any, out_dtype: Any = None) -> Tensor:  # fmt: skip
    """DEQUANTIZE"""
    return call.net.layer("add_dequantize", input, _scale(call, scale), call.dtype)


@converts("quantized_decomposed.quantize_per_channel", dtypes=_Q,
          needs=[_RANGE, _SYMMETRIC, Constant("scales")])  # fmt: skip
def quantize_channels(call: Call, input: Tensor, scales: Tensor, zero_points: Any, axis: int,
                      quant_min: Any, quant_max: Any, dtype: Any) -> Tensor:  # fmt: skip
    """QUANTIZE along an axis"""
    return _quantized(call, input, _scale(call, scales), quant_min, axis % input.rank)


@converts("quantized_decomposed.dequantize_per_channel", dtypes=_DQ,
          needs=[_RANGE, _SYMMETRIC, Constant("scales")])  # fmt: skip
def dequantize_channels(call: Call, input: Tensor, scales: Tensor, zero_points: Any, axis: int,
                        quant_min: Any, quant_max: Any, dtype: Any,
                        out_dtype: Any = None) -> Tensor:  # fmt: skip
    """DEQUANTIZE along an axis"""
    return call.net.layer("add_dequantize", input, _scale(call, scales), call.dtype,
                          axis=axis % input.rank)  # fmt: skip
