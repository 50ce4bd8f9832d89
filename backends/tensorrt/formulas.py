"""Formulas that several converters are made of, on tensors of floats."""

from __future__ import annotations

import math

from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.tensor import Tensor


def trunc(x: Tensor) -> Tensor:
    """Towards zero."""
    return x.unary(Unary.SIGN) * x.unary(Unary.ABS).unary(Unary.FLOOR)


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return x.activation(Act.SIGMOID)


def exp(x: Tensor) -> Tensor:
    """``e^x``."""
    return x.unary(Unary.EXP)


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return x.unary(Unary.LOG)


def expm1(x: Tensor) -> Tensor:
    """``tanh(x/2) * (exp(x) + 1)``, which keeps its digits near 0."""
    return (x * 0.5).activation(Act.TANH) * (exp(x) + 1.0)


def log1p(x: Tensor) -> Tensor:
    """``log(u) * x / (u - 1)`` of ``u = 1 + x``, which keeps its digits near 0 (Kahan)."""
    u = x + 1.0
    exact = u.equal(1.0)
    ratio = log(u) * (x / exact.where(1.0, u - 1.0))
    infinite = u.equal(math.inf)
    return exact.where(x, infinite.where(math.inf, ratio))


def relu6(x: Tensor) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return x.clamp(0.0, 6.0)


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, without overflow."""
    return x.clamp(0.0) + log1p(exp(-x.unary(Unary.ABS)))


def log_sigmoid(x: Tensor) -> Tensor:
    """``log(sigmoid(x))``."""
    return -softplus(-x)


def sinc(x: Tensor) -> Tensor:
    """``sin(x) / x``, 1 at 0."""
    zero = x.equal(0.0)
    return zero.where(1.0, x.unary(Unary.SIN) / zero.where(1.0, x))
