"""Functions of two tensors, comparisons and logic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from rewright.backends.tensorrt import formulas
from rewright.backends.tensorrt.converters.common import (
    common_dtype,
    operand,
    term,
    wide,
)
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import BOOL, FLOATS, INTEGERS, NUMBERS
from rewright.backends.tensorrt.enums import ElementWiseOperation as Binary
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import OneOf
from rewright.backends.tensorrt.tensor import Tensor

# --------------------------------------------------------------------------- two tensors

ARITHMETIC: Final[dict[str, Binary]] = {
    "mul.Tensor": Binary.PROD,
    "mul.Scalar": Binary.PROD,
    "maximum": Binary.MAX,
    "minimum": Binary.MIN,
    "max.other": Binary.MAX,
    "min.other": Binary.MIN,
}
"""One layer, in the dtype of the result."""

_ON_BOOL: Final = {
    Binary.SUM: Binary.OR,
    Binary.PROD: Binary.AND,
    Binary.MAX: Binary.OR,
    Binary.MIN: Binary.AND,
}
"""What arithmetic is on truth values."""

COMPARISONS: Final[dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]]] = {
    "eq": ("EQUAL", lambda a, b: a.equal(b)),
    "ne": ("NOT EQUAL", lambda a, b: ~a.equal(b)),
    "lt": ("LESS", lambda a, b: a < b),
    "le": ("LESS OR EQUAL", lambda a, b: a <= b),
    "gt": ("GREATER", lambda a, b: a > b),
    "ge": ("GREATER OR EQUAL", lambda a, b: a >= b),
}

LOGIC: Final[dict[str, Binary]] = {"and": Binary.AND, "or": Binary.OR, "xor": Binary.XOR}


def _arithmetic(operation: Binary) -> Callable[..., Tensor]:
    def compute(call: Call, self: Any, other: Any) -> Tensor:
        a, b = term(call, self, call.dtype), term(call, other, call.dtype)
        made = a.binary(_ON_BOOL[operation] if call.dtype is torch.bool else operation, b)
        return made.to(call.dtype)

    return compute


def _comparing(compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def compute(call: Call, self: Any, other: Any) -> Tensor:
        dtype = common_dtype(call, "self", "other")
        dtype = torch.int32 if dtype is torch.bool else dtype
        return compare(operand(call, self, dtype), operand(call, other, dtype))

    return compute


def _logical(operation: Binary) -> Callable[..., Tensor]:
    def compute(call: Call, self: Any, other: Any) -> Tensor:
        a, b = (operand(call, value, torch.bool) for value in (self, other))
        return a.binary(operation, b)

    return compute


for _name, _operation in ARITHMETIC.items():
    converts(f"aten.{_name}", formula=_operation.name)(_arithmetic(_operation))
for _name, (_words, _compare) in COMPARISONS.items():
    converts(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar", formula=_words)(_comparing(_compare))
for _name, _operation in LOGIC.items():
    converts(f"aten.logical_{_name}", formula=_operation.name)(_logical(_operation))
    converts(
        *(f"aten.bitwise_{_name}.{kind}" for kind in ("Tensor", "Scalar", "Scalar_Tensor")),
        *(f"aten.__{_name}__.{kind}" for kind in ("Tensor", "Scalar")),
        dtypes={"self": BOOL, "other": BOOL, "out": BOOL},
        formula=_operation.name,
    )(_logical(_operation))


@converts("aten.logical_not")
def logical_not(call: Call, self: Tensor) -> Tensor:
    """NOT"""
    return ~self.to(torch.bool)


@converts("aten.bitwise_not", dtypes={"self": BOOL | INTEGERS})
def bitwise_not(call: Call, self: Tensor) -> Tensor:
    """NOT; -x - 1 of integers"""
    return ~self if self.dtype is torch.bool else -self - 1


@converts("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call, self: Any, other: Any, alpha: Any) -> Tensor:
    """a + alpha * b"""
    a, b = term(call, self, call.dtype), term(call, other, call.dtype)
    if call.dtype is torch.bool:
        return a | b
    return (a + (b if alpha == 1 else b * alpha)).to(call.dtype)


@converts("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call, self: Any, other: Any, alpha: Any) -> Tensor:
    """a - alpha * b"""
    a, b = term(call, self, call.dtype), term(call, other, call.dtype)
    return (a - (b if alpha == 1 else b * alpha)).to(call.dtype)


@converts("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(call: Call, self: Any, other: Any, alpha: Any) -> Tensor:
    """b - alpha * a"""
    a, b = term(call, self, call.dtype), term(call, other, call.dtype)
    return (b - (a if alpha == 1 else a * alpha)).to(call.dtype)


def _quotient(a: Tensor, b: Tensor, mode: str | None) -> Tensor:
    """``a / b``, rounded as `mode` says: integers exactly."""
    if a.dtype in INTEGERS:
        return a // b if mode == "floor" else a / b  # DIV of integers truncates
    match mode:
        case "floor":
            return (a / b).unary(Unary.FLOOR)
        case "trunc":
            return formulas.trunc(a / b)
    return a / b


@converts("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor", dtypes={"out": FLOATS})
def div(call: Call, self: Any, other: Any) -> Tensor:
    """DIV"""
    return (term(call, self, call.dtype) / term(call, other, call.dtype)).to(call.dtype)


@converts(
    *("aten.div.Tensor_mode", "aten.div.Scalar_mode"),
    dtypes={"out": NUMBERS},
    needs=[OneOf("rounding_mode", (None, "floor", "trunc"))],
)
def div_mode(call: Call, self: Any, other: Any, rounding_mode: str | None) -> Tensor:
    """DIV, FLOOR_DIV for integers; rounded after for floats"""
    a, b = term(call, self, call.dtype), term(call, other, call.dtype)
    return _quotient(a.wide(), b.wide(), rounding_mode).to(call.dtype)


@converts("aten.floor_divide", "aten.floor_divide.Scalar", dtypes={"out": NUMBERS})
def floor_divide(call: Call, self: Any, other: Any) -> Tensor:
    """FLOOR_DIV for integers; floor(a / b) for floats"""
    return div_mode(call, self, other, "floor")


@converts("aten.remainder.Tensor", "aten.remainder.Scalar", dtypes={"out": NUMBERS})
def remainder(call: Call, self: Any, other: Any) -> Tensor:
    """a - floor(a / b) * b"""
    return _modulo(call, self, other, "floor")


@converts("aten.fmod.Tensor", "aten.fmod.Scalar", dtypes={"out": NUMBERS})
def fmod(call: Call, self: Any, other: Any) -> Tensor:
    """a - trunc(a / b) * b"""
    return _modulo(call, self, other, "trunc")


def _modulo(call: Call, self: Any, other: Any, mode: str) -> Tensor:
    a, b = (term(call, value, call.dtype).wide() for value in (self, other))
    return (a - _quotient(a, b, mode) * b).to(call.dtype)


@converts("aten.pow.Tensor_Tensor", dtypes={"out": NUMBERS})
def power(call: Call, self: Any, exponent: Any) -> Tensor:
    """POW"""
    a, b = (operand(call, value, call.dtype).wide() for value in (self, exponent))
    return (a**b).to(call.dtype)


@converts("aten.pow.Scalar", dtypes={"out": NUMBERS})
def power_of_number(call: Call, self: Any, exponent: Tensor) -> Tensor:
    """POW"""
    return power(call, self, exponent)


_POWERS: Final[dict[float, Callable[[Tensor], Tensor]]] = {
    0.5: lambda x: x.unary(Unary.SQRT),
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -0.5: lambda x: x.unary(Unary.SQRT).unary(Unary.RECIP),
    -1: lambda x: x.unary(Unary.RECIP),
    -2: lambda x: (x * x).unary(Unary.RECIP),
}


@converts("aten.pow.Tensor_Scalar", dtypes={"out": NUMBERS})
def power_by_number(call: Call, self: Tensor, exponent: Any) -> Tensor:
    """x * x, SQRT, RECIP for the usual exponents, else POW"""
    x = self.to(call.dtype).wide()
    known = _POWERS.get(exponent) if isinstance(exponent, int | float) else None
    if known is None or (exponent < 1 and not x.is_floating_point):
        return (x ** operand(call, exponent, x.dtype)).to(call.dtype)
    return known(x).to(call.dtype)


_HALF_PI: Final = math.pi / 2


@converts("aten.atan2", dtypes={"out": FLOATS})
@wide
def atan2(call: Call, self: Tensor, other: Tensor) -> Tensor:
    """2 * atan of the half angle; multiples of π/2 on the axes"""
    y, x = self, other
    # atan of the smaller over the larger, so that nothing overflows; then into its octant
    ax, ay = x.unary(Unary.ABS), y.unary(Unary.ABS)
    steep = ay > ax
    low, high = steep.where(ax, ay), steep.where(ay, ax)
    ratio = high.equal(0.0).where(0.0, low / high)
    angle = low.equal(math.inf).where(math.pi / 4, ratio.unary(Unary.ATAN))
    angle = steep.where(_HALF_PI - angle, angle)
    angle = (x < 0.0).where(math.pi - angle, angle)
    signed = (y < 0.0).where(-angle, angle)
    return (x.unary(Unary.ISNAN) | y.unary(Unary.ISNAN)).where(math.nan, signed)


@converts("aten.hypot", dtypes={"out": FLOATS})
@wide
def hypot(call: Call, self: Tensor, other: Tensor) -> Tensor:
    """sqrt(a² + b²)"""
    return (self * self + other * other).unary(Unary.SQRT)


@converts("aten.logaddexp", dtypes={"out": FLOATS})
@wide
def logaddexp(call: Call, self: Tensor, other: Tensor) -> Tensor:
    """max(a, b) + log1p(exp(-|a - b|))"""
    apart = (self - other).unary(Unary.ABS)
    return self.binary(Binary.MAX, other) + formulas.log1p(formulas.exp(-apart))


@converts("aten._prelu_kernel", dtypes={"self": FLOATS})
def prelu(call: Call, self: Tensor, weight: Tensor) -> Tensor:
    """max(x, 0) + weight * min(x, 0)"""
    return (self > 0.0).where(self, self * weight)
