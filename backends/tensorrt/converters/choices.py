"""Choices, limits, gates, casts, and what does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from rewright.backends.tensorrt import formulas
from rewright.backends.tensorrt.converters.common import (
    ANY,
    operand,
    wide,
)
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import COMPUTED, FLOATS, NUMBERS
from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.filling import full
from rewright.backends.tensorrt.needs import OneOf, Query, That
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.types import TensorType

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


@converts(
    "rw.gated",
    dtypes={"out": FLOATS},
    needs=[OneOf("activation", ("silu", "gelu", "gelu_tanh", "relu", "sigmoid"))],
)
@wide
def gated(call: Call, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up"""
    return _GATES[activation](gate) * up


_GATES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "silu": lambda x: x * formulas.sigmoid(x),
    "gelu": lambda x: x.activation(Act.GELU_ERF),
    "gelu_tanh": lambda x: x.activation(Act.GELU_TANH),
    "relu": lambda x: x.activation(Act.RELU),
    "sigmoid": formulas.sigmoid,
}


# --------------------------------------------------------------------------- casts


def _is_computed_or_returned(query: Query) -> bool:
    """Whether nothing takes what is cast to ``u8``: in a network, only its ports have that."""
    (out,) = query.node.results
    is_byte = isinstance(out.type, TensorType) and out.type.dtype is torch.uint8
    return not is_byte or (out.has_uses and all(use.node.is_terminator for use in out.uses))


@converts("aten._to_copy", "prims.convert_element_type", "aten.to.dtype",
          dtypes={"self": COMPUTED | {torch.uint8}, "a": COMPUTED | {torch.uint8},
                  "out": COMPUTED | {torch.uint8}},
          needs=[That("a result that is only returned, where it is u8",
                      _is_computed_or_returned)])  # fmt: skip
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
    "aten.alias_copy", "aten.detach_copy", "aten.lift_fresh", "rw.layout", dtypes=ANY,
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
