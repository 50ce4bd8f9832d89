"""Whether Inductor computes the convolutions of a graph in channels-last memory.

It decides for a whole graph, before it looks at any memory: ``GraphLowering.decide_layout_opt`` in
torch/_inductor/graph.py (the same in 2.11 and 2.13). Where it does, it demands that order of every
image and weight, and copies whichever isn't in it, in every call; there is a TODO of its own, in
kernel/conv.py, to lay out weights but once. Where it does not, convolutions run in the order of
their weights, so that laying those out would decide in its place.
"""

from __future__ import annotations

from typing import Final

from rewright.ir.graph import Graph, Node
from rewright.ir.types import TensorType
from rewright.passes.layout.regions import is_convolution

_FEW: Final = 60
"""So many of our nodes a convolution, and Inductor does not care for images. It says 300, of ATen's
nodes after decomposition, of which there are a few for each of ours."""


def convolutions_of(graph: Graph) -> list[Node]:
    """Its convolutions over two dimensions, with constant weights; transposed ones are none."""
    return [
        node
        for node in graph
        if is_convolution(node) and not node.attributes.get("transposed", False)
    ]


def is_ordered_by_inductor(graph: Graph) -> bool:
    """Whether all its convolutions will be channels-last, and surely so.

    Inductor weighs grouped convolutions, which lose by it, against the others; a graph that has
    any (depthwise ones aside) counts as no here. So does one with sizes that vary.
    """
    found = convolutions_of(graph)
    return bool(found) and len(graph) < _FEW * len(found) and all(map(_surely, found))


def _surely(node: Node) -> bool:
    image, weight = node.operands[0].type, node.arg("weight").type
    assert isinstance(image, TensorType)
    assert isinstance(weight, TensorType)
    is_grouped = node.attributes.get("groups", 1) != 1 and weight.shape[1] != 1
    return image.is_static and weight.is_static and not is_grouped
