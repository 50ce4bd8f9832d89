"""Several engines at a time: each built once, all stopped together, and nothing bad left."""

from __future__ import annotations

import _thread
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import rewright
from rewright.backends.tensorrt import together
from rewright.backends.tensorrt.build import Engine, build_here
from rewright.backends.tensorrt.log import JOURNAL, watching
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.together import Order, engines_of
from rewright.errors import EngineError
from rewright.ir.parser import parse_graph
from rewright.store import Store
from tests.backends.tensorrt.checking import rtx
from tests.backends.tensorrt.test_build import at_the_keyboard

LAYER = """\
graph @{name}(%{x}: f32[4, 8]) -> f32[4, 8]
{{
  %{y} = rw.linear(%{x}, @w) : f32[4, 8]
  %{z} = aten.{op}(%{y}) : f32[4, 8]
  return %{z}
}}
constants {{
  parameter @w : f32[8, 8]
}}
"""
W = torch.randn(8, 8)


def order(name: str, weight: torch.Tensor = W, op: str = "relu") -> Order:
    text = LAYER.format(name=name, op=op, x=f"x_{name}", y=f"y_{name}", z=f"z_{name}")
    return Order(parse_graph(text), rtx(), BuildOptions(), {"w": weight})


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the graphs that are really built."""
    made: list[str] = []

    def build(emitted: Any, *args: Any) -> Engine:
        made.append(emitted.graph.name)
        return build_here(emitted, *args)

    monkeypatch.setattr(together, "build_here", build)
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1GiB")
    return Store(tmp_path / "cache")


def test_what_is_the_same_is_built_once(builds: list[str]) -> None:
    orders = [order("a"), order("b", W.clone()), order("c", W + 1), order("d", op="tanh")]
    engines = engines_of(orders)
    assert sorted(builds) == ["a", "c", "d"]
    assert engines[0].data == engines[1].data
    assert len({engine.data for engine in engines}) == 3
    for made, wanted in zip(engines, orders, strict=True):
        assert [port.value for port in made.inputs] == wanted.graph.inputs
        assert [port.value for port in made.outputs] == list(wanted.graph.outputs)
    assert [port.name for port in engines[1].inputs] == ["x_a"], "what the engine calls it"


def test_nothing_is_asked_for() -> None:
    assert engines_of([]) == []


def test_each_is_kept(builds: list[str], store: Store) -> None:
    first = engines_of([order("a"), order("b", W + 1)])
    again = engines_of([order("b", W + 1), order("a")])
    assert sorted(builds) == ["a", "b"]
    assert [e.data for e in again] == [first[1].data, first[0].data]
    assert (rewright.stats().cache_hits, rewright.stats().cache_misses) == (2, 2)


def test_they_are_built_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    meet = threading.Barrier(2, timeout=60)

    def build(emitted: Any, *args: Any) -> Engine:
        meet.wait()  # passes only where both are here
        return build_here(emitted, *args)

    monkeypatch.setattr(together, "build_here", build)
    assert len(engines_of([order("a"), order("b", W + 1)], workers=2)) == 2


def test_a_failure_is_the_one_that_is_raised(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def build(emitted: Any, *args: Any) -> Engine:
        if emitted.graph.name == "b":
            raise EngineError("no memory")
        return build_here(emitted, *args)

    monkeypatch.setattr(together, "build_here", build)
    with pytest.raises(EngineError, match="no memory"):
        engines_of([order("b"), order("a", W + 1), order("c", W + 2)], workers=1)
    assert not [*store.entries()], "those after it were not begun"


def test_ctrl_c_stops_all_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    begun, ended = threading.Event(), []

    def build(emitted: Any, options: Any, watcher: Any, stop: Any) -> Engine:
        begun.set()
        deadline = time.monotonic() + 60
        while not stop.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        ended.append(emitted.graph.name)
        return build_here(emitted, options, watcher, stop)

    def press() -> None:
        begun.wait(60)
        time.sleep(0.1)
        _thread.interrupt_main()

    monkeypatch.setattr(together, "build_here", build)
    orders = [order("a"), order("b", W + 1), order("c", W + 2)]
    with at_the_keyboard():
        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            engines_of(orders, workers=2)
        thread.join()
    assert {*ended} <= {"a", "b", "c"}
    assert not [*store.entries()], "nothing is kept of a build that was stopped"
    assert not [t for t in threading.enumerate() if t.name.startswith("tensorrt-build")]
    monkeypatch.setattr(together, "build_here", build_here)
    assert len(engines_of(orders)) == 3, "the next compile builds them"


def test_errors_of_one_build_are_not_those_of_another() -> None:
    ready, told = threading.Barrier(2, timeout=30), {}

    def watch(name: str) -> None:
        with watching() as errors:
            ready.wait()
            JOURNAL.write(40, f"error of {name}")
            ready.wait()
            told[name] = errors()
            ready.wait()

    threads = [threading.Thread(target=watch, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {"a": ["error of a"], "b": ["error of b"]}


def test_errors_of_tensorrts_own_threads_are_heard() -> None:
    with watching() as errors:
        thread = threading.Thread(target=JOURNAL.write, args=(40, "error of a worker"))
        thread.start()
        thread.join()
        assert errors() == ["error of a worker"]
