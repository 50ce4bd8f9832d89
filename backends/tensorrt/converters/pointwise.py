"""Functions of one and of two numbers, comparisons and logic: tables, a line for each op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from rewright.backends.tensorrt.converters.common import (
    FLOAT_OUT,
    common_dtype,
    operand,
    wide,
)
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import BOOL, COMPUTED, FLOATS, INTEGERS, NUMBERS
from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.enums import ElementWiseOperation as Binary
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.filling import full
from rewright.backends.tensorrt.needs import OneOf
from rewright.backends.tensorrt.tensor import Tensor

# --------------------------------------------------------------------------- one layer

UNARY: Final[dict[str, Unary]] = {
    "acos": Unary.ACOS,
    "acosh": Unary.ACOSH,
    "asin": Unary.ASIN,
    "asinh": Unary.ASINH,
    "atan": Unary.ATAN,
    "atanh": Unary.ATANH,
    "cos": Unary.COS,
    "cosh": Unary.COSH,
    "erf": Unary.ERF,
    "exp": Unary.EXP,
    "log": Unary.LOG,
    "reciprocal": Unary.RECIP,
    "sin": Unary.SIN,
    "sinh": Unary.SINH,
    "sqrt": Unary.SQRT,
    "tan": Unary.TAN,
}
"""Ops that give floats."""

EXACT: Final[dict[str, Unary]] = {"abs": Unary.ABS, "neg": Unary.NEG, "sign": Unary.SIGN}
"""Ops that keep the dtype."""

ROUNDING: Final[dict[str, Unary]] = {
    "ceil": Unary.CEIL,
    "floor": Unary.FLOOR,
    "round": Unary.ROUND,
}
"""Ops that do nothing to integers."""

PREDICATES: Final[dict[str, Unary]] = {"isinf": Unary.ISINF, "isnan": Unary.ISNAN}
"""Ops that are false of integers."""

ACTIVATIONS: Final[dict[str, tuple[Act, dict[str, float]]]] = {
    "tanh": (Act.TANH, {}),
    "sigmoid": (Act.SIGMOID, {}),
    "hardsigmoid": (Act.HARD_SIGMOID, {"alpha": 1 / 6, "beta": 0.5}),
}
"""Activations without arguments."""


def _declare_tables() -> None:
    for name, operation in UNARY.items():
        converts(f"aten.{name}", dtypes=FLOAT_OUT, formula=operation.name)(_promoting(operation))
    for name, operation in EXACT.items():
        converts(f"aten.{name}", dtypes={"self": NUMBERS}, formula=operation.name)(
            _keeping(operation)
        )
    for name, operation in ROUNDING.items():
        converts(f"aten.{name}", dtypes={"self": NUMBERS}, formula=operation.name)(
            _rounding(operation)
        )
    for name, operation in PREDICATES.items():
        converts(f"aten.{name}", formula=operation.name)(_asking(operation))
    for name, (kind, constants) in ACTIVATIONS.items():
        converts(f"aten.{name}", dtypes=FLOAT_OUT, formula=kind.name)(_activation(kind, constants))


def _promoting(operation: Unary) -> Callable[..., Tensor]:
    return lambda call, self: self.to(call.dtype).unary(operation)


def _keeping(operation: Unary) -> Callable[..., Tensor]:
    return lambda call, self: self.unary(operation)


def _rounding(operation: Unary) -> Callable[..., Tensor]:
    return lambda call, self: self if self.dtype in INTEGERS else self.unary(operation)


def _asking(operation: Unary) -> Callable[..., Tensor]:
    def ask(call: Call, self: Tensor) -> Tensor:
        if self.is_floating_point:
            return self.unary(operation)
        return self.to(torch.bool) & self.net.scalar(False, torch.bool, self.rank)

    return ask


def _activation(kind: Act, constants: dict[str, float]) -> Callable[..., Tensor]:
    return lambda call, self: self.to(call.dtype).activation(kind, **constants)


_declare_tables()

# --------------------------------------------------------------------------- formulas of one tensor


def _trunc(x: Tensor) -> Tensor:
    return x.unary(Unary.SIGN) * x.unary(Unary.ABS).unary(Unary.FLOOR)


def _sigmoid(x: Tensor) -> Tensor:
    return x.activation(Act.SIGMOID)


def _exp(x: Tensor) -> Tensor:
    return x.unary(Unary.EXP)


def _log(x: Tensor) -> Tensor:
    return x.unary(Unary.LOG)


def _expm1(x: Tensor) -> Tensor:
    """``tanh(x/2) * (exp(x) + 1)``, which keeps its digits near 0."""
    return (x * 0.5).activation(Act.TANH) * (_exp(x) + 1.0)


def _log1p(x: Tensor) -> Tensor:
    """``log(u) * x / (u - 1)`` of ``u = 1 + x``, which keeps its digits near 0 (Kahan)."""
    u = x + 1.0
    exact = u.equal(1.0)
    ratio = _log(u) * (x / exact.where(1.0, u - 1.0))
    infinite = u.equal(math.inf)
    return exact.where(x, infinite.where(math.inf, ratio))


def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0.0, 6.0)


FORMULAS: Final[dict[str, tuple[str, Callable[[Tensor], Tensor]]]] = {
    "deg2rad": ("x * π/180", lambda x: x * (math.pi / 180)),
    "erfc": ("1 - erf(x)", lambda x: 1.0 - x.unary(Unary.ERF)),
    "exp2": ("exp(x * log 2)", lambda x: _exp(x * math.log(2))),
    "expm1": ("tanh(x/2) * (exp(x) + 1)", _expm1),
    "hardswish": ("x * relu6(x + 3) / 6", lambda x: x * _relu6(x + 3.0) * (1 / 6)),
    "log10": ("log(x) / log 10", lambda x: _log(x) * (1 / math.log(10))),
    "log1p": ("log(u) * x / (u - 1), u = 1 + x", _log1p),
    "log2": ("log(x) / log 2", lambda x: _log(x) * (1 / math.log(2))),
    "log_sigmoid_forward": ("min(x, 0) - log1p(exp(-|x|))", lambda x: _log_sigmoid(x)),
    "mish": ("x * tanh(softplus(x))", lambda x: x * _softplus(x).activation(Act.TANH)),
    "rad2deg": ("x * 180/π", lambda x: x * (180 / math.pi)),
    "relu6": ("min(max(x, 0), 6)", _relu6),
    "rsqrt": ("1 / sqrt(x)", lambda x: x.unary(Unary.SQRT).unary(Unary.RECIP)),
    "selu": ("SELU", lambda x: x.activation(Act.SELU, alpha=_SELU[0], beta=_SELU[1])),
    "silu": ("x * sigmoid(x)", lambda x: x * _sigmoid(x)),
    "sinc": ("sin(πx) / πx", lambda x: _sinc(x * math.pi)),
    "square": ("x * x", lambda x: x * x),
}
"""Floating-point functions of one tensor: in words, and on tensors."""

_SELU: Final = (1.6732632423543772, 1.0507009873554805)


def _softplus(x: Tensor) -> Tensor:
    return x.clamp(0.0) + _log1p(_exp(-x.unary(Unary.ABS)))


def _log_sigmoid(x: Tensor) -> Tensor:
    return -_softplus(-x)


def _sinc(x: Tensor) -> Tensor:
    zero = x.equal(0.0)
    return zero.where(1.0, x.unary(Unary.SIN) / zero.where(1.0, x))


def _formula(compute: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return wide(lambda call, self: compute(self))


for _name, (_words, _compute) in FORMULAS.items():
    if _name != "log_sigmoid_forward":
        converts(f"aten.{_name}", dtypes=FLOAT_OUT, formula=_words)(_formula(_compute))


@converts("aten.log_sigmoid_forward", dtypes={"self": FLOATS, "out": FLOATS})
def log_sigmoid(call: Call, self: Tensor) -> tuple[Tensor, None]:
    """min(x, 0) - log1p(exp(-|x|))"""
    return _log_sigmoid(self.wide()).to(call.dtype), None


@converts("aten.trunc", "aten.fix", dtypes={"self": NUMBERS})
def trunc(call: Call, self: Tensor) -> Tensor:
    """sign(x) * floor(|x|)"""
    return self if self.dtype in INTEGERS else _trunc(self)


@converts("aten.frac", dtypes={"self": FLOATS})
@wide
def frac(call: Call, self: Tensor) -> Tensor:
    """x - trunc(x)"""
    return self - _trunc(self)


@converts("aten.signbit", dtypes={"self": NUMBERS})
def signbit(call: Call, self: Tensor) -> Tensor:
    """x < 0; the sign of zero is not seen"""
    return self < 0


@converts("aten.isfinite", dtypes={"self": NUMBERS})
def isfinite(call: Call, self: Tensor) -> Tensor:
    """x - x = 0"""
    return (self - self).equal(0)


@converts("aten.relu", dtypes={"self": NUMBERS})
def relu(call: Call, self: Tensor) -> Tensor:
    """RELU; MAX for integers, which may be sizes"""
    return self.activation(Act.RELU) if self.is_floating_point else self.clamp(0)


@converts("aten.gelu", dtypes={"self": FLOATS}, needs=[OneOf("approximate", ("none", "tanh"))])
def gelu(call: Call, self: Tensor, approximate: str) -> Tensor:
    """GELU_ERF, GELU_TANH"""
    return self.activation(Act.GELU_TANH if approximate == "tanh" else Act.GELU_ERF)


@converts("aten.leaky_relu", dtypes={"self": FLOATS})
def leaky_relu(call: Call, self: Tensor, negative_slope: float) -> Tensor:
    """LEAKY_RELU"""
    return self.activation(Act.LEAKY_RELU, alpha=float(negative_slope))


@converts("aten.elu", dtypes={"self": FLOATS})
@wide
def elu(call: Call, self: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    """scale * (max(x, 0) + alpha * (exp(input_scale * min(x, 0)) - 1))"""
    negative = _expm1(self.clamp(None, 0.0) * float(input_scale)) * float(alpha)
    return (self.clamp(0.0) + negative) * float(scale)


@converts("aten.celu", dtypes={"self": FLOATS})
@wide
def celu(call: Call, self: Tensor, alpha: float) -> Tensor:
    """max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)"""
    return self.clamp(0.0) + _expm1(self.clamp(None, 0.0) * (1 / alpha)) * float(alpha)


@converts("aten.softplus", dtypes={"self": FLOATS})
@wide
def softplus(call: Call, self: Tensor, beta: float, threshold: float) -> Tensor:
    """log1p(exp(beta * x)) / beta; x where beta * x > threshold"""
    scaled = self * float(beta)
    return (scaled > float(threshold)).where(self, _softplus(scaled) * (1 / beta))


@converts("aten.threshold", dtypes={"self": NUMBERS})
def threshold(call: Call, self: Tensor, threshold: Any, value: Any) -> Tensor:
    """x where x > threshold, else value"""
    return (self > threshold).where(self, value)


@converts("aten.hardshrink", dtypes={"self": FLOATS})
def hardshrink(call: Call, self: Tensor, lambd: float) -> Tensor:
    """0 where |x| <= lambd, else x"""
    return (self.unary(Unary.ABS) <= float(lambd)).where(0.0, self)


@converts("aten.softshrink", dtypes={"self": FLOATS})
@wide
def softshrink(call: Call, self: Tensor, lambd: float) -> Tensor:
    """x - clamp(x, -lambd, lambd)"""
    return self - self.clamp(-float(lambd), float(lambd))


@converts("aten.logit", dtypes={"self": FLOATS})
@wide
def logit(call: Call, self: Tensor, eps: float | None) -> Tensor:
    """log(x / (1 - x)) of x within [eps, 1 - eps]"""
    x = self if eps is None else self.clamp(eps, 1 - eps)
    return _log(x / (1.0 - x))


@converts("aten.nan_to_num", dtypes={"self": NUMBERS})
def nan_to_num(
    call: Call, self: Tensor, nan: float | None, posinf: float | None, neginf: float | None
) -> Tensor:
    """Other numbers for nan and ±inf"""
    if not self.is_floating_point:
        return self
    limits = torch.finfo(self.dtype)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    x = self.equal(math.inf).where(high, self)
    x = x.equal(-math.inf).where(low, x)
    return self.unary(Unary.ISNAN).where(nan or 0.0, x)


@converts("aten.round.decimals", dtypes={"self": FLOATS})
@wide
def round_decimals(call: Call, self: Tensor, decimals: int) -> Tensor:
    """round(x * 10^decimals) / 10^decimals"""
    if decimals < 0:
        return (self / float(10**-decimals)).unary(Unary.ROUND) * float(10**-decimals)
    return (self * float(10**decimals)).unary(Unary.ROUND) / float(10**decimals)


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
        a, b = operand(call, self, call.dtype), operand(call, other, call.dtype)
        return a.binary(_ON_BOOL[operation] if call.dtype is torch.bool else operation, b)

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
    a, b = operand(call, self, call.dtype), operand(call, other, call.dtype)
    if call.dtype is torch.bool:
        return a | b
    return a + (b if alpha == 1 else b * alpha)


@converts("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call, self: Any, other: Any, alpha: Any) -> Tensor:
    """a - alpha * b"""
    a, b = operand(call, self, call.dtype), operand(call, other, call.dtype)
    return a - (b if alpha == 1 else b * alpha)


@converts("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(call: Call, self: Any, other: Any, alpha: Any) -> Tensor:
    """b - alpha * a"""
    a, b = operand(call, self, call.dtype), operand(call, other, call.dtype)
    return b - (a if alpha == 1 else a * alpha)


def _quotient(a: Tensor, b: Tensor, mode: str | None) -> Tensor:
    """``a / b``, rounded as `mode` says: integers exactly."""
    if a.dtype in INTEGERS:
        return a // b if mode == "floor" else a / b  # DIV of integers truncates
    match mode:
        case "floor":
            return (a / b).unary(Unary.FLOOR)
        case "trunc":
            return _trunc(a / b)
    return a / b


@converts("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor", dtypes={"out": FLOATS})
def div(call: Call, self: Any, other: Any) -> Tensor:
    """DIV"""
    return operand(call, self, call.dtype) / operand(call, other, call.dtype)


@converts(
    *("aten.div.Tensor_mode", "aten.div.Scalar_mode"),
    dtypes={"out": NUMBERS},
    needs=[OneOf("rounding_mode", (None, "floor", "trunc"))],
)
def div_mode(call: Call, self: Any, other: Any, rounding_mode: str | None) -> Tensor:
    """DIV, FLOOR_DIV for integers; rounded after for floats"""
    a, b = operand(call, self, call.dtype), operand(call, other, call.dtype)
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
    a, b = (operand(call, value, call.dtype).wide() for value in (self, other))
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
    return self.binary(Binary.MAX, other) + _log1p(_exp(-apart))


@converts("aten._prelu_kernel", dtypes={"self": FLOATS})
def prelu(call: Call, self: Tensor, weight: Tensor) -> Tensor:
    """max(x, 0) + weight * min(x, 0)"""
    return (self > 0.0).where(self, self * weight)


# --------------------------------------------------------------------------- choices and limits


@converts(
    *("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
)
def where(call: Call, condition: Tensor, self: Any, other: Any) -> Tensor:
    """SELECT"""
    yes, no = operand(call, self, call.dtype), operand(call, other, call.dtype)
    return condition.to(torch.bool).where(yes, no)


@converts("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(call: Call, self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """SELECT"""
    return mask.where(operand(call, value, self.dtype), self)


@converts("aten.clamp", "aten.clamp.Tensor", "aten.clip", "aten.clip.Tensor",
          dtypes={"out": NUMBERS})  # fmt: skip
def clamp(call: Call, self: Tensor, min: Any, max: Any) -> Tensor:
    """MAX, MIN"""
    low, high = (v if v is None else operand(call, v, call.dtype) for v in (min, max))
    return self.to(call.dtype).clamp(low, high)


@converts("aten.clamp_min", "aten.clamp_min.Tensor", dtypes={"out": NUMBERS})
def clamp_min(call: Call, self: Tensor, min: Any) -> Tensor:
    """MAX"""
    return clamp(call, self, min, None)


@converts("aten.clamp_max", "aten.clamp_max.Tensor", dtypes={"out": NUMBERS})
def clamp_max(call: Call, self: Tensor, max: Any) -> Tensor:
    """MIN"""
    return clamp(call, self, None, max)


@converts("aten.hardtanh", dtypes={"self": NUMBERS})
def hardtanh(call: Call, self: Tensor, min_val: Any, max_val: Any) -> Tensor:
    """MAX, MIN"""
    return clamp(call, self, min_val, max_val)


@converts("rw.gated", dtypes={"out": FLOATS},
          needs=[OneOf("activation", ("silu", "gelu", "gelu_tanh", "relu", "sigmoid"))])  # fmt: skip
@wide
def gated(call: Call, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up"""
    return _GATES[activation](gate) * up


