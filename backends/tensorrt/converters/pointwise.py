"""Functions of one tensor: tables, a line for each op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from rewright.backends.tensorrt import formulas
from rewright.backends.tensorrt.converters.common import (
    FLOAT_OUT,
    wide,
)
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS, INTEGERS, NUMBERS
from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import OneOf, Unused
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


_SELU: Final = (1.6732632423543772, 1.0507009873554805)
"""SELU's alpha and scale (Klambauer et al., 2017)."""

FORMULAS: Final[dict[str, tuple[str, Callable[[Tensor], Tensor]]]] = {
    "deg2rad": ("x * π/180", lambda x: x * (math.pi / 180)),
    "erfc": ("1 - erf(x)", lambda x: 1.0 - x.unary(Unary.ERF)),
    "exp2": ("exp(x * log 2)", lambda x: formulas.exp(x * math.log(2))),
    "expm1": ("tanh(x/2) * (exp(x) + 1)", formulas.expm1),
    "hardswish": ("x * relu6(x + 3) / 6", lambda x: x * formulas.relu6(x + 3.0) * (1 / 6)),
    "log10": ("log(x) / log 10", lambda x: formulas.log(x) * (1 / math.log(10))),
    "log1p": ("log(u) * x / (u - 1), u = 1 + x", formulas.log1p),
    "log2": ("log(x) / log 2", lambda x: formulas.log(x) * (1 / math.log(2))),
    "mish": (
        "x * tanh(softplus(x))",
        lambda x: x * formulas.softplus(x).activation(Act.TANH),
    ),
    "rad2deg": ("x * 180/π", lambda x: x * (180 / math.pi)),
    "relu6": ("min(max(x, 0), 6)", formulas.relu6),
    "rsqrt": ("1 / sqrt(x)", lambda x: x.unary(Unary.SQRT).unary(Unary.RECIP)),
    "selu": ("SELU", lambda x: x.activation(Act.SELU, alpha=_SELU[0], beta=_SELU[1])),
    "silu": ("x * sigmoid(x)", lambda x: x * formulas.sigmoid(x)),
    "sinc": ("sin(πx) / πx", lambda x: formulas.sinc(x * math.pi)),
    "square": ("x * x", lambda x: x * x),
}
"""Floating-point functions of one tensor: in words, and on tensors."""


def _formula(compute: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return wide(lambda call, self: compute(self))


for _name, (_words, _compute) in FORMULAS.items():
    converts(f"aten.{_name}", dtypes=FLOAT_OUT, formula=_words)(_formula(_compute))


@converts(
    "aten.log_sigmoid_forward",
    dtypes={"self": FLOATS, "out": FLOATS},
    needs=[Unused((1,), "what only a gradient needs")],
)
def log_sigmoid(call: Call, self: Tensor) -> tuple[Tensor, None]:
    """min(x, 0) - log1p(exp(-|x|))"""
    return formulas.log_sigmoid(self.wide()).to(call.dtype), None


@converts("aten.trunc", "aten.fix", dtypes={"self": NUMBERS})
def trunc(call: Call, self: Tensor) -> Tensor:
    """sign(x) * floor(|x|)"""
    return self if self.dtype in INTEGERS else formulas.trunc(self)


@converts("aten.frac", dtypes={"self": FLOATS})
@wide
def frac(call: Call, self: Tensor) -> Tensor:
    """x - trunc(x)"""
    return self - formulas.trunc(self)


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
    negative = formulas.expm1(self.clamp(None, 0.0) * float(input_scale)) * float(alpha)
    return (self.clamp(0.0) + negative) * float(scale)


@converts("aten.celu", dtypes={"self": FLOATS})
@wide
def celu(call: Call, self: Tensor, alpha: float) -> Tensor:
    """max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)"""
    return self.clamp(0.0) + formulas.expm1(self.clamp(None, 0.0) * (1 / alpha)) * float(alpha)


@converts("aten.softplus", dtypes={"self": FLOATS})
@wide
def softplus(call: Call, self: Tensor, beta: float, threshold: float) -> Tensor:
    """log1p(exp(beta * x)) / beta; x where beta * x > threshold"""
    scaled = self * float(beta)
    return (scaled > float(threshold)).where(self, formulas.softplus(scaled) * (1 / beta))


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
    return formulas.log(x / (1.0 - x))


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
