"""Partitioning time as graphs grow: seconds per 1,000 nodes; linear means they stay the same.

python benchmarks/partition.py [NODES ...]        # default: 1000 5000 20000
"""

from __future__ import annotations

import sys
import time

import attrs

from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Node
from rewright.ir.types import TensorType
from rewright.passes.partition.partition import partition

REPEATS = 3


@attrs.frozen
class Taker:
    """A backend that refuses one op in sixteen, and so makes many segments."""

    name: str = "taker"

    def refuse(self, node: Node) -> str | None:
        """Why it can't run `node`."""
        return "it has no erf" if node.op.name == "aten.erf" else None


def make_graph(nodes: int) -> Graph:
    """Chains of four branches that meet: relu, permute, add, erf."""
    import torch

    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, (8, 8)), "x")
    build = Builder(graph)
    branches = [x, x, x, x]
    for at in range(nodes // 4):
        op = "aten.erf" if at % 16 == 15 else "aten.relu"
        value = build.call(op, branches[at % 4])
        value = build.call("aten.permute", value, [1, 0])
        value = build.call("aten.add.Tensor", value, branches[(at + 1) % 4])
        branches[at % 4] = build.call("aten.tanh", value)
    graph.set_outputs(branches)
    return graph


def main() -> None:
    """Prints the table."""
    sizes = [int(arg) for arg in sys.argv[1:]] or [1000, 5000, 20000]
    print("  nodes  segments  seconds  s / 1000 nodes")
    for size in sizes:
        best = float("inf")
        for _ in range(REPEATS):
            graph = make_graph(size)
            start = time.perf_counter()
            report = partition(graph, [Taker()], min_block_size=3)
            best = min(best, time.perf_counter() - start)
        row = f"{size:7} {len(report.segments):9} {best:8.3f} {best / size * 1000:15.4f}"
        print(row)


if __name__ == "__main__":
    main()
