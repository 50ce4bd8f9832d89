"""How long a kernel takes: a CUDA graph of many calls is replayed, several kernels in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

import torch

CALLS: Final = 20
"""Calls in one graph."""

ROUNDS: Final = 15
"""Replays that count; two more warm up."""


def recorded(call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of so many calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    return graph


def times(graphs: Mapping[Any, torch.cuda.CUDAGraph]) -> dict[Any, float]:
    """Microseconds of one call, of each graph; the median of replays in turns."""
    found: dict[Any, list[float]] = {name: [] for name in graphs}
    for turn in range(ROUNDS + 2):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn >= 2:
                found[name].append(start.elapsed_time(end) * 1e3 / CALLS)
    return {name: median(each) for name, each in found.items()}
