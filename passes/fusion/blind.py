"""Whether a mask that is added to scores may hide all keys of a query with -inf.

What is added is followed back to where it comes from, through what moves, picks and adds numbers.
An input or a buffer may hold -inf; a parameter, and what is computed by products, is taken to be
finite: -inf there is a failure of the model, and not a mask.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from rewright.ir.attributes import leaves
from rewright.ir.graph import Constant, Value
from rewright.ir.types import TensorType
from rewright.passes.fusion.masks import leaves_something_seen

_INFINITE: Final = frozenset(("aten.log", "aten.log2", "aten.log10", "aten.log1p", "aten.logit"))
_FINITE: Final = frozenset(
    (
        "aten.linear", "aten.matmul", "aten.bmm", "aten.mm", "aten.baddbmm", "aten.conv2d",
        "aten.softmax.int", "aten.sigmoid", "aten.tanh", "aten.exp", "aten.cos", "aten.sin",
        "aten.gelu", "aten.relu", "aten.silu", "rw.linear", "rw.matmul", "rw.conv", "rw.layer_norm",
        "rw.rms_norm", "aten.layer_norm", "aten.rms_norm",
    )
)  # fmt: skip
"""Ops whose results are finite where models work."""


def may_blind(mask: Value) -> bool:
    """Whether `mask`, in floats, may add -inf to all scores of a query."""
    return _Origins().may_be_infinite(mask) and not leaves_something_seen(mask)


class _Origins:
    """One walk over what a mask is made from."""

    def __init__(self) -> None:
        self.known: dict[tuple[Value, float], bool] = {}

    def may_be_infinite(self, value: Value, lowest: float = -math.inf) -> bool:
        """Whether an element of `value` may be -inf, or end as that.

        Args:
            value: of any type; other than floats are finite.
            lowest: a number below it becomes -inf on the way to the mask.
        """
        if not isinstance(value.type, TensorType) or not value.type.dtype.is_floating_point:
            return False
        lowest = max(lowest, torch.finfo(value.type.dtype).min)
        key = value, lowest
        if key not in self.known:
            self.known[key] = True  # if it is too deep to say
            self.known[key] = self.look(value, lowest)
        return self.known[key]

    def look(self, value: Value, lowest: float) -> bool:
        if isinstance(value, Constant):
            if value.is_source:
                return value.kind != "parameter"
            return self.may_be_infinite(value.graph.recipe(value), lowest)
        node = value.producer
        if node is None or node.regions or node.op.name in _INFINITE:
            return True
        if node.op.name in _FINITE:
            return False
        return any(self.argument(leaf, lowest) for leaf in _leaves(node.arguments()))

    def argument(self, leaf: Any, lowest: float) -> bool:
        if isinstance(leaf, Value):
            return self.may_be_infinite(leaf, lowest)
        return isinstance(leaf, float) and leaf < lowest


def _leaves(arguments: Any) -> Any:
    return (leaf for item in arguments.values() for leaf in leaves(item))
