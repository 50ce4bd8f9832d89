"""docs/OPERATORS.md says what the converters are."""

from __future__ import annotations

from pathlib import Path

import torch

from rewright.backends.tensorrt import declaration
from rewright.backends.tensorrt.declaration import converters
from rewright.backends.tensorrt.operators_doc import operators_doc
from rewright.backends.tensorrt.refused import REFUSED
from rewright.errors import UnsupportedError
from rewright.ir.ops import get_op, op_name

ROOT = Path(__file__).parents[3]
CORE = [
    op_name(overload)
    for packet in (getattr(torch.ops.aten, name, None) for name in dir(torch.ops.aten))
    if isinstance(packet, torch._ops.OpOverloadPacket)
    for overload in (getattr(packet, name) for name in packet.overloads())
    if torch.Tag.core in overload.tags
]


def test_document_is_up_to_date() -> None:
    assert (ROOT / "docs/OPERATORS.md").read_text() == operators_doc(), (
        "run: python -m rewright.backends.tensorrt.operators_doc > docs/OPERATORS.md"
    )


def test_every_core_operator_is_converted_or_refused_with_a_reason() -> None:
    assert len(CORE) > 150
    assert [op for op in CORE if op not in converters() and op not in REFUSED] == []


def test_nothing_is_both_converted_and_refused() -> None:
    assert converters().keys() & REFUSED.keys() == set()


def test_converters_take_parameters_that_exist() -> None:
    """Every parameter of an operator is taken, or is about memory; needs name real ones."""
    for converter in converters().values():
        try:
            op = get_op(converter.op)
        except UnsupportedError:
            continue  # a library that is not loaded here, or an older torch
        for param in op.params:
            known = param.name in converter.takes or param.name in declaration.MEANINGLESS
            assert known or _may_be_left(param), f"{converter.op} takes no {param.name}"


def _may_be_left(param) -> bool:
    """Whether nodes may leave a parameter at its default: others are refused then."""
    from rewright.ir.ops import REQUIRED

    return param.default is not REQUIRED