_GATES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x.activation(Act.GELU_ERF),
    "gelu_tanh": lambda x: x.activation(Act.GELU_TANH),
    "relu": lambda x: x.activation(Act.RELU),
    "sigmoid": _sigmoid,
}


# --------------------------------------------------------------------------- casts


@converts("aten._to_copy", "prims.convert_element_type", "aten.to.dtype",
          dtypes={"self": COMPUTED | {torch.uint8}, "a": COMPUTED | {torch.uint8},
                  "out": COMPUTED | {torch.uint8}})  # fmt: skip
def to_copy(call: Call, self: Any = None, a: Any = None, dtype: Any = None) -> Tensor:
    """CAST"""
    x = self if a is None else a
    return x.to(call.dtype)


@converts("aten.type_as")
def type_as(call: Call, self: Tensor, other: Tensor) -> Tensor:
    """CAST"""
    return self.to(call.dtype)


@converts(
    "aten.clone", "aten.alias", "aten.detach", "aten.contiguous", "aten.lift_fresh_copy",
    "aten.alias_copy", "aten.detach_copy", "aten.lift_fresh", "rw.layout",
)  # fmt: skip
def same(call: Call, self: Any = None, input: Any = None, strides: Any = None) -> Tensor:
    """The operand itself"""
    return self if input is None else input


@converts("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout",
          needs=[OneOf("train", (False,))])  # fmt: skip
def dropout(call: Call, input: Tensor, p: float, train: bool) -> Tensor:
    """The operand itself"""
    return input


@converts("aten.native_dropout", needs=[OneOf("train", (False,))])
def native_dropout(call: Call, input: Tensor, p: float, train: bool) -> tuple[Tensor, Tensor]:
    """The operand itself, and true everywhere"""
    return input, full(call.net, True, call.sizes, torch.bool)
