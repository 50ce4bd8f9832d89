"""Running engines: the same tests on a double of TensorRT's runtime, and on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import torch

from rewright.backends.tensorrt.build import Engine, build_network
from rewright.backends.tensorrt.device import CudaDevice
from rewright.backends.tensorrt.emitter import Emitted, Port, emit
from rewright.backends.tensorrt.library import Library, choose
from rewright.backends.tensorrt.network import Network
from rewright.backends.tensorrt.runtime import EngineRunner, RunOptions
from rewright.errors import EngineError, InputError, SettingsError
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.checking import assert_same, rtx
from tests.backends.tensorrt.double import CLASSIC, RTX, VERSIONS, HostDevice, double, keep

ONE_RANGE = "s0 in {1..16}"
TWO_RANGES = "s0 in {1..16, 20..30}"

ROWS = """\
graph @rows(%x: f32[s0, 8], %y: f32[s0, 8]) -> (f32[s0, 8], f32[8, s0])
  where {ranges} = dim(%x, 0)
{{
  %a = rw.linear(%x, @w) : f32[s0, 8]
  %b = aten.add.Tensor(%a, %y) : f32[s0, 8]
  %c = aten.relu(%b) : f32[s0, 8]
  %d = aten.permute(%c, [1, 0]) : f32[8, s0]
  %e = aten.tanh(%d) : f32[8, s0]
  return %c, %e
}}
constants {{
  parameter @w : f32[8, 8]
}}
"""

STATIC = """\
graph @static(%x: f16[4, 8], %m: bool[8]) -> (f16[4, 8], bool[8], i64[4])
{
  %a = aten.sigmoid(%x) : f16[4, 8]
  %b = aten.where.self(%m, %a, %x) : f16[4, 8]
  %c = aten.logical_not(%m) : bool[8]
  %d = aten.argmax(%x, 1) : i64[4]
  return %b, %c, %d
}
"""

NUMBERS = """\
graph @numbers(%x: f32[4], %n: int(s0), %c: float) -> f32[s0, 4]
  where s0 in {1..8} = %n
{
  %a = aten.mul.Scalar(%x, %c) : f32[4]
  %b = aten.expand(%a, [s0, 4]) : f32[s0, 4]
  %d = aten.cos(%b) : f32[s0, 4]
  return %d
}
"""

EMPTY = """\
graph @empty(%x: f32[s0, 4], %y: f32[3, 4]) -> (f32[s0 + 3, 4], f32[s0, 4])
  where s0 in {0..8} = dim(%x, 0)
{
  %a = aten.cat([%x, %y]) : f32[s0 + 3, 4]
  %b = aten.sin(%x) : f32[s0, 4]
  return %a, %b
}
"""


def rows(ranges: str = ONE_RANGE) -> Graph:
    graph = parse_graph(ROWS.format(ranges=ranges))
    graph.constants["w"].data = torch.randn(8, 8)
    return graph


@attrs.define
class Bench:
    """A TensorRT and where its engines run."""

    library: Library
    device: Any
    make: Callable[[Emitted], Engine]

    def runner(
        self, graph: Graph, options: RunOptions | None = None, engine: Engine | None = None
    ) -> EngineRunner:
        engine = engine or self.make(emit(graph, rtx()))
        return EngineRunner(
            engine, self.library, options, name=graph.name, device=self.device
        )  # fmt: skip

    def put(self, values: Sequence[Any]) -> list[Any]:
        """`values` on the device, strides kept."""
        where = self.device.torch_device
        return [v.to(where) if isinstance(v, torch.Tensor) else v for v in values]

    def check(self, runner: EngineRunner, graph: Graph, *values: Any) -> list[Any]:
        """Asserts that a run gives what the graph gives; returns the outputs."""
        found = runner.run(self.put(values))
        expected = interpret(graph, list(values)).outputs
        assert all(output.device == self.device.torch_device for output in found)
        assert_same([output.cpu() for output in found], expected)
        return found


def doubled(version: str) -> Bench:
    library = double(version)
    return Bench(library, HostDevice(), lambda emitted: keep(emitted, library))


def real() -> Bench:
    device = CudaDevice()
    library = choose("auto", device.capability()).library
    if library is None:
        pytest.skip("no TensorRT here supports this GPU")
    return Bench(library, device, _build)


def _build(emitted: Emitted) -> Engine:
    from rewright.backends.tensorrt.build import BuildOptions

    return build_network(emitted, BuildOptions())


@pytest.fixture(params=[RTX, CLASSIC, pytest.param("gpu", marks=pytest.mark.tensorrt_gpu)])
def bench(request: pytest.FixtureRequest) -> Bench:
    return real() if request.param == "gpu" else doubled(request.param)


@pytest.fixture(params=[RTX, CLASSIC])
def fake(request: pytest.FixtureRequest) -> Bench:
    """For what is asked of the double only: how often TensorRT was called, and failures."""
    return doubled(request.param)


def rows_of(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 8), torch.randn(n, 8)


# --------------------------------------------------------------------------- what comes out


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


# --------------------------------------------------------------------------- what is refused


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
    runner = fake.runner(graph, RunOptions(contexts=1))
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


# --------------------------------------------------------------------------- sizes known later


def places(fake: Bench) -> tuple[Graph, Engine]:
    """An engine whose output's size depends on what its input holds."""
    graph = parse_graph(
        "graph @places(%x: f32[4, 4]) -> i64[u0, 2]\n  where u0 in {0..16} = dim(%a, 0)\n{\n"
        "  %a = aten.nonzero(%x) : i64[u0, 2]\n  return %a\n}\n"
    )
    net = Network(rtx(), "places")
    x = net.add_input("x", torch.float32, (4, 4))
    found = net.layer("add_non_zero", x)
    as_i64 = net.layer("add_cast", found, torch.int64)
    rows_first = net.layer("add_shuffle", as_i64, first_transpose=(1, 0))
    net.mark_output("out0", rows_first)
    emitted = Emitted(net, graph, (Port("x", graph.inputs[0]),), (Port("out0", graph.outputs[0]),))
    return graph, keep(emitted, fake.library)


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


