"""Layers that compute each element from the elements at its place: unary, elementwise, activation,
select, cast, identity, scale, parametric ReLU.

The formulas are those of the enums' docstrings in TensorRT's binding. Tables are keyed by the names
of the enums' members.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from rewright.testing.layer import Layer
from rewright.testing.precision import in_float32, wide

__all__ = [
    "activation",
    "cast",
    "elementwise",
    "identity",
    "parametric_relu",
    "scale",
    "select",
    "unary",
]

Tensor: TypeAlias = torch.Tensor

# ---------------------------------------------------------------- unary

#: What also takes integers.
_UNARY_EXACT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ABS": torch.abs,
    "NEG": torch.neg,
    "NOT": torch.logical_not,
    "SIGN": lambda x: torch.where(x == x, torch.sign(x), x),  # NaN stays NaN
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}

_UNARY_FLOAT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "ROUND": torch.round,  # half to even
}


def unary(layer: Layer, x: Tensor) -> Tensor:
    """``op(x)`` for x of any shape."""
    op = layer.option("op")
    if op in _UNARY_EXACT:
        return _UNARY_EXACT[op](x)
    if op not in _UNARY_FLOAT:
        raise layer.refuse(f"unary operation {op} is not known here")
    if not x.is_floating_point():
        raise layer.refuse(f"{op} of {x.dtype} has no documented meaning")
    return in_float32(_UNARY_FLOAT[op])(x)


# ---------------------------------------------------------------- elementwise


def _divide(a: Tensor, b: Tensor, rounding: str | None) -> Tensor:
    """``a / b``; of integers rounded as ``rounding`` says, to zero by default.

    TensorRT does not say what an integer divided by 0 is; 0 here, instead of torch's exception.
    """
    if a.is_floating_point():
        return a / b if rounding is None else torch.floor(a / b)
    # The least integer by -1 overflows, which stops the process on x86.
    special = (b == 0) | (b == -1)
    out = torch.div(a, torch.where(special, 1, b), rounding_mode=rounding or "trunc")
    return torch.where(b == 0, 0, torch.where(b == -1, -a, out))


def _power(a: Tensor, b: Tensor) -> Tensor:
    """``a ** b``; of integers the real power rounded to zero, so 7 ** -2 is 0."""
    if a.is_floating_point():
        return torch.pow(a, b)
    positive = torch.pow(a, b.clamp(min=0))
    # |a| = 1 is the one base whose negative powers are integers; 0 has none.
    negative = torch.where(a == 1, 1, torch.where(a == -1, 1 - 2 * (b & 1), 0)).to(a.dtype)
    return torch.where(b < 0, negative, positive)


_ELEMENTWISE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    # Where either is NaN, the first: so TensorRT's arithmetic on the host has it.
    "MAX": lambda a, b: torch.where(a < b, b, a),
    "MIN": lambda a, b: torch.where(b < a, b, a),
    "SUB": torch.sub,
    "DIV": lambda a, b: _divide(a, b, None),
    "FLOOR_DIV": lambda a, b: _divide(a, b, "floor"),
    "POW": _power,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}


def elementwise(layer: Layer, a: Tensor, b: Tensor) -> Tensor:
    """``op(a, b)`` of one dtype and one rank; sizes of 1 broadcast."""
    op = layer.option("op")
    if op not in _ELEMENTWISE:
        raise layer.refuse(f"elementwise operation {op} is not known here")
    if a.dtype != b.dtype or a.dim() != b.dim():
        raise layer.refuse(f"operands {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}")
    return in_float32(_ELEMENTWISE[op])(a, b)


# ---------------------------------------------------------------- activation


def _clip(x: Tensor, low: float, high: float) -> Tensor:
    """``max(low, min(high, x))``; ``high`` for NaN, as TensorRT's arithmetic on the host has it."""
    below = torch.where(x < high, x, high)
    return torch.where(below > low, below, low)


