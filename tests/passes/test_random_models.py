"""Random programs keep their numbers through every pipeline: levels 0 to 3, and those of engines.

pytest tests/passes/test_random_models.py -m slow
REWRIGHT_RANDOM_PROGRAMS=5000:20000 pytest ... -m slow      # other seeds; to go on after a stop
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import attrs
import pytest
import torch

from rewright.passes import FLOATS, Pipeline, Rule, RulePass, Tensor, aten
from rewright.passes.proof.precision import one_thread
from tests.passes.random_models import write_program
from tests.passes.running_programs import PIPELINES, Moved, Tally, check

QUICK = 150
"""Programs for CI, each through one of the pipelines: about 15 seconds."""

FIRST, LAST = map(int, os.environ.get("REWRIGHT_RANDOM_PROGRAMS", "0:20000").split(":"))
BLOCK = 500
"""Seeds of the slow test; so many programs are one test."""

EXPECTED = (
    "torch-linear torch-conv torch-matmul add-bias spell-transposition rms-norm-formula "
    "attention-formula torch-attention halves-rope merge-three drop-neutral-operand drop-slice"
).split()
"""Rules that can't be missed in so many programs."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def test_programs_are_of_many_kinds():
    graphs = [write_program(random.Random(seed)).graph for seed in range(30)]
    ops = {node.op.name for graph in graphs for node in graph.walk()}
    assert min(len(graph) for graph in graphs) >= 40
    assert len(ops) > 60, sorted(ops)
    assert sum(bool(graph.targets) for graph in graphs) > 15, "most write something back"
    results = [value for graph in graphs for node in graph for value in node.results]
    dtypes = {value.type.dtype for value in results}
    assert dtypes >= {torch.float32, torch.float16, torch.float64, torch.int64, torch.bool}


def test_numbers_stay(capsys: pytest.CaptureFixture[str]):
    tally = Tally()
    for seed in range(QUICK):
        run(seed, tally, PIPELINES[seed % len(PIPELINES)], sizes=1)
    assert tally.programs == QUICK
    assert tally.nodes > 20 * QUICK
    assert not [name for name in EXPECTED if not tally.rewrites[name]], tally
    with capsys.disabled():
        print(f"\n{tally}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, LAST, BLOCK))
def test_numbers_stay_in_many(first: int):
    tally = Tally()
    for seed in range(first, min(first + BLOCK, LAST)):
        run(seed, tally, *PIPELINES)
    print(tally)


def run(seed: int, tally: Tally, *pipelines: Pipeline | str, sizes: int = 2) -> None:
    """Checks the program of a seed, at so many sizes, and says which it is if it fails."""
    try:
        sample = write_program(random.Random(seed))
        check(attrs.evolve(sample, inputs=sample.inputs[-sizes:]), tally, *pipelines)
    except Exception as error:
        error.add_note(f"the program is write_program(random.Random({seed}))")
        raise


# --------------------------------------------------------------------------- does it see anything


class QuickGelu(Rule):
    """gelu(x)  ->  x * sigmoid(1.702 * x)      which is nearly right"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return aten.gelu(x)

    def replace(self, x):
        return x * aten.sigmoid(x * 1.702)


class NearSigmoid(Rule):
    """sigmoid(x)  ->  (1 + tanh(0.5001 * x)) / 2      which the tolerances of tests let pass"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return aten.sigmoid(x)

    def replace(self, x):
        return (aten.tanh(x * 0.5001) + 1) * 0.5


class WithQuickGelu(RulePass):
    """with one rule that is wrong"""

    rules = (QuickGelu,)


class WithNearSigmoid(RulePass):
    """with one rule that is wrong"""

    rules = (NearSigmoid,)


@pytest.mark.parametrize("wrong", [WithQuickGelu(), WithNearSigmoid()])
def test_a_wrong_rule_is_seen(wrong: RulePass):
    seen = unseen = 0
    for seed in range(100, 118):
        tally, sample = Tally(), write_program(random.Random(seed))
        try:
            check(sample, tally, Pipeline((wrong,)))
            unseen += bool(tally.rewrites)
        except Moved:
            seen += 1
    assert seen > unseen, (seen, unseen)
    assert seen > 1
