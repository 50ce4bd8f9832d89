"""Running engines: the same tests on a double of TensorRT's runtime, and on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.runtime import RunOptions
from rewright.errors import EngineError, InputError
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.checking import assert_same, rtx
from tests.backends.tensorrt.double import VERSIONS
from tests.backends.tensorrt.kept import keep
from tests.backends.tensorrt.running import (
    EMPTY,
    NUMBERS,
    STATIC,
    TWO_RANGES,
    Bench,
    doubled,
    places,
    rows,
    rows_of,
)


def test_static(bench: Bench) -> None:
    graph = parse_graph(STATIC)
    runner = bench.runner(graph)
    runner.load()
    for _ in range(3):
        mask = torch.rand(8) > 0.5
        bench.check(runner, graph, torch.randn(4, 8).half(), mask)
    assert (runner.counters.runs, runner.counters.bindings, runner.counters.contexts) == (3, 1, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version(version: str) -> None:
    fake, graph = doubled(version), rows(TWO_RANGES)
    runner = fake.runner(graph)
    for n in (3, 25):
        fake.check(runner, graph, *rows_of(n))
    assert (runner.runtime_cache() is not None) == fake.library.is_rtx


def test_shapes_are_bound_once(bench: Bench) -> None:
    graph = rows()
    runner = bench.runner(graph)
    for n in (2, 2, 2, 16, 16, 2, 2):
        bench.check(runner, graph, *rows_of(n))
    counters = runner.counters
    assert (counters.runs, counters.plans, counters.bindings, counters.contexts) == (7, 2, 3, 1)


def test_tensorrt_is_asked_no_more_than_needed(fake: Bench) -> None:
    graph = rows()
    runner = fake.runner(graph)
    calls = fake.library.module.calls
    inputs = rows_of(2)
    runner.run(inputs)
    before = calls.copy()
    kept = [runner.run(inputs) for _ in range(4)]
    done = calls - before
    assert done.pop("execute_async_v3") == 4
    # The inputs are the same; each call has outputs of its own.
    assert done.pop("set_tensor_address") <= 2 * len(kept)
    assert not done
    runner.run(rows_of(3))
    runner.run(rows_of(2))
    assert (calls - before)["infer_shapes"] == 1  # for 3 rows; for 2 it is known
    assert (calls - before)["set_input_shape"] == 4


def test_shared_scratch(bench: Bench) -> None:
    graph = rows(TWO_RANGES)
    runner = bench.runner(graph, RunOptions(shares_scratch=True))
    for n in (2, 30, 2, 2, 16):
        bench.check(runner, graph, *rows_of(n))


@pytest.mark.parametrize("version", VERSIONS)
def test_shared_scratch_in_every_version(version: str) -> None:
    """It is measured for each new shape, and given at each run."""
    fake, graph = doubled(version), rows()
    runner = fake.runner(graph, RunOptions(shares_scratch=True))
    for n in (2, 2, 16, 2):
        fake.check(runner, graph, *rows_of(n))
    calls = fake.library.module.calls
    assert calls["set_device_memory"] == 4
    assert calls["update_device_memory_size_for_shapes"] >= 3


def test_outputs_are_the_callers(bench: Bench) -> None:
    graph = rows()
    runner = bench.runner(graph)
    first = bench.check(runner, graph, *rows_of(4))
    copies = [output.clone() for output in first]
    bench.check(runner, graph, *rows_of(4))
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


def test_several_profiles(bench: Bench) -> None:
    graph = rows(TWO_RANGES)
    runner = bench.runner(graph)
    for n in (1, 30, 20, 16, 5):
        bench.check(runner, graph, *rows_of(n))
    with pytest.raises(InputError, match=r"\(s0\) of x is 18.*takes 1 to 16 or 20 to 30"):
        runner.run(bench.put(rows_of(18)))


def test_profiles_are_switched_only_where_needed(fake: Bench) -> None:
    runner = fake.runner(rows(TWO_RANGES))
    for n in (1, 16, 20, 21, 30, 2):
        runner.run(rows_of(n))
    assert fake.library.module.calls["set_optimization_profile_async"] == 2


def test_numbers(bench: Bench) -> None:
    graph = parse_graph(NUMBERS)
    runner = bench.runner(graph)
    for n, factor in ((3, 2.0), (3, -1.0), (8, 0.5), (3, 2.0)):
        bench.check(runner, graph, torch.randn(4), n, factor)
    with pytest.raises(InputError, match=r"the value of n is 9.*takes 1 to 8"):
        runner.run(bench.put([torch.randn(4), 9, 1.0]))
    with pytest.raises(InputError, match=r"n must be a number \(int\), not 'three'|a str"):
        runner.run(bench.put([torch.randn(4), "three", 1.0]))


def test_an_output_that_is_a_number(bench: Bench) -> None:
    graph = parse_graph(
        "graph @size(%x: f32[s0, 2]) -> (f32[s0, 2], int(2*s0))\n"
        "  where s0 in {1..8} = dim(%x, 0)\n{\n"
        "  %a = aten.sin(%x) : f32[s0, 2]\n"
        "  %n = rw.scalar(value=2*s0) : int(2*s0)\n  return %a, %n\n}\n"
    )
    runner = bench.runner(graph)
    x = torch.randn(5, 2)
    sines, number = runner.run(bench.put([x]))
    assert_same([sines.cpu()], [x.sin()])
    assert number == 10 and isinstance(number, int)


def test_empty_tensors(bench: Bench) -> None:
    graph = parse_graph(EMPTY)
    runner = bench.runner(graph)
    for n in (0, 2, 0):
        bench.check(runner, graph, torch.randn(n, 4), torch.randn(3, 4))


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.randn(8, 4).t(),
    "every other": lambda: torch.randn(8, 8)[::2],
    "expanded": lambda: torch.randn(1, 8).expand(4, 8),
    "offset": lambda: torch.randn(33)[1:].view(4, 8),
    "negated": lambda: torch.randn(4, 8, dtype=torch.complex64).conj().imag,
    "that needs gradients": lambda: torch.randn(4, 8, requires_grad=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, bench: Bench) -> None:
    graph = rows()
    runner = bench.runner(graph)
    x, y = LAYOUTS[layout](), torch.randn(4, 8)
    found = runner.run([x.to(bench.device.torch_device), *bench.put([y])])
    expected = interpret(graph, [x.detach().resolve_neg().contiguous(), y]).outputs
    assert_same([output.cpu() for output in found], expected)
    assert not any(output.requires_grad for output in found)


def test_inputs_are_not_changed(bench: Bench) -> None:
    runner = bench.runner(rows())
    inputs = bench.put(rows_of(4))
    copies = [given.clone() for given in inputs]
    runner.run(inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_an_input_that_nothing_uses(fake: Bench) -> None:
    graph = parse_graph(
        "graph @one(%x: f32[2], %unused: f32[3], %y: f32[2]) -> f32[2]\n{\n"
        "  %a = aten.sub.Tensor(%x, %y) : f32[2]\n  return %a\n}\n"
    )
    emitted = emit(graph, rtx())
    engine = keep(emitted, fake.library)
    runner = fake.runner(graph, engine=engine)
    fake.check(runner, graph, torch.randn(2), torch.randn(3), torch.randn(2))


def test_sizes_that_only_the_run_tells(fake: Bench) -> None:
    graph, engine = places(fake)
    runner = fake.runner(graph, engine=engine)
    kept = []
    for count in (5, 0, 16, 5):
        x = torch.zeros(16)
        x[torch.randperm(16)[:count]] = 1.0
        x = x.view(4, 4)
        (found,) = runner.run([x])
        kept.append((found, x.nonzero()))
    for found, expected in kept:  # later runs wrote elsewhere
        assert torch.equal(found, expected)
    assert fake.library.module.calls["set_output_allocator"] == 1


def test_no_memory_for_an_output(fake: Bench) -> None:
    graph, engine = places(fake)
    runner = fake.runner(graph, engine=engine)
    fake.device.no_memory = True
    with pytest.raises(EngineError, match=r"no memory for out0.*@places: out of memory"):
        runner.run([torch.ones(4, 4)])
    fake.device.no_memory = False
    assert len(runner.run([torch.ones(4, 4)])[0]) == 16


def test_shapes_kept_are_bounded(fake: Bench) -> None:
    graph = rows()
    runner = fake.runner(graph, RunOptions(shapes=2))
    for n in (1, 2, 3, 1, 2, 3):
        fake.check(runner, graph, *rows_of(n))
    assert runner.counters.plans == 6
    for n in (3, 2, 3, 2):
        fake.check(runner, graph, *rows_of(n))
    assert runner.counters.plans == 6


def test_closing_and_running_again(bench: Bench) -> None:
    graph = rows()
    runner = bench.runner(graph)
    bench.check(runner, graph, *rows_of(4))
    runner.close()
    bench.check(runner, graph, *rows_of(4))
    assert runner.counters.contexts == 2
