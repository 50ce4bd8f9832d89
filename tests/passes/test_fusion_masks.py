"""What is said of the elements of a mask is what they are: random computations, compared."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rewright.errors import RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Value
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from rewright.passes import Pipeline
from rewright.passes.facts import ranges_of
from rewright.passes.fusion.affine import Affine, Choice, Condition, Fact
from rewright.passes.fusion.blind import may_blind
from rewright.passes.fusion.elements import Study
from rewright.passes.fusion.masks import ALWAYS, CAUSAL, leaves_something, sees

COMPARISONS = ("le", "lt", "ge", "gt", "eq", "ne")
STEPS = 14

Make = Callable[[Builder, random.Random, list[Value]], Value]


def unary(
    name: str, *options: tuple[Any, ...], of: torch.dtype | None = None, **kwargs: Any
) -> Make:
    """An op of one value (of a dtype), with one of some attributes."""

    def make(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
        x = chance.choice(those(pool, of))
        return build.call(f"aten.{name}", x, *chance.choice(options), **kwargs)

    return make


def binary(name: str, of: torch.dtype | None = None) -> Make:
    """An op of two values (of a dtype)."""

    def make(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
        operands = those(pool, of)
        return build.call(f"aten.{name}", chance.choice(operands), chance.choice(operands))

    return make


def those(pool: list[Value], of: torch.dtype | None) -> list[Value]:
    """The values of a dtype."""
    return [value for value in pool if of in (None, value.type.dtype)]


def gather(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
    """``x[i, j]``"""
    x = chance.choice(pool)
    return build.call("aten.index.Tensor", x, [chance.choice(pool) for _ in x.type.shape])


def difference(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
    """``diff(x)``, with something before it or not."""
    x = chance.choice(pool)
    before = chance.choice((None, chance.choice(pool)))
    return build.call("aten.diff", x, prepend=before)


def chosen(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
    """``where(a, b, number)``"""
    a, b = chance.choice(pool), chance.choice(pool)
    return build.call("aten.where.ScalarOther", a, b, chance.choice((0.0, -1e38, 1)))


def filled(build: Builder, chance: random.Random, pool: list[Value]) -> Value:
    """``masked_fill(a, b, number)``"""
    a, b = chance.choice(pool), chance.choice(pool)
    return build.call("aten.masked_fill.Scalar", a, b, chance.choice((0.0, -1e38, 1)))


NUMBERS = ((0,), (1,), (2,), (-1,))
OPS: tuple[Make, ...] = (
    *(binary(f"{name}.Tensor") for name in ("add", "mul")),
    *(binary(f"{name}.Tensor", torch.int64) for name in ("add", "sub", "mul")),
    *(binary(f"{name}.Tensor", torch.bool) for name in ("__and__", "bitwise_or", "mul")),
    *(binary(f"{name}.Tensor") for name in COMPARISONS),
    *(unary(f"{name}.Scalar", *NUMBERS) for name in COMPARISONS),
    *(unary(f"{name}.Tensor", *NUMBERS, of=torch.int64) for name in ("add", "sub", "mul")),
    *(unary(f"{name}.Tensor", (-1.0,), (-1e38,), of=torch.float32) for name in ("add", "mul")),
    unary("rsub.Scalar", *NUMBERS, of=torch.int64),
    unary("rsub.Scalar", (1.0,), of=torch.float32),
    unary("logical_not", (), of=torch.bool),
    unary("bitwise_not", (), of=torch.bool),
    *(unary("unsqueeze", (0,), (1,), (-1,)) for _ in range(6)),
    unary("squeeze.dim", (0,), (-1,)),
    unary("transpose.int", (0, 1), (-1, -2)),
    unary("permute", ([1, 0],), ([1, 2, 0],)),
    unary("expand", ([4, 4],), ([3, 4],), ([2, 4, 4],), ([2, 1, 4],)),
    unary("reshape", ([1, 4],), ([4, 1],), ([4, 1, 4],), ([16],)),
    unary("slice.Tensor", (0, 1), (1, 1, 3), (-1, 0, 9, 2), (0, 0, 1)),
    unary("select.int", (0, 0), (-1, 1), (1, 0)),
    unary("tril", (), (1,), (-1,)),
    unary("triu", (), (1,)),
    unary("cumsum", (0,), (-1,)),
    *(
        unary("_to_copy", (), dtype=dtype)
        for dtype in (torch.bool, torch.float32, torch.float16, torch.int64)
    ),
    *(unary(f"{name}_like", ()) for name in ("zeros", "ones")),
    filled,
    gather,
    difference,
    chosen,
)


def program(seed: int) -> Graph:
    """A graph of random ops over positions; every value is an output."""
    chance = random.Random(seed)
    graph = Graph("positions")
    build = Builder(graph)
    pool = [
        build.call("aten.arange", 4),
        build.call("aten.arange.start", 1, 5),
        build.call("aten.arange.start_step", 3, -1, -1),
        build.call("aten.zeros", (), dtype=torch.float32),
        build.call("aten.ones", (4, 4), dtype=torch.bool),
        build.call("aten.full", (4, 4), -1e38),
    ]
    for _ in range(STEPS * 3):
        try:
            pool.append(chance.choice(OPS)(build, chance, pool))
        except RewrightError:
            continue  # the shapes don't fit
        if len(pool) > STEPS + 6:
            break
    graph.set_outputs(pool)
    return graph


def value_at(fact: Fact, index: tuple[int, ...]) -> Any:
    """The element that `fact` says is at `index`."""

    def number(affine: Affine) -> int:
        return int(affine.const) + sum(factor * index[dim] for dim, factor in affine.factors)

    match fact:
        case Affine():
            return number(fact)
        case Condition(atoms):
            return atoms is not None and all(number(atom) >= 0 for atom in atoms)
        case Choice(condition, yes, no):
            return yes if value_at(condition, index) else no
    raise AssertionError(fact)


def test_elements_are_what_is_said_of_them():
    known = kinds = 0
    for seed in range(400):
        graph = program(seed)
        study = Study(ranges_of(graph))
        try:
            found = interpret(graph, ()).outputs
        except (RewrightError, RuntimeError, IndexError):
            continue  # an index out of range
        for value, tensor in zip(graph.outputs, found, strict=True):
            fact = study.of(value)
            if fact is None:
                continue
            known += 1
            kinds += not isinstance(fact, Affine)
            for index in itertools.product(*map(range, tensor.shape)):
                said, element = value_at(fact, index), tensor[index].item()
                assert said == element or abs(element) > 1e37 < abs(said), (seed, value, graph)
    assert known > 1500
    assert kinds > 400


MASK = """
graph @mask(%p: bool[s0, s1]) -> {type}
  where s0 in {{1..8}} = dim(%p, 0),
        s1 in {{1..8}} = dim(%p, 1)
{{
  %i = aten.arange(s0, device=cpu) : i64[s0]
  %j = aten.arange(s1, device=cpu) : i64[s1]
  %row = aten.unsqueeze(%i, 1) : i64[s0, 1]
  %column = aten.unsqueeze(%j, 0) : i64[1, s1]
  %zero = aten.zeros([], dtype=f32, device=cpu) : f32[]
  {body}
  return %m
}}
"""


def mask(body: str, of: str = "bool[s0, s1]") -> Value:
    """The mask that `body` computes from positions, over symbolic sizes."""
    return parse_graph(MASK.format(body=body, type=of)).outputs[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%m = aten.le.Tensor(%column, %row) : bool[s0, s1]", CAUSAL),
        ("%m = aten.ge.Tensor(%row, %column) : bool[s0, s1]", CAUSAL),
        ("%d = aten.sub.Tensor(%row, %column) : i64[s0, s1]\n"
         "  %m = aten.gt.Scalar(%d, -1) : bool[s0, s1]", CAUSAL),
        ("%d = aten.add.Tensor(%row, %column) : i64[s0, s1]\n"
         "  %m = aten.ge.Scalar(%d, 0) : bool[s0, s1]", ALWAYS),
        ("%d = aten.sub.Tensor(%row, %column) : i64[s0, s1]\n"
         "  %m = aten.lt.Scalar(%d, 8) : bool[s0, s1]", ALWAYS),  # no query is that far
        ("%a = aten.le.Tensor(%column, %row) : bool[s0, s1]\n"
         "  %m = aten.__and__.Tensor(%a, %p) : bool[s0, s1]", None),
    ],
)  # fmt: skip
def test_masks_over_symbolic_sizes(body: str, expected: Condition | None):
    assert sees(mask(body)) == expected


def test_a_window_is_no_triangle():
    found = sees(
        mask(
            "%d = aten.sub.Tensor(%row, %column) : i64[s0, s1]\n"
            "  %m = aten.lt.Scalar(%d, 7) : bool[s0, s1]"
        )
    )
    assert found not in (None, ALWAYS, CAUSAL)


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [("-inf", CAUSAL), ("-3.4028234663852886e+38", CAUSAL), ("-10000.0", None)],
)
def test_what_is_added_hides_if_it_is_low_enough(hidden: str, expected: Condition | None):
    body = (
        "%a = aten.le.Tensor(%column, %row) : bool[s0, s1]\n"
        f"  %m = aten.where.ScalarOther(%a, %zero, {hidden}) : f32[s0, s1]"
    )
    assert sees(mask(body, "f32[s0, s1]")) == expected


def test_a_mask_that_may_hide_a_whole_row():
    """Strictly below the diagonal, the first query sees nothing."""
    assert leaves_something(mask("%m = aten.gt.Tensor(%column, %row) : bool[s0, s1]"))
    assert not leaves_something(mask("%m = aten.ge.Tensor(%column, %row) : bool[s0, s1]"))


# --------------------------------------------------------------------------- all keys hidden

FULL = "aten.full([4, 4], {}, dtype=f32, device=cpu) : f32[4, 4]"
BLIND = {
    "an input": ("", "x", True),
    "a buffer": ("", "@b", True),
    "a parameter": ("", "@w", False),
    "a number": (f"%m = {FULL.format(-1e30)}", "m", False),
    "infinity": (f"%m = {FULL.format('-inf')}", "m", True),
    "a bool": ("%m = aten._to_copy(%s, dtype=f32) : f32[4, 4]", "m", False),
    "a product": ("%m = aten.matmul(%x, %x) : f32[4, 4]", "m", False),
    "a logarithm": ("%m = aten.log(@w) : f32[4, 4]", "m", True),
    "what hides by infinity": (
        "%m = aten.masked_fill.Scalar(@w, %s, -inf) : f32[4, 4]", "m", True,
    ),
    "what hides by a number": (
        "%m = aten.masked_fill.Scalar(@w, %s, -1e30) : f32[4, 4]", "m", False,
    ),
    "a number that f16 has not": (
        "%h = aten.masked_fill.Scalar(@w, %s, -1e30) : f32[4, 4]\n"
        "%m = aten._to_copy(%h, dtype=f16) : f16[4, 4]", "m", True,
    ),
    "a sum with an input": ("%m = aten.add.Tensor(@w, %x) : f32[4, 4]", "m", True),
    "a triangle": (
        f"%f = {FULL.format('-inf')}\n%m = aten.triu(%f, 1) : f32[4, 4]", "m", False,
    ),
    "a triangle that hides a query": (
        f"%f = {FULL.format('-inf')}\n%m = aten.triu(%f) : f32[4, 4]", "m", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "name", "expected"), BLIND.values(), ids=BLIND)
def test_which_masks_may_hide_all_keys_of_a_query(lines, name, expected):
    held = "f16" if "f16[" in lines else "f32"
    value = name if name.startswith("@") else f"%{name}"
    graph = parse_graph(
        f"graph @g(%x: f32[4, 4], %s: bool[4, 4]) -> ({held}[4, 4], f32[4, 4], f32[4, 4]) {{\n"
        f"{lines}\nreturn {value}, @w, @b\n}}\n"
        "constants {\nparameter @w : f32[4, 4]\nbuffer @b : f32[4, 4]\n}\n"
    )
    assert may_blind(graph.outputs[0]) is expected


@pytest.mark.parametrize("wide", [False, True])
def test_a_query_that_sees_nothing_has_nan_where_the_formula_has(wide):
    dtype, to = ("f16", "f16") if wide else ("f32", "f32")
    graph = parse_graph(
        f"""graph @g(%q: {dtype}[2, 4, 8], %k: {dtype}[2, 4, 8], %v: {dtype}[2, 4, 8], %m: {dtype}[4, 4]) -> {to}[2, 4, 8] {{
          %t = aten.transpose.int(%k, -2, -1) : {dtype}[2, 8, 4]
          %s = aten.matmul(%q, %t) : {dtype}[2, 4, 4]
          %a = aten.add.Tensor(%s, %m) : {dtype}[2, 4, 4]
          %c = aten.softmax.int(%a, -1) : {dtype}[2, 4, 4]
          %y = aten.matmul(%c, %v) : {dtype}[2, 4, 8]
          return %y
        }}"""  # noqa: E501 - IR
    )
    held = torch.float16 if wide else torch.float32
    q, k, v = (torch.randn(2, 4, 8, dtype=held) for _ in range(3))
    mask = torch.zeros(4, 4, dtype=held)
    mask[1], mask[2, 1:] = -torch.inf, -torch.inf
    (expected,) = interpret(graph, [q, k, v, mask]).outputs
    Pipeline.parse("fuse-products,fuse-attention,dce").run(graph)
    assert "rw.attention" in [node.op.name for node in graph]
    (made,) = interpret(graph, [q, k, v, mask]).outputs
    assert expected[:, 1].isnan().all() and not expected[:, 2].isnan().any()
    torch.testing.assert_close(made, expected, rtol=1e-2, atol=1e-2, equal_nan=True)
