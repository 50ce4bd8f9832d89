"""Random graphs of some sixty ops, made to be simplified: chains, neutral numbers, constants.

Each move adds a node or two if torch's shape rules take it for all sizes, and nothing otherwise.
Inputs hold zeros of both signs, infinities and nans, so that a law that is only nearly one shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from rewright.errors import RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.location import Location
from rewright.ir.sizes import Range, evaluate, symbol
from rewright.ir.types import TensorType
from tests.ir.strategies import Draw

S0 = symbol("s0")
FLOATS = (torch.float32, torch.float64, torch.float16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.bool)
ODD = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0)


@attrs.define
class Grower:
    """Grows a graph, move by move."""

    draw: Draw
    graph: Graph = attrs.field(factory=Graph)
    values: list[Value] = attrs.field(factory=list)

    def one(self, *items: Any) -> Any:
        """One of `items`."""
        return self.draw(st.sampled_from(items))

    def value(self, *dtypes: torch.dtype, rank: Sequence[int] = ()) -> Value:
        """A value of one of `dtypes` (any by default), mostly the newest."""
        fitting = [
            v
            for v in self.values
            if (not dtypes or v.type.dtype in dtypes) and (not rank or v.type.rank in rank)
        ]
        if not fitting:
            raise RewrightError("there is no such value")
        newest = self.draw(st.integers(0, 3))
        return fitting[-1] if newest else self.draw(st.sampled_from(fitting))

    def like(self, value: Value) -> Value:
        """A value of the same dtype, of the same shape where there is a choice of it."""
        same = [v for v in self.values if v.type == value.type]
        others = [v for v in self.values if v.type.dtype == value.type.dtype]
        return self.draw(st.sampled_from(same if self.draw(st.booleans()) else others))

    def dim(self, value: Value, extra: int = 0) -> int:
        """A dimension of `value`, from either end."""
        rank = value.type.rank + extra
        if not rank:
            raise RewrightError("it has no dimensions")
        return self.draw(st.integers(-rank, rank - 1))

    def call(self, op: str, *args: Any, **kwargs: Any) -> None:
        """Adds a node; its results are values from now on."""
        made = Builder(self.graph, loc=Location("net.py", len(self.graph) + 1)).call(
            op, *args, **kwargs
        )
        for result in made if isinstance(made, tuple) else (made,):
            numel = result.type.numel
            if result.type.rank <= 5 and (not isinstance(numel, int) or numel <= 4096):
                self.values.append(result)


Move = Callable[[Grower], None]
NUMBERS = (1, 0, -1, 2, 3, 1.0, 0.0, -0.0, 0.5, -2.0)
INTEGERS = (torch.int64, torch.int32)


def unary(names: str, *dtypes: torch.dtype) -> list[Move]:
    return [lambda g, n=n: g.call(f"aten.{n}", g.value(*dtypes)) for n in names.split()]


def binary(names: str, *dtypes: torch.dtype) -> list[Move]:
    def move(g: Grower, name: str) -> None:
        x = g.value(*dtypes)
        g.call(f"aten.{name}", x, g.like(x))

    return [lambda g, n=n: move(g, n) for n in names.split()]


def with_number(names: str, *dtypes: torch.dtype, numbers: Sequence[Any] = NUMBERS) -> list[Move]:
    return [
        lambda g, n=n: g.call(f"aten.{n}", g.value(*dtypes), g.one(*numbers)) for n in names.split()
    ]


def reshape(g: Grower) -> None:
    x = g.value()
    shape, at = list(x.type.shape), g.draw(st.integers(0, x.type.rank))
    if g.draw(st.booleans()) and len(shape) >= 2:
        at = min(at, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif g.draw(st.booleans()):
        shape.insert(at, 1)
    else:
        shape = [math.prod(shape)]
    g.call("aten.reshape", x, shape)


def permute(g: Grower) -> None:
    x = g.value()
    order = g.draw(st.permutations(range(x.type.rank)))
    g.call("aten.permute", x, [d - x.type.rank if g.draw(st.booleans()) else d for d in order])


def transpose(g: Grower) -> None:
    x = g.value()
    g.call("aten.transpose.int", x, g.dim(x), g.dim(x))


def expand(g: Grower) -> None:
    x = g.value()
    size = [g.one(1, 2, S0) if d == 1 else d for d in x.type.shape]
    g.call("aten.expand", x, [g.one(1, 3), *size] if g.draw(st.booleans()) else size)


def repeat(g: Grower) -> None:
    x = g.value()
    g.call("aten.repeat", x, [g.one(1, 1, 2) for _ in x.type.shape])


def cut(g: Grower) -> None:
    x = g.value()
    bounds = g.one((0, None), (1, None), (0, 2), (-2, None), (1, -1), (0, 2**63 - 1), (1, 3))
    g.call("aten.slice.Tensor", x, g.dim(x), *bounds)


def together(op: str) -> Move:
    def move(g: Grower) -> None:
        x = g.value(rank=(1, 2, 3, 4))
        parts = [x, *(g.like(x) for _ in range(g.one(0, 1, 2)))]
        g.call(op, parts, g.dim(x))

    return move


def split_and_cat(g: Grower) -> None:
    x = g.value(rank=(1, 2, 3))
    at, before = g.dim(x), len(g.values)
    g.call("aten.split.Tensor", x, g.one(1, 2, 3), at)
    parts = g.values[before:]
    if g.draw(st.booleans()):
        g.call("aten.cat", parts, at)


def weight(g: Grower) -> None:
    shape = tuple(g.one(1, 2, 3, 4) for _ in range(g.one(0, 1, 2)))
    kind = TensorType(g.one(*DTYPES), shape)
    name = f"w{len(g.graph.constants)}"
    kept = g.one("parameter", "buffer", "constant")
    g.values.append(g.graph.add_constant(name, kind, kind=kept, data=numbers_of(kind, shape, g)))


def cast(g: Grower) -> None:
    g.call("aten._to_copy", g.value(), dtype=g.one(*DTYPES))


def choose(g: Grower) -> None:
    x = g.value()
    g.call("aten.where.self", g.value(torch.bool), x, g.like(x))


def fill(g: Grower) -> None:
    g.call("aten.masked_fill.Scalar", g.value(*FLOATS), g.value(torch.bool), g.one(*NUMBERS))


def reduce(op: str) -> Move:
    def move(g: Grower) -> None:
        x = g.value(*FLOATS, rank=(1, 2, 3))
        g.call(op, x, [g.dim(x)], g.one(True, False))

    return move


def squeeze(g: Grower) -> None:
    x = g.value()
    ones = [at for at, size in enumerate(x.type.shape) if size == 1]
    g.call("aten.squeeze.dim", x, g.one(*ones) if ones else 0)


def along(op: str, *choices: Any) -> Move:
    """An op that takes a dimension, and then one of `choices`."""

    def move(g: Grower) -> None:
        x = g.value(rank=(1, 2, 3))
        g.call(op, x, g.dim(x), *([g.one(*choices)] if choices else []))

    return move


def softmax(g: Grower) -> None:
    x = g.value(*FLOATS, rank=(1, 2, 3))
    g.call("aten.softmax.int", x, g.dim(x))


def narrow(g: Grower) -> None:
    x = g.value(rank=(1, 2, 3))
    g.call("aten.narrow", x, g.dim(x), g.one(0, 1), g.one(1, 2))


MOVES: tuple[Move, ...] = (
    *unary("relu neg abs floor ceil round sign", *FLOATS, *INTEGERS),
    *unary("exp tanh sigmoid square", *FLOATS),
    *unary("logical_not"),
    *unary("bitwise_not", torch.bool, *INTEGERS),
    *binary("add.Tensor sub.Tensor mul.Tensor maximum minimum", *FLOATS, *INTEGERS),
    *binary("eq.Tensor ne.Tensor lt.Tensor ge.Tensor", *FLOATS, *INTEGERS),
    *binary("logical_and logical_or bitwise_and.Tensor bitwise_or.Tensor", torch.bool),
    *binary("min.other outer", *FLOATS),
    *with_number("add.Tensor sub.Tensor mul.Tensor", *FLOATS, *INTEGERS),
    *with_number("add.Tensor mul.Tensor", torch.bool),
    *with_number("div.Tensor", *FLOATS, numbers=(1, 2, -1, 0.5, 1.0)),
    *with_number("pow.Tensor_Scalar", *FLOATS, *INTEGERS, numbers=(1, 2, 1.0)),
    *with_number("eq.Scalar ne.Scalar lt.Scalar gt.Scalar", numbers=(0, 1, True, False)),
    *with_number("clamp_min clamp_max", *FLOATS, numbers=(0, -1.0)),
    *with_number("rsub.Scalar", *FLOATS, *INTEGERS, numbers=(0, 1)),
    *(reshape, permute, transpose, expand, repeat, cut, together("aten.cat"), split_and_cat),
    *(together("aten.stack"), weight, weight, cast, cast, choose, fill, squeeze),
    *(reduce("aten.sum.dim_IntList"), reduce("aten.mean.dim"), reduce("aten.amax")),
    *(softmax, along("aten.select.int", 0, -1), narrow),
    lambda g: g.call("aten.unsqueeze", (x := g.value()), g.dim(x, 1)),
    lambda g: g.call("aten.flip", (x := g.value()), [g.dim(x)]),
    lambda g: g.call("aten.pad", g.value(rank=(1, 2)), g.one([0, 0], [1, 0])),
    lambda g: g.call("aten.t", g.value(rank=(1, 2))),
    lambda g: g.call("aten.diff", g.value(*FLOATS, rank=(1, 2))),
    lambda g: g.call(
        "aten.full", g.one([], [2], [2, 3]), g.one(1.0, 0.5, 0.0), dtype=g.one(*FLOATS)
    ),
    lambda g: g.call("aten.arange", g.one(2, 3), dtype=g.one(*DTYPES[:-1]), device=CPU),
)
CPU = torch.device("cpu")


def numbers_of(kind: TensorType, shape: Sequence[int], g: Grower) -> torch.Tensor:
    """Numbers of a type, odd ones among them."""
    chance = torch.Generator().manual_seed(g.draw(st.integers(0, 2**16)))
    if kind.dtype == torch.bool:
        return torch.rand(shape, generator=chance) < 0.5
    if kind.dtype in INTEGERS:
        return torch.randint(-4, 5, shape, generator=chance).to(kind.dtype)
    made = torch.randn(shape, generator=chance)
    odd = torch.tensor(ODD)[torch.randint(0, len(ODD), shape, generator=chance)]
    keep = torch.rand(shape, generator=chance) < 0.8
    return torch.where(keep, made, odd).to(kind.dtype)


@attrs.frozen
class Case:
    """A graph whose sources hold data, and several sets of inputs."""

    graph: Graph
    inputs: tuple[tuple[torch.Tensor, ...], ...]


@st.composite
def cases(draw: Draw, moves: int = 14) -> Case:
    """Graphs that run, with inputs of several sizes."""
    g = Grower(draw)
    others = st.lists(st.sampled_from([(S0, 4), (2, 3), (1, 4), (S0,), ()]), max_size=3)
    shapes = [(S0, 4), *draw(others)]
    for number, shape in enumerate(shapes):
        kind = TensorType(torch.float32 if number == 0 else g.one(*DTYPES), shape)
        value = g.graph.add_input(kind, "x")
        g.values.append(value)
        if S0 in shape:
            g.graph.symbols.setdefault(S0, SymbolInfo((Range(1, None, 64),), value, 0))
    for _ in range(g.one(1, 2)):
        weight(g)
    for move in draw(st.lists(st.sampled_from(MOVES), min_size=moves // 2, max_size=moves)):
        for _ in range(g.one(1, 2)):  # twice in a row is what many rules are about
            with suppress(RewrightError):
                move(g)
    # Constants would show their own memory, and inputs prove nothing.
    made = [v for v in g.values if v.producer is not None] or [g.values[0]]
    chosen = draw(st.lists(st.sampled_from(made), max_size=3))
    g.graph.set_outputs([*(v for v in made if not v.has_uses)][-6:] + chosen or made[-1:])
    return Case(g.graph, tuple(_inputs(g, size) for size in ((1, 3) if g.graph.symbols else (1,))))


def _inputs(g: Grower, size: int) -> tuple[torch.Tensor, ...]:
    return tuple(
        numbers_of(value.type, [evaluate(dim, {S0: size}) for dim in value.type.shape], g)
        for value in g.graph.inputs
    )
