"""Torch's attention kernels at the shapes of models, and which one our table takes.

    python -m benchmarks.attention [--only TEXT]

Needs a CUDA device. A row is the time of one call in microseconds, from replays of a CUDA graph of
20 calls, by kernel; ``torch`` is what torch picks by itself, ``ours`` what a program of ours runs
in eager mode (``backends/torch/kernels/attention.py`` has the table).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewright.backends.torch.implementations import implementation_of
from rewright.ir.parser import parse_graph

_sdpa = torch.nn.functional.scaled_dot_product_attention


@attrs.frozen
class Shape:
    """Sizes of an attention; ``mask`` is the batch of an additive mask, 0 for none."""

    batch: int
    heads: int
    queries: int
    keys: int
    size: int
    mask: int = 0


SHAPES: Final[Mapping[str, Shape]] = {
    "bert b1": Shape(1, 12, 128, 128, 64),
    "bert b1, mask": Shape(1, 12, 128, 128, 64, 1),
    "bert b32": Shape(32, 12, 128, 128, 64),
    "bert b32, mask": Shape(32, 12, 128, 128, 64, 32),
    "vit b1": Shape(1, 12, 197, 197, 64),
    "vit b32": Shape(32, 12, 197, 197, 64),
    "swin b8, stage 1": Shape(512, 4, 49, 49, 32, 1),
    "swin b8, stage 1, shifted": Shape(512, 4, 49, 49, 32, 512),
    "swin b8, stage 3": Shape(32, 16, 49, 49, 32, 1),
    "swin b8, stage 4": Shape(8, 32, 49, 49, 32, 1),
    "unet self 64": Shape(2, 8, 4096, 4096, 40),
    "unet self 32": Shape(2, 8, 1024, 1024, 80),
    "unet self 16": Shape(2, 8, 256, 256, 160),
    "unet self 8": Shape(2, 8, 64, 64, 160),
    "unet cross 64": Shape(2, 8, 4096, 77, 40),
    "unet cross 32": Shape(2, 8, 1024, 77, 80),
    "unet cross 16": Shape(2, 8, 256, 77, 160),
    "unet cross 8": Shape(2, 8, 64, 77, 160),
    "whisper": Shape(1, 8, 1500, 1500, 64),
}

KERNELS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "torch": None,
}

_TEXT: Final = """
graph @main(%q: f16[B, H, M, D], %k: f16[B, H, N, D], %v: f16[B, H, N, D]MASK) -> f16[B, H, M, D] {
  %y = rw.attention(%q, %k, %vGIVEN, scale=0.125) : f16[B, H, M, D]
  return %y
}
"""


def ours(shape: Shape, mask: Tensor | None) -> Callable[..., Tensor]:
    """What the Torch backend runs for the shape."""
    text = _TEXT.replace("GIVEN", ", %m" if shape.mask else "")
    text = text.replace("MASK", f", %m: f16[{shape.mask}, H, M, N]" if shape.mask else "")
    for letter, field in zip("BHMND", ("batch", "heads", "queries", "keys", "size"), strict=True):
        for end in ",]":
            text = text.replace(f"{letter}{end}", f"{getattr(shape, field)}{end}")
    graph = parse_graph(text)
    graph.device = "cuda:0"
    node = next(iter(graph))
    made = implementation_of(node.op, node, by="eager")
    assert made is not None
    return made.function


def microseconds(call: Callable[[], Tensor]) -> float:
    """Of one call, in replays of a graph of 20."""
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
        with torch.cuda.graph(graph, stream=side):
            for _ in range(20):
                call()
    times = []
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / 20)
    return statistics.median(times[1:])


def row(shape: Shape) -> dict[str, float]:
    """Microseconds by kernel; those that refuse the shape are left out."""
    sizes = shape.batch, shape.queries, shape.heads, shape.size
    keys = shape.batch, shape.keys, shape.heads, shape.size
    q, k, v = (
        torch.randn(s, device="cuda", dtype=torch.half).transpose(1, 2) for s in (sizes, keys, keys)
    )
    mask = None
    if shape.mask:
        bias = (shape.mask, shape.heads, shape.queries, shape.keys)
        mask = torch.randn(bias, device="cuda", dtype=torch.half)
    made = {}
    for name, kernel in KERNELS.items():
        try:
            with sdpa_kernel(
                [kernel] if kernel is not None else [*SDPBackend.__members__.values()]
            ):
                made[name] = microseconds(lambda: _sdpa(q, k, v, mask, scale=0.125))
        except RuntimeError:  # the kernel does not take it
            torch.cuda.synchronize()
    function = ours(shape, mask)
    given = (q, k, v) if mask is None else (q, k, v, mask)
    made["ours"] = microseconds(lambda: function(*given, scale=0.125))
    return made


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.attention", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", default="", help="shapes whose names contain this")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here")
    columns = [*KERNELS, "ours"]
    print(f"{'us per call':28}" + "".join(f"{name:>11}" for name in columns))
    for name, shape in SHAPES.items():
        if given.only in name:
            found = row(shape)
            cells = (f"{found[c]:11.1f}" if c in found else f"{'-':>11}" for c in columns)
            print(f"{name:28}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
