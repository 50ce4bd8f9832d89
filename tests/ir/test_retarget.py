"""Programs moved to another device."""

import torch

from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.retarget import retargeted
from rewright.ir.verifier import verify

TEXT = """\
graph @main(%x: f32[4], %far: f32[4] on meta) -> f32[4]
{
  %zeros = aten.zeros([4], device=cpu) : f32[4]
  %near = aten._to_copy(%far, device=cpu) : f32[4]
  %add = aten.add.Tensor(%x, %zeros) : f32[4]
  %sum = aten.add.Tensor(%add, %near) : f32[4]
  %all = aten.add.Tensor(%sum, @scaled) : f32[4]
  return %all
}
constants {
  parameter @weight : f32[4]
  prepared @scaled : f32[4]
}
prepare {
  %ones = aten.ones([4], device=cpu) : f32[4]
  @scaled = %ones
}
"""


def test_values_constants_and_devices_move():
    graph = parse_graph(TEXT.replace("  prepared @scaled : f32[4]\n", ""))
    graph.constants["weight"].data = torch.ones(4)
    verify(graph)
    before = print_graph(graph)
    moved = retargeted(graph, "meta")
    assert print_graph(graph) == before, "the graph itself stays"
    assert moved.device == moved.prepare.device == "meta"
    text = print_graph(moved)
    assert "cpu" not in text and "on meta" not in text
    assert text.count("device=meta") == 3
    assert moved.constants["weight"].data.is_meta
    assert graph.constants["weight"].data.is_cpu


def test_what_is_elsewhere_stays_there():
    graph = parse_graph(TEXT.replace("  prepared @scaled : f32[4]\n", ""))
    moved = retargeted(graph, "cuda:0")
    assert moved.inputs[1].type.device == "meta"
    assert retargeted(moved, "cpu").inputs[1].type.device == "meta"
    assert print_graph(retargeted(moved, "cpu")) == print_graph(graph)
