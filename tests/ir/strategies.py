"""Random parts of the IR, and random graphs that mean nothing.

``wild_graphs()`` are well formed, but ops of the tests' own take any attributes, and values have
any types and any names. They are for text and copies. Graphs that run are in
:mod:`tests.ir.programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import attrs
import sympy
import torch
from hypothesis import strategies as st
from torch.utils._sympy import functions as torch_fns

from rewright.ir.attributes import Attributes, Record, map_leaves
from rewright.ir.builder import make_node
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


@cache
def expressions() -> st.SearchStrategy[Any]:
    """Integer expressions over a few symbols; some are plain ints."""
    leaves = st.one_of(st.sampled_from(_INTEGERS), st.integers(-64, 64).map(sympy.Integer))
    return st.recursive(leaves, _grown, max_leaves=5).map(simplify)


@cache
def conditions() -> st.SearchStrategy[Any]:
    """Boolean expressions; some are plain bools."""
    relations = st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge])
    one = st.builds(lambda make, a, b: make(a, b), relations, expressions(), expressions())
    both = st.builds(sympy.And, one, one) | st.builds(sympy.Or, one, one)
    return st.one_of(one, both, one.map(sympy.Not)).map(simplify)


# Sympy takes its time over random expressions. Where they are not what a test is about, some do.
_S, _T, _U = (symbol(name) for name in ("s0", "s12", "u8"))
SIZES = (
    *(_S, _U, 2 * _S + 1, _S * _T, -_U, _S - _T, _S**2, 64 * (_S + _T) * _U),
    *(torch_fns.FloorDiv(_S, 2), -torch_fns.FloorDiv(_S + 1, 4), torch_fns.Mod(_T, 8) + 3),
    *(torch_fns.Max(_S, _T, 1), torch_fns.Min(_U, 7) - _S),
)
FACTS = (
    *(sympy.Eq(_S, 4), sympy.Ne(_U, _S), _S + _T > 3, _U <= 2 * _S, sympy.true),
    *(sympy.And(_S > 3, _T < 9), sympy.Or(_U < 0, sympy.And(_S > 3, _T < 9))),
    sympy.Not(sympy.And(_S > 3, sympy.Eq(_T, 9)), evaluate=False),
)

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
    st.sampled_from((*SIZES, *FACTS, *_SYMBOLS)).map(simplify),
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


@cache
def types() -> st.SearchStrategy[Any]:
    """Types of every kind."""
    dims = st.integers(0, 99) | st.sampled_from(SIZES)
    return st.one_of(
        st.builds(
            TensorType,
            st.sampled_from([*DTYPE_NAMES]),
            st.lists(dims, max_size=4).map(tuple),
            st.none() | st.sampled_from(_DEVICES),
        ),
        st.just(ScalarType("int")),
        st.builds(ScalarType, st.just("int"), st.sampled_from(SIZES)),
        st.builds(ScalarType, st.just("float"), st.floats() | st.just(symbol("f1"))),
        st.builds(ScalarType, st.just("bool"), st.sampled_from(FACTS)),
        st.just(NoneType()),
        st.sampled_from(["str", "ScriptObject", "list of str"]).map(OpaqueType),
    )


@cache
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


@attrs.frozen
class _Slot:
    """Stands for one of the values that are visible where it is put."""

    number: int


_ARGUMENTS = attributes(LEAVES | st.builds(_Slot, st.integers(0, 99)))


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
        def put(leaf: Any) -> Any:
            if not isinstance(leaf, _Slot):
                return leaf
            return self.visible[leaf.number % len(self.visible)] if self.visible else None

        return map_leaves(self.draw(_ARGUMENTS), put)

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
        strides = self.draw(
            st.none() | st.lists(st.integers(0, 9) | st.sampled_from(SIZES)).map(tuple)
        )
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