# --------------------------------------------------------------------------- streams


def test_never_on_the_default_stream(fake: Bench) -> None:
    runner, device = fake.runner(rows()), fake.device
    runner.run(rows_of(4))
    (own,) = fake.library.module.runs
    assert own != 0
    # The run waits for the caller's stream, and the caller's for the run.
    assert device.events == [("wait", own, 0), ("wait", 0, own)]


def test_on_the_callers_stream(fake: Bench) -> None:
    runner, device = fake.runner(rows()), fake.device
    with device.on(7):
        runner.run(rows_of(4))
        runner.run(rows_of(4))
    assert fake.library.module.runs == [7, 7]
    assert device.events == []


def test_streams_have_contexts_of_their_own(fake: Bench) -> None:
    runner, device = fake.runner(rows(), RunOptions(contexts=2)), fake.device
    for handle in (7, 8, 7, 8):
        with device.on(handle):
            runner.run(rows_of(4))
    assert (fake.library.module.runs, device.events) == ([7, 8, 7, 8], [])
    assert runner.counters.contexts == 2
    with device.on(9):
        runner.run(rows_of(4))
    # No third context: the run waits for the former one of the context that it was given.
    assert device.events in ([("wait", 9, 7)], [("wait", 9, 8)])


def test_the_callers_stream_waits_after_a_failure_too(fake: Bench) -> None:
    runner, device = fake.runner(rows()), fake.device
    runner.run(rows_of(4))
    device.events.clear()
    fake.library.module.failing["IExecutionContext.execute_async_v3"] = "no"
    with pytest.raises(EngineError):
        runner.run(rows_of(4))
    assert [(at, what) for what, at, _ in device.events][-1] == (0, "wait")


def test_threads(bench: Bench) -> None:
    graph = rows(TWO_RANGES)
    runner = bench.runner(graph, RunOptions(contexts=3))
    calls = {n: rows_of(n) for n in (1, 4, 16, 20, 30)}
    expected = {n: interpret(graph, list(call)).outputs for n, call in calls.items()}
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        try:
            start.wait()
            for step in range(10):
                n = list(calls)[(seed + step * 3) % len(calls)]
                found = [output.cpu() for output in runner.run(bench.put(calls[n]))]
                assert_same(found, expected[n])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert runner.counters.runs == 80
    assert runner.counters.contexts <= 3


