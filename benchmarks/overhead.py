"""What a call costs the host beyond the segments' own work, by number of segments and inputs.

    python benchmarks/overhead.py [--device cuda] [--segments 0 1 4 16] [--inputs 1 4 16]
                                  [--inductor] [--rounds N]

A chain of small ops, so that the host is what takes the time. A segment here is four ops that a
backend of the benchmark's own takes and runs as plain calls of torch, so that what is left is what
every segment costs: the call, its operands, its results. Rows are timed in one run, in turns, and
the best of many rounds counts: on a busy machine the times wander, the differences hardly do.

    plain       the same calls of torch, by hand: the work itself
    rewright    the compiled program, all checks on; in segments, or whole where there are none
    graphs      the same without segments, with cuda_graphs="on" (on a GPU)
    exported    exported.module(), what torch offers
    inductor    torch.compile's default (--inductor; compiles for every line)
    replay      a CUDA graph of the plain calls: inputs copied in, replayed (on a GPU)

On a GPU the host's time is measured: it waits for the GPU between rounds only. The aim is that
``rewright`` is at most 1.2 times ``plain``.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

import rewright
from rewright.backends.torch.build import build
from rewright.frontends.export import import_exported
from rewright.ir.graph import Node
from rewright.ir.segments import segments_of
from rewright.passes.partition.partition import partition
from rewright.settings import Settings

CALLS = 10
SIZE = 4
Call = Callable[..., object]


class Chain(nn.Module):
    """The sum of the inputs, then so many times four ops and one that no segment takes."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, *inputs: Tensor) -> Tensor:
        """The result, of the shape of an input."""
        y = inputs[0]
        for x in inputs[1:]:
            y = torch.add(y, x)
        for _ in range(self.blocks):
            y = torch.tanh(torch.sigmoid(torch.matmul(torch.relu(y), y)))
            y = torch.erf(y)
        return y


@attrs.frozen
class Taker:
    """A backend that takes all but ``erf``."""

    name: str = "taker"

    def refuse(self, node: Node) -> str | None:
        """Why it can't run `node`."""
        return "it has no erf" if node.op.name == "aten.erf" else None


@attrs.frozen(eq=False)
class Taken:
    """A segment of the taker's: run as plain calls of torch."""

    constant_names: tuple[str, ...] = ()

    def bind(self, constants: Mapping[str, Tensor], in_torch: Call) -> Call:
        """What runs it."""
        return in_torch


def in_segments(exported: torch.export.ExportedProgram, device: str) -> tuple[Call, int]:
    """A program whose segments the taker runs, and how many there are."""
    graph, signature = import_exported(exported, device=device)
    partition(graph, [Taker()])
    segments = segments_of(graph)
    attached: dict[Node, Any] = {node: Taken() for node in segments}
    return build(graph, signature, Settings(device=device), None, attached).call, len(segments)


def replay_of(model: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """A CUDA graph of `model`: takes inputs as a program does, returns its one static output."""
    static = [item.clone() for item in inputs]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        model(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = model(*static)

    def call(*given: Tensor) -> Tensor:
        for held, item in zip(static, given, strict=True):
            held.copy_(item)
        graph.replay()
        return result

    return call


def rows_of(blocks: int, inputs: Sequence[Tensor], inductor: bool) -> tuple[dict[str, Call], int]:
    """What is timed, by name, and the number of segments."""
    device = str(inputs[0].device)
    model = Chain(max(blocks, 1)).eval()
    exported = torch.export.export(model, tuple(inputs))
    rows: dict[str, Call] = {"plain": model.forward}
    found = 0
    if blocks:
        rows["rewright"], found = in_segments(exported, device)
    else:
        rows["rewright"] = rewright.compile_exported(exported, device=device)
    on_gpu = inputs[0].is_cuda
    if on_gpu:
        graphed = rewright.compile_exported(exported, device=device, cuda_graphs="on")
        rows["graphs"] = graphed
        rows["replay"] = replay_of(model, inputs)
    rows["exported"] = exported.module()
    if inductor:
        torch._dynamo.reset()
        rows["inductor"] = torch.compile(model, fullgraph=True)
    return rows, found


def measure(rows: Mapping[str, Call], inputs: Sequence[Tensor], rounds: int) -> dict[str, float]:
    """Seconds per call of every row, timed in turns; the host's time."""
    timers = {name: timeit.Timer(lambda f=f: f(*inputs)) for name, f in rows.items()}
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(rounds):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(CALLS) / CALLS)
            if inputs[0].is_cuda:
                torch.cuda.synchronize()
    return best


def check(rows: Mapping[str, Call], inputs: Sequence[Tensor]) -> None:
    """All rows compute the same, and are warm after this."""
    expected: Any = rows["plain"](*inputs)
    for name, row in rows.items():
        for _ in range(4):
            found: Any = row(*inputs)
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


def main() -> None:
    """Prints a table, in microseconds per call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--segments", type=int, nargs="*", default=[0, 1, 4, 16])
    parser.add_argument("--inputs", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--inductor", action="store_true", help="torch.compile's default, too")
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.empty(0, device=options.device).device
    print(f"torch {torch.__version__}, {device}; us per call; over: rewright beyond plain")
    names: list[str] = []
    with torch.no_grad():
        for blocks in options.segments:
            for count in options.inputs:
                inputs = [torch.randn(SIZE, SIZE, device=device) for _ in range(count)]
                rows, segments = rows_of(blocks, inputs, options.inductor)
                check(rows, inputs)
                seconds = measure(rows, inputs, options.rounds)
                if names != [*rows]:
                    names = [*rows]
                    print("segments inputs " + "".join(f"{name:>10}" for name in names) + "   over")
                times = "".join(f"{value * 1e6:10.2f}" for value in seconds.values())
                over = (seconds["rewright"] - seconds["plain"]) * 1e6
                ratio = seconds["rewright"] / seconds["plain"]
                print(f"{segments:8} {count:6} {times} {over:6.2f} ({ratio:.2f}x)", flush=True)


if __name__ == "__main__":
    main()
