"""Building engines: profiles, progress, stopping, and what is said when it fails."""

from __future__ import annotations

import _thread
import io
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from rich.console import Console

from rewright.backends.tensorrt.bars import bars
from rewright.backends.tensorrt.build import (
    Engine,
    Job,
    build_engine,
    build_here,
    build_network,
    build_together,
)
from rewright.backends.tensorrt.emitter import Emitted, emit
from rewright.backends.tensorrt.log import JOURNAL
from rewright.backends.tensorrt.network import Network
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.profiles import profiles
from rewright.backends.tensorrt.progress import Stop, Watcher, interruptible
from rewright.errors import ConversionError, EngineError, UnsupportedError
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.checking import check_graph, rtx

LINEAR = """\
graph @mlp(%x: f32[{shape}]) -> f32[{shape}]
{where}{{
  %a = rw.linear(%x, @w) : f32[{shape}]
  %b = aten.relu(%a) : f32[{shape}]
  return %b
}}
constants {{
  parameter @w : f32[8, 8]
}}
"""


def _linear(shape: str = "4, 8", where: str = "") -> Graph:
    graph = parse_graph(LINEAR.format(shape=shape, where=where))
    graph.constants["w"].data = torch.randn(8, 8)
    return graph


def test_engine() -> None:
    graph = _linear()
    engine = build_engine(graph, rtx())
    assert len(engine.data) > 1000
    assert [port.value for port in engine.inputs] == graph.inputs
    assert [port.value for port in engine.outputs] == list(graph.outputs)
    assert engine.profiles == 0
    assert engine.layers >= 3
    assert engine.library == rtx().name


def test_options() -> None:
    options = BuildOptions(
        capabilities=((8, 9), (12, 0)), optimization_level=0, workspace=1 << 30,
        weight_streaming=True, detailed=True,
    )  # fmt: skip
    assert build_engine(_linear(), rtx(), options).data
    with pytest.raises(EngineError, match=r"can't build for 9\.0"):
        build_engine(_linear(), rtx(), BuildOptions(capabilities=((9, 0),)))


def test_profiles_from_ranges() -> None:
    graph = _linear("2*s0 + 1, 8", "  where s0 in {1..3..16, 20..30} with 2*s0 + 1 = dim(%x, 0)\n")
    emitted = emit(graph, rtx())
    first, second = profiles(graph, emitted.inputs)
    assert [(i.low, i.typical, i.high) for i in first] == [((3, 8), (7, 8), (33, 8))]
    assert [(i.low, i.typical, i.high) for i in second] == [((41, 8), (51, 8), (61, 8))]
    assert build_engine(graph, rtx()).profiles == 2
    check_graph(graph, [(torch.randn(2 * n + 1, 8),) for n in (1, 5, 16, 20, 30)])


def test_a_size_without_maximum_is_refused() -> None:
    graph = _linear("s0, 8", "  where s0 in {1..} = dim(%x, 0)\n")
    with pytest.raises(ConversionError, match=r"s0 has no maximum.*mark_dynamic"):
        emit(graph, rtx())


def test_profiles_refuse_a_size_without_maximum() -> None:
    graph = _linear("s0, 8", "  where s0 in {1..4} = dim(%x, 0)\n")
    emitted = emit(graph, rtx())
    unbounded = _linear("s0, 8", "  where s0 in {1..} = dim(%x, 0)\n")
    with pytest.raises(UnsupportedError, match="no maximum"):
        profiles(unbounded, emitted.inputs)


