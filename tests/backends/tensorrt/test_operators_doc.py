"""docs/OPERATORS.md says what the converters are."""

from __future__ import annotations

import operator
from pathlib import Path

from rewright.backends.tensorrt import declaration
from rewright.backends.tensorrt.declaration import converters
from rewright.backends.tensorrt.operators_doc import core_operators, operators_doc
from rewright.backends.tensorrt.refused import EARLIER, NO_MEANING, REFUSED
from rewright.backends.tensorrt.sizes import ARITHMETIC, OPERATORS
from rewright.errors import UnsupportedError
from rewright.ir.ops import get_op

ROOT = Path(__file__).parents[3]
CORE = core_operators()
PEER = Path(__file__).with_name("peer_operators.txt").read_text().split()
"""What another compiler for TensorRT converts, and the core operators that it does not."""

MOST_REFUSED = 12
"""So many core operators may be neither converted nor gone before."""


def test_document_is_up_to_date() -> None:
    assert (ROOT / "docs/OPERATORS.md").read_text() == operators_doc(), (
        "run: python -m rewright.backends.tensorrt.operators_doc > docs/OPERATORS.md"
    )


def test_every_core_operator_is_converted_or_gone_before_but_for_a_few_with_a_reason() -> None:
    assert len(CORE) > 150
    without = [op for op in CORE if op not in converters() and op not in EARLIER]
    assert [op for op in without if op not in REFUSED] == []
    assert len(without) <= MOST_REFUSED
    assert set(without) == REFUSED.keys(), "refused, and none of torch's core"
    assert all(f"| `{op}` | {REFUSED[op]} |" in operators_doc() for op in without)


def test_nothing_is_both_converted_and_refused() -> None:
    tables = (converters(), REFUSED, EARLIER, NO_MEANING)
    assert sum(map(len, tables)) == len(set().union(*tables))


def test_all_that_another_compiler_converts() -> None:
    """What has a meaning outside of it is converted, gone before, or refused with a reason."""
    known = {**converters(), **REFUSED, **EARLIER, **NO_MEANING}
    sizes = {f"operator.{f.__name__}" for f in OPERATORS} | {
        f"{f.__module__.removeprefix('_')}.{f.__name__}" for f in ARITHMETIC
    }
    sizes |= {f"operator.{operator.getitem.__name__}"}  # takes one of several results: a value
    names = [name.removesuffix(".default") for name in PEER if not name.startswith("tensorrt.")]
    assert len(names) > 230
    assert [name for name in names if name not in known and name not in sizes] == []


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
