"""Engines to run, on a double of TensorRT's runtime or on a GPU."""

from __future__ import annotations

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
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.runtime import EngineRunner, RunOptions
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt.checking import assert_same, rtx
from tests.backends.tensorrt.double import double
from tests.backends.tensorrt.host_device import HostDevice
from tests.backends.tensorrt.kept import keep

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
    return build_network(emitted, BuildOptions())


def rows_of(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 8), torch.randn(n, 8)


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