def test_progress_is_told() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.phases: list[str] = []
            self.steps = 0
            self.ended: list[str] = []

        def started(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases.append(phase)

        def stepped(self, phase: str, step: int) -> None:
            self.steps += 1

        def finished(self, phase: str) -> None:
            self.ended.append(phase)

    watcher = Watcher()
    build_engine(_linear(), rtx(), watcher=watcher)
    assert watcher.phases
    assert watcher.steps > 0
    assert sorted(watcher.phases) == sorted(watcher.ended)


def test_a_build_can_be_stopped() -> None:
    stop = Stop()
    stop.ask()
    with pytest.raises(EngineError, match="build of @mlp was stopped"):
        build_engine(_linear(), rtx(), stop=stop)


@contextmanager
def at_the_keyboard() -> Iterator[None]:
    """Ctrl-C is heard: the workers of a parallel test run ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_the_work_and_waits_for_it() -> None:
    """KeyboardInterrupt arrives in the main thread, asks for the stop, and is raised after it."""
    stop, ended = Stop(), threading.Event()

    def work() -> None:
        for _ in range(1000):
            if stop.asked:
                ended.set()
                return
            time.sleep(0.01)

    pressed = threading.Timer(0.2, _thread.interrupt_main)
    with at_the_keyboard():
        pressed.start()
        with pytest.raises(KeyboardInterrupt):
            interruptible(work, stop)
    assert ended.is_set()


def test_errors_of_the_work_are_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        interruptible(fail, Stop())


def test_a_failed_build_says_what_tensorrt_says() -> None:
    """A layer that the definition takes and the build does not."""
    net = Network(rtx(), "sparse")
    x = net.add_input("x", torch.float32, (4, 4))
    net.mark_output("places", net.layer("add_non_zero", x))
    with pytest.raises(EngineError, match=r"could not build @sparse: .*no runners"):
        build_network(Emitted(net, Graph("sparse"), (), ()), BuildOptions())


@pytest.mark.parametrize(
    "words",
    ["Error Code 2: OutOfMemory (Requested size was 9)", "Unexpected exception std::bad_alloc"],
)
def test_a_build_without_memory_says_what_to_do(words: str) -> None:
    class Builder:
        """TensorRT's own words, where the host has no memory."""

        def __init__(self, real: Any, result: Any) -> None:
            self._real, self._result = real, result

        def build_serialized_network(self, *_: Any) -> Any:
            if self._result is None:
                JOURNAL.write(logging.ERROR, words)
            return self._result

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    class Huge:
        def __bytes__(self) -> bytes:
            raise MemoryError

    for result in (None, Huge()):
        emitted = emit(_linear(), rtx())
        emitted.net.builder = Builder(emitted.net.builder, result)
        with pytest.raises(EngineError, match="no memory for the engine of @mlp") as caught:
            build_network(emitted, BuildOptions())
        assert "torch_executed_modules" in str(caught.value.hint)


def test_layers_are_named_by_module_node_and_op() -> None:
    graph = parse_graph(
        "graph @g(%x: f32[4]) -> f32[4]\n{\n"
        "  %act = aten.silu(%x) : f32[4]  # model.py:7 (blocks.3.mlp)\n  return %act\n}\n"
    )
    definition = emit(graph, rtx()).net.definition
    names = [definition.get_layer(i).name for i in range(definition.num_layers)]
    assert names[0] == "blocks.3.mlp/act/aten.silu"
    assert len(set(names)) == len(names)


def test_refusals_name_the_node() -> None:
    graph = parse_graph(
        "graph @g(%x: f32[4]) -> f64[4]\n{\n"
        "  %a = aten._to_copy(%x, dtype=f64) : f64[4]  # model.py:7 (mlp)\n  return %a\n}\n"
    )
    with pytest.raises(ConversionError, match="no f64") as error:
        emit(graph, rtx())
    assert error.value.where == "model.py:7 (mlp)"
    assert error.value.op == "aten._to_copy"
    assert error.value.backend == "tensorrt"


def _job(emitted: Emitted) -> Job:
    def job(stop: Stop, watcher: Watcher | None) -> Engine:
        return build_here(emitted, BuildOptions(), watcher, stop)

    return job


def test_several_at_a_time() -> None:
    emitted = [emit(_linear(), rtx()) for _ in range(3)]
    engines = build_together([_job(item) for item in emitted], workers=2)
    assert [engine.inputs for engine in engines] == [item.inputs for item in emitted]


def test_a_failure_stops_the_others_and_is_the_one_that_is_raised() -> None:
    net = Network(rtx(), "sparse")
    x = net.add_input("x", torch.float32, (4, 4))
    net.mark_output("places", net.layer("add_non_zero", x))
    bad = Emitted(net, Graph("sparse"), (), ())
    with pytest.raises(EngineError, match="could not build @sparse"):
        build_together(
            [_job(item) for item in (bad, *(emit(_linear(), rtx()) for _ in range(3)))], workers=1
        )


def test_bars_show_the_phases_of_a_build() -> None:
    shown = io.StringIO()
    with bars(Console(file=shown, force_terminal=True, width=100)) as watcher:
        assert watcher is not None
        watcher.started("Building", None, 2)
        watcher.started("Tactics", "Building", 4)
        watcher.stepped("Tactics", 1)
        watcher.finished("Tactics")
        watcher.stepped("Building", 0)
    assert "Building" in shown.getvalue()
    assert "1/2" in shown.getvalue()


def test_no_bars_where_nobody_looks() -> None:
    with bars(Console(file=io.StringIO())) as watcher:
        assert watcher is None
