"""Random graphs that run, made with the Builder out of torch's ops, with inputs for them.

They are for whatever must keep a program's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import sympy
import torch
from hypothesis import strategies as st

from rewright.ir.attributes import Attributes
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, ResultSpec, SymbolInfo, Value, ViewStep
from rewright.ir.location import Location
from rewright.ir.ops import get_op
from rewright.ir.sizes import Range, simplify, symbol
from rewright.ir.types import TensorType, type_symbols
from tests.ir.strategies import Draw


@attrs.frozen
class Program:
    """A graph that runs, whose sources hold data, and inputs for it."""

    graph: Graph
    inputs: tuple[Any, ...]


class Grower:
    """Grows a program: each step adds a few nodes to what is there.

    Shapes are ``(rows, 4)`` for three sizes of rows (a symbol, twice a symbol and one, a number),
    so that many values fit each other.
    """

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.graph = Graph(draw(st.sampled_from(["main", "block"])))
        self.build = Builder(self.graph, loc=Location("model.py", 1, "layers.0"))
        s0, s1 = symbol("s0"), symbol("s1")
        sizes = {s0: draw(st.integers(1, 5)), s1: draw(st.integers(0, 4))}
        rows = draw(st.lists(st.sampled_from([s0, 2 * s1 + 1, 3]), min_size=1, max_size=3))
        self.values: list[Value] = []
        self.inputs: list[Any] = []
        for row in rows:
            value = self.graph.add_input(TensorType(torch.float32, (row, 4)), "x")
            self.values.append(value)
            known = simplify(sympy.sympify(row).xreplace(sizes))
            self.inputs.append(torch.randn(known, 4))
            for found in type_symbols(value.type) - self.graph.symbols.keys():
                low = 1 if found is s0 else 0
                self.graph.symbols[found] = SymbolInfo((Range(low, 4, 64),), value, 0)

    # -- what steps choose from

    def like(self, value: Value) -> Value:
        """A value of the same type."""
        return self.draw(st.sampled_from([v for v in self.values if v.type == value.type]))

    def floats(self) -> Value:
        """A value of type f32[rows, 4]."""
        fitting = [
            v
            for v in self.values
            if v.type.dtype is torch.float32 and v.type.rank == 2 and v.type.shape[1] == 4
        ]
        return self.draw(st.sampled_from(fitting))

    def weight(self, shape: tuple[int, ...]) -> Value:
        """A source of that shape, known or new."""
        kind = TensorType(torch.float32, shape)
        known = [c for c in self.graph.constants.values() if c.type == kind and c.is_source]
        if known and self.draw(st.booleans()):
            return self.draw(st.sampled_from(known))
        name = f"layers.{len(self.graph.constants)}.weight"
        aliases = self.draw(st.sampled_from([(), (f"{name}.tied",)]))
        return self.graph.add_constant(name, kind, data=torch.randn(shape), aliases=aliases)

    # -- steps

    def elementwise(self) -> None:
        name = self.draw(st.sampled_from(["relu", "neg", "tanh", "abs", "cos"]))
        self.values.append(self.build.call(f"aten.{name}", self.floats(), hints=[name]))

    def binary(self) -> None:
        a = self.floats()
        sizes = [size + 1 for size in self.graph.symbols if size.is_nonnegative]
        b = self.draw(st.just(self.like(a)) | st.sampled_from([2, 0.5, -0.0, *sizes]))
        name = self.draw(st.sampled_from(["add", "mul", "sub"]))
        self.values.append(self.build.call(f"aten.{name}.Tensor", a, b))

    def linear(self) -> None:
        bias = self.draw(st.booleans()) and self.weight((4,))
        args = [self.floats(), self.weight((4, 4)), *([bias] if bias else [])]
        self.values.append(self.build.call("rw.linear", *args, hints=["linear"]))

    def prepared(self) -> None:
        weight, name = self.weight((4, 4)), f"prepared.{len(self.graph.constants)}"
        recipe = Builder(self.graph.prepare).call("aten.t", weight)
        prepared = self.graph.add_prepared(name, recipe)
        self.values.append(self.build.call("aten.mm", self.floats(), prepared))

    def pieces(self) -> None:
        x = self.floats()
        parts = self.build.call("aten.split_with_sizes", x, [1, 3], dim=1, hints=["a", "b"])
        self.values.append(self.build.call("aten.cat", [parts[1], parts[0]], 1))

    def largest(self) -> None:
        x = self.floats()
        found, where = self.build.call("aten.max.dim", x, 1, keepdim=True)
        self.values.append(self.build.call("aten.sub.Tensor", x, found))
        self.values.append(self.build.call("aten.add.Tensor", where, 1))

    def cast(self) -> None:
        dtype = self.draw(st.sampled_from([torch.float64, torch.bool, torch.int32]))
        self.values.append(self.build.call("aten._to_copy", self.floats(), dtype=dtype))

    def branch(self) -> None:
        x = self.floats()
        sums = self.build.call("aten.sum", x)
        condition = self.build.call("aten.gt.Scalar", sums, 0.0)
        regions = [self._region(x, name) for name in ("relu", "neg")]
        made = self.build.call("higher_order.cond", condition, *regions, [x])
        self.values.append(made[0])

    def _region(self, x: Value, op: str) -> Graph:
        region = Graph(f"{op}_branch")
        row = x.type.shape[0]
        inner = region.add_input(TensorType(torch.float32, (row, 4)), "x")
        for found in type_symbols(inner.type):
            region.symbols[found] = attrs.evolve(self.graph.symbols[found], binding=inner, dim=0)
        region.set_outputs([Builder(region).call(f"aten.{op}", inner)])
        return region

    def item(self) -> None:
        x = self.floats()
        count = self.build.call("aten.count_nonzero", x)
        self.build.call("aten.item", count)

    def program(self) -> Program:
        """The program, once it has outputs, write-backs and specs."""
        outputs = self.draw(st.lists(st.sampled_from(self.values), min_size=1, max_size=3))
        number = self.build.call("rw.scalar", self.draw(st.sampled_from([None, 2, -0.5])))
        specs = [self._spec(value) for value in outputs]
        x = self.graph.inputs[0]
        pairs = [(x, self.like(x))] if self.draw(st.booleans()) else []
        self.graph.set_outputs([*outputs, number], results=[*specs, ResultSpec()], writebacks=pairs)
        return Program(self.graph, tuple(self.inputs))

    def _spec(self, value: Value) -> ResultSpec:
        if value.is_input:
            return ResultSpec(alias=value)
        step = ViewStep(get_op("aten.transpose.int"), Attributes({"dim0": 0, "dim1": 1}))
        aliased = ResultSpec((1, value.type.shape[0]), self.graph.inputs[0], (step,))
        return self.draw(st.sampled_from([ResultSpec(), aliased]))


_STEPS: tuple[Callable[[Grower], None], ...] = (
    Grower.elementwise,
    Grower.binary,
    Grower.linear,
    Grower.prepared,
    Grower.pieces,
    Grower.largest,
    Grower.cast,
    Grower.branch,
    Grower.item,
)


@st.composite
def programs(draw: Draw) -> Program:
    """Graphs that run, in the imported normal form, with inputs for them."""
    grower = Grower(draw)
    for step in draw(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=8)):
        step(grower)
    return grower.program()