_ACTIVATION: Mapping[str, Callable[[Tensor, float, float], Tensor]] = {
    "RELU": lambda x, a, b: x.clamp(min=0),
    "SIGMOID": lambda x, a, b: torch.sigmoid(x),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "ELU": lambda x, a, b: torch.where(x >= 0, x, a * torch.expm1(x)),
    "SELU": lambda x, a, b: b * torch.where(x > 0, x, a * torch.expm1(x)),
    "SOFTSIGN": lambda x, a, b: x / (1 + x.abs()),
    # As written, so it overflows where exp does: TensorRT's arithmetic on the host does, too.
    "SOFTPLUS": lambda x, a, b: a * torch.log(torch.exp(b * x) + 1),
    "CLIP": lambda x, a, b: _clip(x, a, b),
    "HARD_SIGMOID": lambda x, a, b: _clip(a * x + b, 0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: torch.where(x > a, x, 0),
    "GELU_ERF": lambda x, a, b: 0.5 * x * (1 + torch.erf(math.sqrt(0.5) * x)),
    "GELU_TANH": lambda x, a, b: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (0.044715 * x**3 + x)))
    ),
}


def activation(layer: Layer, x: Tensor) -> Tensor:
    """``f(x; alpha, beta)`` for x of any shape; integers only for RELU."""
    kind = layer.option("type")
    if kind not in _ACTIVATION:
        raise layer.refuse(f"activation {kind} is not known here")
    if not x.is_floating_point() and kind != "RELU":
        raise layer.refuse(f"{kind} of {x.dtype} has no documented meaning")
    return in_float32(_ACTIVATION[kind])(x, layer.native.alpha, layer.native.beta)


def parametric_relu(layer: Layer, x: Tensor, slopes: Tensor) -> Tensor:
    """x where it is at least 0, else ``slopes * x``; slopes broadcast to x."""
    return in_float32(lambda x, slopes: torch.where(x >= 0, x, slopes * x))(x, slopes)


# ---------------------------------------------------------------- the rest


def select(layer: Layer, condition: Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
    """``then`` where ``condition`` (bool) holds, else ``otherwise``; sizes of 1 broadcast."""
    return torch.where(condition, then, otherwise)


def cast(layer: Layer, x: Tensor) -> Tensor:
    """x in ``to_type``: floats to integers by truncation, wide integers to narrow ones by their low
    bits, anything to bool by ``x != 0``. Floats beyond i32 or i64 become its least or greatest
    number, as TensorRT's arithmetic on the host has it.
    """
    return _converted(layer, x)


def identity(layer: Layer, x: Tensor) -> Tensor:
    """x, converted where the output has another dtype."""
    return _converted(layer, x)


def _converted(layer: Layer, x: Tensor) -> Tensor:
    if (kind := layer.output_kind()) == layer.input_kind():
        return x
    if {kind, layer.input_kind()} & {"FP8", "INT4", "FP4", "E8M0"}:
        raise layer.refuse(f"{kind} comes of a quantize layer only")
    dtype = layer.output_dtype()
    out = x.to(dtype)
    if x.is_floating_point() and dtype in (torch.int32, torch.int64):
        limits = torch.iinfo(dtype)
        # The greatest integer is no float; the one after it is.
        out = torch.where(x.double() >= float(limits.max), limits.max, out)
        out = torch.where(x.double() <= float(limits.min), limits.min, out)
    return out


def scale(layer: Layer, x: Tensor) -> Tensor:
    """``(x * scale + shift) ** power``, with coefficients of the whole tensor, of each channel
    along ``channel_axis``, or of each element of a batch item.
    """
    mode = layer.option("mode")
    axis = layer.native.channel_axis
    shapes = {
        "UNIFORM": (1,) * x.dim(),
        "CHANNEL": tuple(size if d == axis else 1 for d, size in enumerate(x.shape)),
        "ELEMENTWISE": tuple(size if d >= axis else 1 for d, size in enumerate(x.shape)),
    }
    if mode not in shapes:
        raise layer.refuse(f"scale mode {mode} is not known here")
    y = wide(x)
    coefficients = [layer.weights(role, shapes[mode]) for role in ("scale", "shift", "power")]
    factor, shift, power = (None if each is None else wide(each) for each in coefficients)
    if factor is not None:
        y = y * factor
    if shift is not None:
        y = y + shift
    return (y if power is None else y.pow(power)).to(x.dtype)