def test_a_run_while_the_context_is_in_use_waits() -> None:
    """With one context two threads take turns; the double fails where they don't."""
    fake, graph = doubled(RTX), rows()
    runner = fake.runner(graph, RunOptions(contexts=1))
    runner.load()
    threads = [threading.Thread(target=runner.run, args=(rows_of(4),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runner.counters.runs == 6
    assert runner.counters.contexts == 1


# --------------------------------------------------------------------------- CUDA graphs


def test_capturing_needs_a_lease_and_a_warm_up(fake: Bench) -> None:
    runner, device = fake.runner(rows()), fake.device
    inputs = rows_of(4)
    runner.run(inputs)

    def refused() -> str:
        device.is_capturing = True
        with device.on(7), pytest.raises(EngineError, match="can't be captured") as error:
            runner.run(inputs)
        device.is_capturing = False
        return error.value.hint or ""

    assert "lease" in refused()
    lease = runner.lease()
    with lease:
        assert "run it once" in refused()
        runner.run(inputs)
        device.is_capturing = True
        with device.on(7):
            found = runner.run(inputs)
        device.is_capturing = False
    assert_same(found, interpret(rows_like(runner), list(inputs)).outputs)
    # Others don't get the context that the graph holds.
    runner.run(inputs)
    assert runner.counters.contexts == 2


def rows_like(runner: EngineRunner) -> Graph:
    graph = runner.engine.inputs[0].value.graph
    assert graph is not None
    return graph


def test_a_run_of_unknown_sizes_is_not_captured(fake: Bench) -> None:
    graph, engine = places(fake)
    runner = fake.runner(graph, engine=engine)
    with runner.lease():
        runner.run([torch.ones(4, 4)])
        fake.device.is_capturing = True
        with fake.device.on(7), pytest.raises(EngineError, match="can't be captured") as error:
            runner.run([torch.ones(4, 4)])
    assert "known only after the run" in (error.value.hint or "")


def test_tensorrt_may_refuse_a_capture() -> None:
    fake, graph = doubled(RTX), rows()
    runner, inputs = fake.runner(graph), rows_of(4)
    with runner.lease():
        runner.run(inputs)
        fake.device.is_capturing = True
        with fake.device.on(7):
            runner.run(inputs)
            fake.library.module.failing["IExecutionContext.is_stream_capturable"] = "kernels"
            with pytest.raises(EngineError, match="can't be captured"):
                runner.run(inputs)


# --------------------------------------------------------------------------- TensorRT for RTX


def test_rtx_settings() -> None:
    fake, graph = doubled(RTX), rows()
    options = RunOptions(
        runtime_cache=b"cache:kk", specialization="eager", internal_graphs=True
    )  # fmt: skip
    runner = fake.runner(graph, options)
    fake.check(runner, graph, *rows_of(4))
    settings = fake.library.module.settings
    assert settings["dynamic_shapes_kernel_specialization_strategy"] == "EAGER"
    assert settings["cuda_graph_strategy"] == "WHOLE_GRAPH_CAPTURE"
    assert runner.runtime_cache() == b"cache:kkk"


def test_a_runtime_cache_serves_the_next_process(bench: Bench) -> None:
    graph = rows()
    first = bench.runner(graph)
    bench.check(first, graph, *rows_of(4))
    cache = first.runtime_cache()
    assert bool(cache) == bench.library.is_rtx
    again = bench.runner(graph, RunOptions(runtime_cache=cache), first.engine)
    bench.check(again, graph, *rows_of(4))


def test_a_runtime_cache_of_another_machine_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    fake, graph = doubled(RTX), rows()
    runner = fake.runner(graph, RunOptions(runtime_cache=b"other"))
    with caplog.at_level("INFO", "rewright.tensorrt"):
        fake.check(runner, graph, *rows_of(4))
    assert any("runtime cache of @rows is of another" in line for line in caplog.messages)
    assert runner.runtime_cache() == b"cache:k"


def test_a_runtime_cache_that_can_not_be_written() -> None:
    fake = doubled(RTX)
    runner = fake.runner(rows())
    runner.load()
    fake.library.module.failing["IRuntimeCache.serialize"] = "no space"
    with pytest.raises(EngineError, match=r"could not serialize the runtime cache .*: no space"):
        runner.runtime_cache()


RTX_ONLY = {
    "runtime_cache": RunOptions(runtime_cache=b"cache:"),
    "specialization": RunOptions(specialization="lazy"),
    "internal_graphs": RunOptions(internal_graphs=True),
}


@pytest.mark.parametrize("setting", RTX_ONLY)
def test_classic_has_no_rtx_settings(setting: str) -> None:
    for version in (CLASSIC, VERSIONS[5]):
        with pytest.raises(SettingsError, match=rf"tensorrt 1[01]\..* has no {setting}"):
            doubled(version).runner(rows(), RTX_ONLY[setting]).load()


def test_unknown_settings() -> None:
    with pytest.raises(SettingsError, match="no specialization 'eagre'"):
        RunOptions(specialization="eagre")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contexts"):
        RunOptions(contexts=0)


# --------------------------------------------------------------------------- life


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
