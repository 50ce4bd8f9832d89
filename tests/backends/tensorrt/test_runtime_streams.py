"""Streams, threads and CUDA graphs: who waits for whom, and for which context."""

from __future__ import annotations

import threading

import pytest
import torch

from rewright.backends.tensorrt.runtime import EngineRunner, RunOptions
from rewright.errors import EngineError
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from tests.backends.tensorrt.checking import assert_same
from tests.backends.tensorrt.double import RTX
from tests.backends.tensorrt.running import (
    TWO_RANGES,
    Bench,
    doubled,
    places,
    rows,
    rows_of,
)


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
