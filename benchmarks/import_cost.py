"""Import cost: seconds per 1,000 nodes as graphs grow, and its share of torch.export's own time.

    python benchmarks/import_cost.py [NODES ...]        # default: 1000 5000 20000

One program of about so many nodes is exported and imported, several times each; the least
time counts. Linear means: the third column stays the same.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

from rewright.frontends.export import import_exported

REPEATS = 3


class Chain(nn.Module):
    """Blocks of eight ATen nodes: linear, split, gate, reshape, norm, residual."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(8, 16) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.LayerNorm(8) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for up, norm in zip(self.up, self.norm, strict=True):
            a, b = up(x).chunk(2, dim=-1)
            y = (torch.sigmoid(a) * b).reshape(-1, 8).view(x.shape)
            x = norm(x + y)
        return x


def measure(nodes: int) -> tuple[int, float, float]:
    """Nodes of the exported graph, export seconds, import seconds."""
    model = Chain(nodes // 10).eval()
    start = time.perf_counter()
    exported = torch.export.export(
        model, (torch.randn(4, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    export_seconds = time.perf_counter() - start
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        import_exported(exported)
        best = min(best, time.perf_counter() - start)
    return len(exported.graph.nodes), export_seconds, best


def main() -> None:
    """Prints the table."""
    sizes = [int(arg) for arg in sys.argv[1:]] or [1000, 5000, 20000]
    measure(200)  # warm: imports, schemas
    print("  nodes  import s  s / 1000 nodes  export s  import/export")
    for size in sizes:
        nodes, export_seconds, seconds = measure(size)
        print(
            f"{nodes:7} {seconds:9.3f} {1000 * seconds / nodes:15.4f} {export_seconds:9.2f} "
            f"{seconds / export_seconds:14.3f}"
        )


if __name__ == "__main__":
    main()
