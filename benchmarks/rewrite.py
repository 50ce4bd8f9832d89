"""How fast rules match and rewrite: 200 rules on graphs of 1k, 5k and 20k nodes.

    python -m benchmarks.rewrite

Three workloads on the same kind of graph (the ops of transformer blocks, in a row):

* ``visit``: no rule applies; every node is looked at once;
* ``near``: as before, but many nodes look like the root of a rule, and must be refused;
* ``rewrite``: each block has a tanh GELU to fuse, a chain to shorten and dead code to drop.

Printed are node visits per second, and the time per node relative to the smallest graph: 1.0 is
linear. Times are of the processor, the best of several runs, of a fresh graph each.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

import torch

from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Value
from rewright.ir.types import TensorType
from rewright.passes import FLOATS, Attr, Const, Rule, Tensor, apply_rules, aten

SIZES = (1_000, 5_000, 20_000)
RULES = 200
RUNS = 5
WIDTH = 64

UNARY = (
    "relu tanh sigmoid neg exp log sin cos abs sqrt rsqrt reciprocal floor ceil erf silu "
    "logical_not square round trunc"
).split()


class FuseGelu(Rule):
    """The tanh GELU from its formula."""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + aten.tanh(inner))

    def replace(self, x):
        return aten.gelu(x, approximate="tanh")


class MergeScales(Rule):
    """x * a * b  ->  x * (a b)"""

    def pattern(self, x: Tensor(dtype=FLOATS), a: Attr(float), b: Attr(float)):
        return x * a * b

    def replace(self, x, a, b):
        return x * (a * b)


def make_rules(count: int) -> list[type[Rule]]:
    """Rules of several shapes, none of which applies to :func:`block`."""
    rules: list[type[Rule]] = []
    for first in UNARY:
        for second in UNARY:
            rules.append(_rule(f"unary-{first}-{second}", _unary(first, second)))
            rules.append(_rule(f"scaled-{first}-{second}", _scaled(first, second)))
            if len(rules) >= count:
                return rules[:count]
    return rules


def _rule(name: str, pattern: Callable[..., object]) -> type[Rule]:
    methods = {"name": name, "pattern": pattern, "replace": lambda self, x: x}
    return type("Generated", (Rule,), methods)


def _unary(first: str, second: str) -> Callable[..., object]:
    def pattern(self, x):
        return getattr(aten, first)(getattr(aten, second)(aten.floor(x)))

    return pattern


def _scaled(first: str, second: str) -> Callable[..., object]:
    """Starts from ops that are everywhere: a sum, or a product with a constant."""

    def pattern(self, x, w: Const):
        inner = getattr(aten, first)(aten.floor(x))
        return inner * w if second < "m" else aten.add.Tensor(inner, getattr(aten, second)(w))

    return pattern


def block(build: Builder, x: Value, weights: list[Value], foldable: bool) -> Value:
    """About 30 nodes of a transformer: two products, a norm by hand, a GELU by hand."""
    call = build.call
    h = call("aten.linear", x, weights[0], types=[x.type])
    if foldable:
        cube = call("aten.pow.Tensor_Scalar", h, 3.0, types=[x.type])
        cube = call("aten.mul.Tensor", cube, 0.044715, types=[x.type])
        inner = call("aten.add.Tensor", h, cube, types=[x.type])
        inner = call("aten.mul.Tensor", inner, math.sqrt(2 / math.pi), types=[x.type])
        gate = call("aten.add.Tensor", call("aten.tanh", inner, types=[x.type]), 1, types=[x.type])
        half = call("aten.mul.Tensor", h, 0.5, types=[x.type])
        h = call("aten.mul.Tensor", half, gate, types=[x.type])
        for _ in range(3):
            h = call("aten.mul.Tensor", h, 0.5, types=[x.type])
        call("aten.exp", call("aten.neg", h, types=[x.type]), types=[x.type])
    for name in ("relu", "tanh", "sigmoid", "erf", "abs", "cos", "silu", "neg"):
        other = call(f"aten.{name}", h, types=[x.type])
        h = call("aten.add.Tensor", h, other, types=[x.type])
        h = call("aten.mul.Tensor", h, weights[1], types=[x.type])
    h = call("aten.linear", h, weights[2], types=[x.type])
    return call("aten.add.Tensor", x, h, types=[x.type])


def make_graph(nodes: int, foldable: bool) -> Graph:
    """A graph of about so many nodes."""
    graph = Graph()
    kind = TensorType(torch.float32, (8, WIDTH))
    square = TensorType(torch.float32, (WIDTH, WIDTH))
    weights = [
        graph.add_constant(name, kind)
        for name, kind in (("v", square), ("s", TensorType(torch.float32, (WIDTH,))), ("w", square))
    ]
    build, value = Builder(graph), graph.add_input(kind, "x")
    while len(graph) < nodes:
        value = block(build, value, weights, foldable)
    graph.set_outputs([value])
    return graph


def measure(nodes: int, rules: list[type[Rule]], foldable: bool) -> tuple[float, int, int, int]:
    """The best time, the nodes there were, the visits and the rewrites."""
    best = math.inf
    for _ in range(RUNS):
        graph = make_graph(nodes, foldable)
        count = len(graph)
        gc.collect()
        gc.disable()
        started = time.process_time()
        applied = apply_rules(graph, rules)
        best = min(best, time.process_time() - started)
        gc.enable()
    return best, count, applied.visits, applied.rewrites


def main() -> None:
    """Prints one table for each workload."""
    generated = make_rules(RULES)
    inert = [rule for rule in make_rules(2 * RULES) if rule.name.startswith("unary")]
    workloads = {
        "visit": (inert, False),
        "near": (generated, False),
        "rewrite": ([FuseGelu, MergeScales, *generated[: RULES - 2]], True),
    }
    for name, (rules, foldable) in workloads.items():
        print(f"{name} ({len(rules)} rules)")
        first = None
        for nodes in SIZES:
            seconds, count, visits, rewrites = measure(nodes, rules, foldable)
            per_node = seconds / count
            first = first or per_node
            print(
                f"  {count:6} nodes  {seconds * 1e3:8.1f} ms  {visits / seconds:9.0f} visits/s  "
                f"{rewrites:6} rewrites  {per_node / first:5.2f}x linear"
            )


if __name__ == "__main__":
    main()
