"""Every converter, on torch's own samples: a real network evaluated, and a real engine built.

The quick part takes two samples of each operator in f32 and one in i64, the slow part eight in
every dtype. Each is tried with fixed sizes and with sizes that vary, at the least, a middle and the
largest of their range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
import torch

from rewright.backends.tensorrt.build import BuildOptions, build_network
from rewright.backends.tensorrt.declaration import converters, supports
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.needs import Constant, Unused
from rewright.ir.interpreter import interpret
from tests.backends.tensorrt.checking import assert_same, evaluate, rtx
from tests.backends.tensorrt.samples import (
    DTYPES,
    ELSEWHERE,
    Case,
    dynamic_case,
    samples_of,
    static_case,
)

OPS: Final = sorted(name for name in converters() if name.startswith("aten."))
QUICK: Final = {torch.float32: 2, torch.int64: 1}
CASES: Final = [
    *(pytest.param(op, dtype, QUICK[dtype], id=f"{op}-{dtype}") for op in OPS for dtype in QUICK),
    *(
        pytest.param(op, dtype, 8, id=f"{op}-{dtype}-all", marks=pytest.mark.slow)
        for op in OPS
        for dtype in DTYPES
    ),
]

SLACK: Final = {
    # torch samples at coordinates that it has rounded to the dtype of the image
    **dict.fromkeys(("aten.grid_sampler", "aten.grid_sampler_2d"), 5.0),
    # the layer has no scale, so queries are scaled (and rounded) before it
    **dict.fromkeys(
        ("aten.scaled_dot_product_attention", "aten._scaled_dot_product_flash_attention_for_cpu"),
        5.0,
    ),
}
"""How much more than the dtype's tolerance an operator may differ, and why."""

Results = Sequence[torch.Tensor]


def _shapes_only(args: Results, made: Results, expected: Results) -> None:
    """What `empty` gives: any numbers."""
    assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in expected]


def _in_order(case: Case) -> Callable[[Results, Results, Results], None]:
    """Orders may differ where elements are equal: the elements in that order may not."""
    dim = case.graph.terminator.operands[0].producer.arg("dim")  # type: ignore[union-attr]

    def compare(args: Results, made: Results, expected: Results) -> None:
        assert_same(made[:-1], expected[:-1])
        x = args[0] if args[0].dim() else args[0].reshape(1)
        ours, theirs = (index.reshape(index.shape or (1,)) for index in (made[-1], expected[-1]))
        assert_same([x.gather(dim, ours)], [x.gather(dim, theirs)])

    return compare


def _comparison(op: str, case: Case) -> Callable[[Results, Results, Results], None]:
    if "empty" in op:
        return _shapes_only
    if op in ("aten.topk", "aten.sort", "aten.argsort"):
        return _in_order(case)
    slack = SLACK.get(op, 1.0)
    return lambda args, made, expected: assert_same(made, expected, slack)


def _makers(op: str) -> tuple[Callable[..., Case | None], ...]:
    """How cases are made; offsets of bags that grow would go back, and torch checks none."""
    return (static_case,) if "embedding_bag" in op else (static_case, dynamic_case)


@pytest.mark.slow
def test_every_converter_has_samples() -> None:
    dtypes = (torch.float32, torch.int64, torch.bool)
    without = {op for op in OPS if not any(samples_of(op, dtype, 1) for dtype in dtypes)}
    assert without == ELSEWHERE


@pytest.mark.parametrize(("op", "dtype", "limit"), CASES)
def test_converter(op: str, dtype: torch.dtype, limit: int) -> None:
    """Static and dynamic networks of each sample give torch's numbers, at every size."""
    converter = converters()[op]
    fixed = [need.name for need in converter.needs if isinstance(need, Constant)]
    unused = [i for need in converter.needs if isinstance(need, Unused) for i in need.results]
    ran = 0
    for sample in samples_of(op, dtype, limit):
        for make in _makers(op):
            case = make(sample, fixed, unused)
            if case is not None and _is_taken(case):
                ran += _check(op, case, build=not ran)
    if not ran:
        pytest.skip(f"no sample of {dtype} that is taken")


def _is_taken(case: Case) -> bool:
    return all(supports(node, rtx()) is None for node in case.graph)


def _check(op: str, case: Case, build: bool) -> int:
    """Checks all calls of a case; returns how many torch itself could do."""
    calls = [(args, _torch(case, args)) for args in case.calls]
    done = [(args, expected) for args, expected in calls if expected is not None]
    if not done:
        return 0
    emitted = emit(case.graph, rtx())
    compare = _comparison(op, case)
    for args, expected in done:
        compare(args, evaluate(emitted, args), expected)
    if build:
        engine = build_network(emitted, BuildOptions(optimization_level=0))
        assert engine.data
    return len(done)


def _torch(case: Case, args: Results) -> list[Any] | None:
    """What torch gives; None where a grown input does not fit the other arguments any more."""
    try:
        return list(interpret(case.graph, [x.contiguous() for x in args]).outputs)
    except RuntimeError:
        return None
