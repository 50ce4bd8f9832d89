"""The floating dtypes of values, and which of them a lowering may exchange."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs
import torch

from rewright.ir.graph import Node, Value
from rewright.ir.types import TensorType, Type

PRECISIONS: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtype that each word of the setting stands for."""

EXCHANGED: Final = frozenset(PRECISIONS.values())
"""The dtypes that are exchanged for one another; whoever computes in f64 or in 8 bits means it."""

NARROW: Final = EXCHANGED - {torch.float32}


def float_of(value: Value) -> torch.dtype | None:
    """The dtype of a tensor of floating-point or complex numbers; None for anything else."""
    held = value.type
    if isinstance(held, TensorType) and (held.dtype.is_floating_point or held.dtype.is_complex):
        return held.dtype
    return None


def floats_of(values: Iterable[Value]) -> frozenset[torch.dtype]:
    """The dtypes of those of `values` that hold such numbers."""
    return frozenset(dtype for value in values if (dtype := float_of(value)) is not None)


def in_dtype(old: Type, dtype: torch.dtype) -> Type:
    """`old` with `dtype`, if its own is one that is exchanged."""
    if isinstance(old, TensorType) and old.dtype in EXCHANGED:
        return attrs.evolve(old, dtype=dtype)
    return old


def is_float_cast(node: Node) -> bool:
    """Whether `node` does nothing but turn one dtype that is exchanged into another."""
    return (
        node.op.name == "aten._to_copy"
        and [*node.attributes] == ["self", "dtype"]
        and float_of(node.operands[0]) in EXCHANGED
        and float_of(node.result) in EXCHANGED
    )
