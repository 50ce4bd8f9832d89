"""Streams, memory and CUDA graphs of a real GPU, under the double: no TensorRT is needed.

Its "engine" reads its input at once and again late, and writes late: so what it doesn't wait for,
or what doesn't wait for it, changes the result.
"""

from __future__ import annotations

import enum

import pytest
import torch

from rewright.backends.tensorrt.device import CudaDevice
from rewright.backends.tensorrt.runtime import EngineRunner, RunOptions
from rewright.errors import EngineError
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.double import double
from tests.backends.tensorrt.kept import KeptFunction, keep_function

CYCLES = 20_000_000  # about 10 ms
SIZE = 1 << 16

GRAPH = f"""\
graph @slow(%x: f32[s0, {SIZE}]) -> f32[s0, {SIZE}]
  where s0 in {{1..8}} = dim(%x, 0)
{{
  %a = aten.relu(%x) : f32[s0, {SIZE}]
  return %a
}}
"""

pytestmark = pytest.mark.gpu


def _slow(x: torch.Tensor) -> dict[str, torch.Tensor]:
    early = x.clone()
    if x.is_cuda:
        torch.cuda._sleep(CYCLES)
    return {"out0": early.relu() + (x - early)}


@pytest.fixture(params=[False, True], ids=["own scratch", "shared scratch"])
def runner(request: pytest.FixtureRequest) -> EngineRunner:
    device = CudaDevice()
    library = double(device=device.torch_device)
    here = "SM{}{}".format(*device.capability())
    library.module.ComputeCapability = enum.IntEnum("ComputeCapability", {here: 1})
    engine = keep_function(KeptFunction(_slow, parse_graph(GRAPH)), library)
    options = RunOptions(contexts=1, shares_scratch=request.param)
    return EngineRunner(engine, library, options, name="slow", device=device)


def _late(n: int) -> torch.Tensor:
    """A tensor that is filled late on the current stream."""
    x = torch.zeros(n, SIZE, device="cuda")
    torch.cuda._sleep(CYCLES)
    return x.normal_()


def _streams() -> list[torch.cuda.Stream]:
    return [torch.cuda.default_stream(), torch.cuda.Stream(), torch.cuda.Stream()]


@pytest.mark.parametrize("default", [True, False])
def test_a_run_waits_and_is_waited_for(runner: EngineRunner, default: bool) -> None:
    runner.run([_late(1)])
    torch.cuda.synchronize()
    with torch.cuda.stream(_streams()[0 if default else 1]):
        for n in (2, 2, 5):
            x = _late(n)
            copy = x.clone()
            (found,) = runner.run([x])
            x.fill_(-1.0)  # after the run has read it
            assert torch.equal(found, copy.relu())
    handles = runner._asker.library.module.runs
    assert 0 not in handles


def test_memory_is_not_used_again_too_early(runner: EngineRunner) -> None:
    """What a run made for itself, and outputs that are dropped, are free only after it."""
    for _ in range(3):
        x = _late(4)
        copy = x.clone()
        (found,) = runner.run([x.t().contiguous().t()])
        del x
        torch.full((4, SIZE), -7.0, device="cuda")
        runner.run([copy])
        torch.full((4, SIZE), -7.0, device="cuda")
        assert torch.equal(found, copy.relu())


def test_streams_share_a_context_one_after_another(runner: EngineRunner) -> None:
    results = []
    for stream in _streams() * 2:
        with torch.cuda.stream(stream):
            x = _late(3)
            results.append((runner.run([x])[0], x))
    torch.cuda.synchronize()
    assert all(torch.equal(found, x.relu()) for found, x in results)
    assert runner.counters.contexts == 1


def test_views_are_aligned(runner: EngineRunner) -> None:
    whole = torch.randn(2 * SIZE + 1, device="cuda")
    x = whole[1:].view(2, SIZE)
    assert x.data_ptr() % 256
    assert torch.equal(runner.run([x])[0], x.relu())


def test_captured(runner: EngineRunner) -> None:
    x = torch.randn(2, SIZE, device="cuda")
    graph, lease = torch.cuda.CUDAGraph(), runner.lease()
    with lease:
        runner.run([x])
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            (found,) = runner.run([x])
    for _ in range(3):
        x.normal_()
        graph.replay()
        others = runner.run([x * 2])[0]
        assert torch.equal(found, x.relu())
        assert torch.equal(others, (x * 2).relu())


def test_capture_without_a_lease_is_refused(runner: EngineRunner) -> None:
    x = torch.randn(2, SIZE, device="cuda")
    runner.run([x])
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        y = x + 1  # an empty graph is warned of
        with pytest.raises(EngineError, match="can't be captured"):
            runner.run([y])


def test_memory_from_within_a_run() -> None:
    """What TensorRT asks for as it runs is the run's stream's, and kept for the caller's."""
    device, side = CudaDevice(), torch.cuda.Stream()
    memory = device.empty(1000, side, torch.cuda.current_stream())
    assert memory.numel() == 1000 and memory.dtype == torch.uint8 and memory.is_cuda


def test_memory_does_not_grow(runner: EngineRunner) -> None:
    def call(n: int) -> None:
        runner.run([torch.randn(n, SIZE, device="cuda")])

    for n in (1, 8, 3):
        call(n)
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for step in range(30):
        call(1 + step % 8)
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() <= 2 * before
