"""What a runner refuses, and what it says when TensorRT does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch

from rewright.backends.tensorrt.emitter import Port, emit
from rewright.backends.tensorrt.runtime import EngineRunner, RunOptions
from rewright.errors import EngineError, InputError, SettingsError
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.checking import rtx
from tests.backends.tensorrt.double import CLASSIC, RTX, double
from tests.backends.tensorrt.host_device import HostDevice
from tests.backends.tensorrt.kept import keep
from tests.backends.tensorrt.running import (
    STATIC,
    TWO_RANGES,
    Bench,
    doubled,
    rows,
    rows_of,
)

WRONG: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "size": (lambda: [*rows_of(17)], r"dimension 0 \(s0\) of x is 17, .*@rows takes 1 to 16"),
    "sizes that differ": (
        lambda: [torch.randn(4, 8), torch.randn(5, 8)],
        r"dimension 0 \(s0\) of y is 5, but dimension 0 \(s0\) of x is 4",
    ),
    "static size": (
        lambda: [torch.randn(4, 9), torch.randn(4, 8)],
        r"dimension 1 of x is 9, but the engine takes 8 only",
    ),
    "rank": (
        lambda: [torch.randn(4, 8, 1), torch.randn(4, 8)],
        r"x must be f32\[s0, 8\] on .*, not f32\[4, 8, 1\]",
    ),
    "dtype": (
        lambda: [torch.randn(4, 8), torch.randn(4, 8).half()],
        r"y must be f32\[s0, 8\] on .*, not f16\[4, 8\]",
    ),
    "device": (
        lambda: [torch.randn(4, 8), torch.empty(4, 8, device="meta")],
        r"y must be f32\[s0, 8\] on .*, not f32\[4, 8\] on meta",
    ),
    "kind": (lambda: [torch.randn(4, 8), 3.5], r"y must be f32\[s0, 8\] on .*, not 3\.5"),
    "number of inputs": (lambda: [torch.randn(4, 8)], r"@rows takes 2 inputs, not 1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_inputs(what: str, bench: Bench) -> None:
    make, message = WRONG[what]
    graph = rows()
    runner = bench.runner(graph)
    values = [v if getattr(v, "is_meta", False) else bench.put([v])[0] for v in make()]
    with pytest.raises(InputError, match=message):
        runner.run(values)
    bench.check(runner, graph, *rows_of(4))
    assert runner.counters.contexts == 1


def test_no_profile_holds_both(bench: Bench) -> None:
    graph = parse_graph(
        "graph @two(%x: f32[s0], %y: f32[s1]) -> (f32[s0], f32[s1])\n"
        "  where s0 in {1..4, 8..9} = dim(%x, 0), s1 in {1..4, 8..9} = dim(%y, 0)\n{\n"
        "  %a = aten.sin(%x) : f32[s0]\n  %b = aten.cos(%y) : f32[s1]\n  return %a, %b\n}\n"
    )
    runner = bench.runner(graph)
    bench.check(runner, graph, torch.randn(9), torch.randn(8))
    with pytest.raises(InputError, match=r"no profile of .*@two takes x\[9\], y\[2\] together"):
        runner.run(bench.put([torch.randn(9), torch.randn(2)]))


def test_another_version(fake: Bench) -> None:
    graph = rows()
    engine = attrs.evolve(fake.make(emit(graph, rtx())), library="tensorrt 9.9.9")
    with pytest.raises(EngineError, match=r"@rows can't run here: .* built with tensorrt 9\.9\.9"):
        fake.runner(graph, engine=engine).load()


def test_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    library = double()
    runner = EngineRunner(keep(emit(rows(), rtx()), library), library, name="rows")
    with pytest.raises(EngineError, match=r"@rows can't run here: torch"):
        runner.load()


def test_another_capability() -> None:
    library = double(RTX)
    engine = keep(emit(rows(), rtx()), library)
    runner = EngineRunner(engine, library, device=HostDevice((9, 0)))
    with pytest.raises(EngineError, match=r"supports .*8\.9.*, and this GPU is a 9\.0"):
        runner.load()


def test_a_damaged_engine(fake: Bench) -> None:
    graph = rows()
    engine = attrs.evolve(fake.make(emit(graph, rtx())), data=b"nothing")
    with pytest.raises(EngineError, match=r"load the engine of @rows: .*damaged") as error:
        fake.runner(graph, engine=engine).load()
    assert ("MALFORMED_ENGINE" in error.value.message) == fake.library.is_rtx


def test_the_engine_of_another_graph(fake: Bench) -> None:
    graph, other = rows(), parse_graph(STATIC)
    engine, wrong = (fake.make(emit(each, rtx())) for each in (graph, other))
    mixed = attrs.evolve(engine, data=wrong.data)
    with pytest.raises(EngineError, match=r"engine of @rows has .*the graph has"):
        fake.runner(graph, engine=mixed).load()
    port = engine.inputs[0]
    ports = (Port(port.name, wrong.inputs[0].value), *engine.inputs[1:])
    with pytest.raises(EngineError, match=r"x is f32\[-1, 8\] in the engine .*, and f16"):
        fake.runner(graph, engine=attrs.evolve(engine, inputs=ports)).load()


LOADING = {"Runtime.deserialize_cuda_engine", "ICudaEngine.create_execution_context"}
RUNNING = {
    "IExecutionContext.set_input_shape", "IExecutionContext.set_tensor_address",
    "IExecutionContext.infer_shapes", "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_optimization_profile_async",
    "IExecutionContext.update_device_memory_size_for_shapes",
    "IExecutionContext.set_device_memory",
}  # fmt: skip
CONFIGURING = {
    "ICudaEngine.create_runtime_config", "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.set_runtime_cache",
}  # fmt: skip


FAILURES = [(RTX, member) for member in sorted(LOADING | CONFIGURING)]
FAILURES += [(CLASSIC, member) for member in sorted(LOADING)]


@pytest.mark.parametrize(("version", "member"), FAILURES)
def test_loading_fails(version: str, member: str) -> None:
    fake = doubled(version)
    graph, module = rows(), fake.library.module
    runner = fake.runner(graph)
    module.failing[member] = "the moon is full"
    for _ in range(2):
        with pytest.raises(EngineError, match=r"could not .* of @rows: the moon is full"):
            runner.load()
    module.failing.clear()
    fake.check(runner, graph, *rows_of(4))


@pytest.mark.parametrize("member", sorted(RUNNING))
def test_running_fails(member: str, fake: Bench) -> None:
    """The error has TensorRT's text; the next call has a context in a known state, and is right."""
    graph, module = rows(TWO_RANGES), fake.library.module
    runner = fake.runner(graph, RunOptions(contexts=1, shares_scratch="memory" in member))
    fake.check(runner, graph, *rows_of(4))
    module.failing[member] = "the moon is full"
    with pytest.raises(EngineError, match=r"could not .* of @rows: the moon is full") as error:
        runner.run(rows_of(25))
    assert error.value.engine == "rows"
    module.failing.clear()
    for n in (25, 4):
        fake.check(runner, graph, *rows_of(n))


def test_what_is_only_logged_is_an_error_too(fake: Bench) -> None:
    graph = rows()
    engine = keep(emit(graph, rtx()), fake.library, streamable=1000)
    runner = fake.runner(graph, RunOptions(weight_budget=-1), engine)
    with pytest.raises(EngineError, match=r"could not limit the weights of @rows: the budget"):
        runner.load()
    fake.runner(graph, RunOptions(weight_budget=500), engine).load()


def test_a_budget_for_weights_that_can_not_be_streamed(fake: Bench) -> None:
    with pytest.raises(SettingsError, match="can't stream its weights"):
        fake.runner(rows(), RunOptions(weight_budget=500)).load()
