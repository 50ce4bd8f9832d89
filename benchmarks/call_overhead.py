"""What a call costs beyond its ops: the generated program, with all checks, against plain eager.

    python benchmarks/call_overhead.py [--inductor] [--size N]

Ten small ops, so that Python is what takes the time. Every row is timed in the same run, in
turns, and the best of many repetitions counts: on a busy machine the times wander, the ratios
hardly do. The aim is a ratio of at most 1.2; ``exported.module()`` is what torch itself offers.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import torch
from torch import Tensor, nn

import rewright

ROUNDS, CALLS = 200, 100


class TenOps(nn.Module):
    """Ten ops on two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.add(x, y)
        b = torch.relu(a)
        c = torch.mul(b, x)
        d = torch.sub(c, y)
        e = torch.sigmoid(d)
        f = torch.transpose(e, 0, 1)
        g = torch.matmul(f, a)
        h = torch.tanh(g)
        i = torch.add(h, g)
        return i, torch.sum(i, 1)


def plain(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same ten ops, called by hand: as little Python as there can be."""
    a = torch.add(x, y)
    b = torch.relu(a)
    c = torch.mul(b, x)
    d = torch.sub(c, y)
    e = torch.sigmoid(d)
    f = torch.transpose(e, 0, 1)
    g = torch.matmul(f, a)
    h = torch.tanh(g)
    i = torch.add(h, g)
    return i, torch.sum(i, 1)


def measure(rows: dict[str, Callable[..., object]], inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Seconds per call of every row, timed in turns."""
    timers = {name: timeit.Timer(lambda f=f: f(*inputs)) for name, f in rows.items()}
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(CALLS) / CALLS)
    return best


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inductor", action="store_true", help="torch.compile's default, too")
    parser.add_argument("--size", type=int, default=4, help="of the square inputs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, inputs = TenOps().eval(), (torch.randn(options.size, options.size),) * 2
    inputs = (inputs[0], inputs[1].clone())
    exported = torch.export.export(model, inputs)
    size = torch.export.Dim("n", min=1, max=1024)
    dynamic = torch.export.export(
        model, inputs, dynamic_shapes=({0: size, 1: size}, {0: size, 1: size})
    )
    rows: dict[str, Callable[..., object]] = {
        "plain eager calls": plain,
        "the eager module": model,
        "rewright, static": rewright.compile_exported(exported),
        "rewright, dynamic": rewright.compile_exported(dynamic),
        "exported.module()": exported.module(),
    }
    if options.inductor:
        rows["torch.compile, inductor"] = torch.compile(model)
    with torch.no_grad():
        seconds = measure(rows, inputs)
    base = seconds["plain eager calls"]
    for name, value in seconds.items():
        print(f"{name:26} {value * 1e6:8.2f} us   {value / base:5.2f}")


if __name__ == "__main__":
    main()
