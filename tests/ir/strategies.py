"""Random parts of the IR, and random graphs of two kinds.

``wild_graphs()`` are well formed but mean nothing: ops of the tests' own take any attributes,
values have any types and any names. They are for text and copies.

``programs()`` are graphs that run, made with the Builder out of torch's ops, with inputs for
them. They are for whatever must keep a program's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import sympy
import torch
from hypothesis import strategies as st
from torch.utils._sympy import functions as torch_fns

from rewright.ir.attributes import Attributes, Record
from rewright.ir.builder import Builder, make_node
from rewright.ir.graph import Graph, ResultSpec, SymbolInfo, Value, ViewStep
from rewright.ir.location import Location
from rewright.ir.ops import Op, Param, get_op, known_ops, register
from rewright.ir.sizes import Range, simplify, symbol
from rewright.ir.types import (
    DTYPE_NAMES,
    NoneType,
    OpaqueType,
    ScalarType,
    TensorType,
    type_symbols,
)

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]


def _declare(op: Op) -> Op:
    known = {other.name: other for other in known_ops()}
    return known.get(op.name) or register(op)


ANYTHING = _declare(Op("test.anything", (), None, frozenset(), variadic=True))
MIXED = _declare(
    Op(
        "test.mixed",
        (
            Param("x", "Tensor"),
            Param("n", "int"),
            Param("bias", "Optional[Tensor]", None),
            Param("scale", "float", 1.0),
            Param("mask", "Optional[Tensor]", None),
            Param("like", "Any", keyword_only=True),
            Param("mode", "str", "none", keyword_only=True),
        ),
        1,
        frozenset(),
    )
)

# --------------------------------------------------------------------------- attributes

_SYMBOLS = [symbol(name) for name in ("s0", "s1", "s12", "u0", "u8", "f16", "f0")]
_INTEGERS = [s for s in _SYMBOLS if s.is_integer]


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    positive = st.integers(1, 9)
    return st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(torch_fns.FloorDiv, inner, positive),
        st.builds(
            torch_fns.Mod, st.sampled_from([s for s in _INTEGERS if s.is_nonnegative]), positive
        ),
        st.builds(torch_fns.Max, inner, inner),
        st.builds(torch_fns.Min, inner, inner),
    ).map(sympy.sympify)


def expressions() -> st.SearchStrategy[Any]:
    """Integer expressions over a few symbols; some are plain ints."""
    leaves = st.one_of(st.sampled_from(_INTEGERS), st.integers(-64, 64).map(sympy.Integer))
    return st.recursive(leaves, _grown, max_leaves=5).map(simplify)


def conditions() -> st.SearchStrategy[Any]:
    """Boolean expressions; some are plain bools."""
    relations = st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge])
    one = st.builds(lambda make, a, b: make(a, b), relations, expressions(), expressions())
    both = st.builds(sympy.And, one, one) | st.builds(sympy.Or, one, one)
    return st.one_of(one, both, one.map(sympy.Not)).map(simplify)


_DEVICES = ("cpu", "cuda", "cuda:0", "cuda:11", "meta", "xpu:3")

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan")]),
    st.complex_numbers(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.sampled_from(['say "hi"', "a\nb", "tab\t", "\u2028", "\\", "%x", "# no comment", "", "µs"]),
    expressions(),
    conditions(),
    st.sampled_from(_SYMBOLS),
    st.sampled_from([*DTYPE_NAMES]),
    st.sampled_from(_DEVICES).map(torch.device),
    st.sampled_from([torch.strided, torch.sparse_coo, torch._mkldnn, torch.jagged]),
    st.sampled_from([torch.contiguous_format, torch.channels_last, torch.preserve_format]),
)


def attributes(leaves: st.SearchStrategy[Any] = LEAVES) -> st.SearchStrategy[Any]:
    """Attributes of every kind but opaque ones, nested."""

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        keys = st.sampled_from(["a", "mode", "b c", "1", "in", 'q"', "é"])
        items = st.lists(st.tuples(keys, inner), max_size=3, unique_by=lambda item: item[0])
        return st.lists(inner, max_size=3).map(tuple) | items.map(lambda i: Record(tuple(i)))

    return st.recursive(leaves, grown, max_leaves=6)


# --------------------------------------------------------------------------- types, locations


def types() -> st.SearchStrategy[Any]:
    """Types of every kind."""
    dims = st.integers(0, 99) | expressions()
    return st.one_of(
        st.builds(
            TensorType,
            st.sampled_from([*DTYPE_NAMES]),
            st.lists(dims, max_size=4).map(tuple),
            st.none() | st.sampled_from(_DEVICES),
        ),
        st.just(ScalarType("int")),
        st.builds(ScalarType, st.just("int"), expressions()),
        st.builds(ScalarType, st.just("float"), st.floats() | st.just(symbol("f1"))),
        st.builds(ScalarType, st.just("bool"), conditions()),
        st.just(NoneType()),
        st.sampled_from(["str", "ScriptObject", "list of str"]).map(OpaqueType),
    )


def locations() -> st.SearchStrategy[Location | None]:
    """Locations, with odd names too, and None."""
    words = st.text(min_size=1, max_size=8) | st.sampled_from(["by", "a b", "x:3", "(y)", "#", '"'])
    rules = st.lists(
        words | st.sampled_from(["fold", "merge-projections"]), max_size=3, unique=True
    )
    plain = st.builds(Location, st.just("model.py"), st.integers(1, 999), st.just("layers.3.attn"))
    odd = st.builds(
        Location,
        words | st.just("a/b c.py"),
        st.integers(0, 10**6),
        words | st.just(""),
        rules.map(tuple),
    )
    return st.none() | plain | odd


_RANGES = st.sampled_from(["1..8..32", "0..", "..", "..5", "2..64", "-3..0..7", "4..4..4"]).map(
    Range.parse
)

# --------------------------------------------------------------------------- wild graphs

_HINTS = st.sampled_from(["", "", "x", "x", "x_1", "x_2", "7", "self", "é", "a.b", "2d", "return"])
_NAMES = ["w", "layers.0.weight", "odd name", 'q"', "ünï", "a..b", "0", "fc.bias", "with", "tail."]


@attrs.define
class _Wild:
    """Draws one graph: what is visible grows node by node."""

    draw: Draw
    graph: Graph
    visible: list[Value] = attrs.field(factory=list)

    def inputs(self) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.visible.append(self.graph.add_input(self.draw(types()), self.draw(_HINTS)))

    def values(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.visible) if self.visible else st.none()

    def argument(self) -> Any:
        leaves = LEAVES | self.values() if self.visible else LEAVES
        return self.draw(attributes(leaves))

    def call(self, depth: int) -> tuple[Op, dict[str, Any], int]:
        """An op, its arguments by name, and the number of its results."""
        if self.visible and self.draw(st.booleans()):
            x = self.draw(self.values())
            optional = {
                "bias": self.draw(st.none() | self.values()),
                "scale": self.draw(st.sampled_from([1.0, 2.0])),
                "mask": self.draw(st.none() | self.values()),
                "like": self.argument(),
                "mode": self.draw(st.sampled_from(["none", "sum"])),
            }
            return MIXED, MIXED.bind((x, self.draw(st.integers(0, 3))), optional), 1
        args = [self.argument() for _ in range(self.draw(st.integers(0, 3)))]
        if depth and self.draw(st.integers(0, 3)) == 0:
            args += [self.region(depth) for _ in range(self.draw(st.integers(1, 2)))]
        extra = {"alpha": self.argument()} if self.draw(st.booleans()) else {}
        return ANYTHING, ANYTHING.bind(args, extra), self.draw(st.integers(0, 3))

    def region(self, depth: int) -> Graph:
        name = self.draw(st.sampled_from(["body", "true", "odd name"]))
        graph = Graph(name, device=self.graph.device, stage=self.graph.stage)
        wild = _Wild(self.draw, graph)
        wild.inputs()
        wild.nodes(depth - 1)
        wild.symbols()
        graph.set_outputs(self.draw(st.lists(wild.values(), max_size=2)) if wild.visible else [])
        return graph

    def nodes(self, depth: int) -> None:
        for _ in range(self.draw(st.integers(0, 5))):
            op, args, count = self.call(depth)
            node = make_node(
                op,
                args,
                [self.draw(types()) for _ in range(count)],
                self.draw(locations()),
                [self.draw(_HINTS) for _ in range(count)],
            )
            self.visible += self.graph.insert(node).results

    def symbols(self) -> None:
        """Some of the symbols that some of the values mention."""
        for value in (value for value in self.visible if not value.is_constant):
            equations = [(value.type.expr, None)] if isinstance(value.type, ScalarType) else []
            if isinstance(value.type, TensorType):
                equations = [(dim, at) for at, dim in enumerate(value.type.shape)]
            for equation, dim in equations:
                if isinstance(equation, sympy.Basic) and self.draw(st.booleans()):
                    names = sorted(equation.free_symbols, key=str)
                    ranges = self.draw(st.lists(_RANGES, min_size=1, max_size=2)).copy()
                    self.graph.symbols.setdefault(names[0], SymbolInfo(tuple(ranges), value, dim))

    # -- what only whole graphs have

    def constants(self) -> None:
        names = self.draw(st.lists(st.sampled_from(_NAMES), max_size=5, unique=True))
        sources: list[Value] = []
        for name in names:
            kind = self.draw(st.sampled_from(["parameter", "buffer", "constant"]))
            aliases = [f"{name}{tail}" for tail in self.draw(st.sampled_from([(), (".t", "!")]))]
            source = self.graph.add_constant(name, self.draw(types()), kind=kind, aliases=aliases)
            sources.append(source)
        self.visible += sources
        if sources and self.draw(st.booleans()):
            self.recipes(sources)

    def recipes(self, sources: Sequence[Value]) -> None:
        wild = _Wild(self.draw, self.graph.prepare, [*sources])
        wild.nodes(depth=1)
        recipes = self.draw(st.lists(wild.values(), min_size=1, max_size=3))
        for number, recipe in enumerate(recipes):
            prepared = self.graph.add_prepared(f"prepared.{number}", recipe)
            self.visible.append(prepared)

    def ending(self) -> None:
        if not self.visible:
            self.graph.set_outputs([])
            return
        outputs = self.draw(st.lists(self.values(), max_size=3))
        specs = [self.spec(number) for number in range(len(outputs))]
        bases = [v for v in self.visible if v.is_input or (v.is_constant and v.is_source)]
        targets = (
            self.draw(st.lists(st.sampled_from(bases), max_size=2, unique=True)) if bases else []
        )
        pairs = [(target, self.draw(self.values())) for target in targets]
        self.graph.set_outputs(outputs, results=specs, writebacks=pairs)
        self.graph.terminator.loc = self.draw(locations())

    def spec(self, number: int) -> ResultSpec:
        bases: list[Any] = [*self.graph.inputs, *range(number)]
        views = (
            ViewStep(get_op("aten.transpose.int"), Attributes({"dim0": 0, "dim1": 1})),
            ViewStep(get_op("aten.split.Tensor"), Attributes({"split_size": 2, "dim": -1}), 1),
            ViewStep(get_op("aten.alias"), Attributes()),
        )
        alias = self.draw(st.none() | st.sampled_from(bases)) if bases else None
        chain = self.draw(st.lists(st.sampled_from(views), max_size=3)) if alias is not None else ()
        strides = self.draw(st.none() | st.lists(st.integers(0, 9) | expressions()).map(tuple))
        shares = self.draw(st.sampled_from([None, number - 1])) if number else None
        return ResultSpec(strides, alias, tuple(chain), shares)


@st.composite
def wild_graphs(draw: Draw) -> Graph:
    """Graphs that are well formed, with everything that a graph can hold, and mean nothing."""
    graph = Graph(
        draw(st.sampled_from(["main", "odd name", "a.b"])),
        device=draw(st.sampled_from(["cpu", "cuda:0"])),
        stage=draw(st.sampled_from(["imported", "fused"])),
    )
    wild = _Wild(draw, graph)
    wild.inputs()
    wild.constants()
    wild.nodes(depth=2)
    wild.symbols()
    wild.ending()
    return graph


# --------------------------------------------------------------------------- programs


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
        number = (
            st.sampled_from([2, 0.5, -0.0, symbol("s0") + 1]) if self.graph.symbols else st.just(2)
        )
        known = symbol("s0") in self.graph.symbols
        b = self.draw(st.just(self.like(a)) | (number if known else st.just(2)))
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
