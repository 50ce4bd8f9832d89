"""Whatever the passes of the library do to a random graph, its numbers stay."""

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings

from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.verifier import verify
from rewright.passes import EXACT, REFOLD, Exactness, Pipeline
from tests.ir.programs import Program, programs
from tests.passes.random_graphs import Case, cases

ALL = "decompose,repeat{max=4}(canonicalize,cse,fold-constants{generated=True},dce)"
PIPELINES = {
    "canonicalize": "canonicalize",
    "fold": "fold-constants",
    "decompose": "decompose",
    "all": ALL,
}


def few(examples: int):
    """Settings of a test that builds graphs, which takes its time."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, deadline=None, suppress_health_check=quiet)


def keeps_its_numbers(
    graph: Graph, runs, pipeline: str, exactness: Exactness = REFOLD, rtol: float = 1e-5
) -> Graph:
    """`graph` after the pipeline, on which each of `runs` gives what it gave before."""
    after = graph.copy()
    Pipeline.parse(pipeline).run(after, exactness=exactness)
    verify(after, retype=True)
    for inputs in runs:
        try:
            expected = interpret(graph, inputs)
        except (NotImplementedError, RuntimeError, IndexError):  # types say less than kernels do
            reject()
        found = interpret(after, inputs)
        pairs = zip(
            (*expected.outputs, *expected.writebacks),
            (*found.outputs, *found.writebacks),
            strict=True,
        )
        for old, new in pairs:
            if not isinstance(old, torch.Tensor):
                assert old == new
            elif exactness == EXACT:
                assert torch.equal(bits(old), bits(new)), f"{old} became {new}"
            else:
                tolerance = {torch.float16: 5e-3}.get(old.dtype, rtol)
                torch.testing.assert_close(
                    new, old, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False
                )
    return after


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """What tells numbers apart, zeros of two signs too; all nans are one."""
    if not tensor.is_floating_point():
        return tensor
    sign = torch.where(tensor.isnan(), 0.0, torch.signbit(tensor).to(tensor.dtype))
    return torch.stack([tensor.nan_to_num(12345.0, 1e30, -1e30).to(torch.float64), sign.double()])


@pytest.mark.parametrize("name", PIPELINES)
@few(60)
@given(case=cases())
def test_numbers_stay(name: str, case: Case):
    keeps_its_numbers(case.graph, case.inputs, PIPELINES[name])


@few(100)
@given(case=cases())
def test_bits_stay_where_they_have_to(case: Case):
    keeps_its_numbers(case.graph, case.inputs, "repeat{max=4}(canonicalize,cse,dce)", EXACT)


@few(30)
@given(program=programs())
def test_write_backs_regions_and_specs_stay(program: Program):
    after = keeps_its_numbers(program.graph, [program.inputs], ALL)
    assert len(after.results) == len(program.graph.results)
    assert len(after.targets) == len(program.graph.targets)


@few(40)
@given(case=cases())
def test_a_second_run_changes_nothing(case: Case):
    pipeline = Pipeline.parse("repeat{max=8}(canonicalize,cse,fold-constants,dce)")
    pipeline.run(case.graph)
    assert not pipeline.run(case.graph).changed


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
@few(3000)
@given(case=cases(moves=40))
def test_numbers_stay_in_many_graphs(name: str, case: Case):
    keeps_its_numbers(case.graph, case.inputs, PIPELINES[name])


@pytest.mark.slow
@few(5000)
@given(case=cases(moves=40))
def test_bits_stay_in_many_graphs(case: Case):
    keeps_its_numbers(case.graph, case.inputs, "repeat{max=4}(canonicalize,cse,dce)", EXACT)
