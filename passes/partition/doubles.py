"""What f64 leaves in torch although ``truncate-double`` has run.

Inputs, outputs and what is written to keep their dtypes, so that a program with f64 at its boundary
casts there, whatever is done inside. Such a cast belongs to how the program is called, not to what
it computes.
"""

from __future__ import annotations

from typing import Final

import attrs
import torch

from rewright.ir.graph import Constant, Node, Value
from rewright.ir.ops import Trait
from rewright.ir.types import TensorType

CAST: Final = "aten._to_copy"
_STAYS: Final = frozenset(
    (Trait.RANDOM, Trait.EFFECT, Trait.OPAQUE, Trait.DATA_DEPENDENT, Trait.STRUCTURAL)
)
_BITS: Final = frozenset(("aten.view.dtype", "aten.view_as_real", "aten.view_as_complex"))
"""Ops that look at how numbers are stored."""


def is_double(value: Value) -> bool:
    """Whether a value is a tensor in f64."""
    return isinstance(value.type, TensorType) and value.type.dtype is torch.float64


def may_be_narrow(node: Node) -> bool:
    """Whether f64 is a matter of precision in `node`, and not of what its op means."""
    return not (
        node.regions or node.op.name in _BITS or any(node.op.has(trait) for trait in _STAYS)
    )


@attrs.frozen
class DoubleReason:
    """Why a node with f64 stays in torch.

    Attributes:
        text: the reason.
        is_boundary: whether it is a cast of an input, or of what the program gives or writes.
    """

    text: str
    is_boundary: bool = False


_MEANS: Final = "engines have no f64, and it is part of what {} does"


def double_reason(node: Node) -> DoubleReason | None:
    """Why `node` stays, if it has f64 that narrowing leaves; None where there is no such reason."""
    if not any(map(is_double, (*node.operands, *node.results))):
        return None
    if not may_be_narrow(node):
        return DoubleReason(_MEANS.format(node.op.name))
    return _of_cast(node) if node.op.name == CAST else None


def _of_cast(cast: Node) -> DoubleReason | None:
    (taken, *_), made = cast.operands, cast.result
    if is_double(taken) and _is_outside(taken):
        text = f"{_name(taken)} is f64, and engines have none: it is cast where the program begins"
        return DoubleReason(text, is_boundary=True)
    if not is_double(made):
        meant = taken.producer
        return _around(meant) if meant is not None and not may_be_narrow(meant) else None
    if any(use.node.is_terminator for use in made.uses):
        text = "the result is f64, and engines have none: it is cast where the program ends"
        return DoubleReason(text, is_boundary=True)
    meant = next((use.node for use in made.uses if not may_be_narrow(use.node)), None)
    return None if meant is None else _around(meant)


def _around(meant: Node) -> DoubleReason:
    return DoubleReason(_MEANS.format(meant.op.name))


def _is_outside(value: Value) -> bool:
    """Whether a value comes from the caller, or from a buffer that the program writes to."""
    return value.is_input or isinstance(value, Constant)


def _name(value: Value) -> str:
    return f"@{value.name}" if isinstance(value, Constant) else f"%{value.hint or value.index}"
