"""Folding in whole compiles: the same numbers, for whatever weights there are."""

from collections.abc import Iterator

import pytest
import torch

import rewright
from rewright.backends.torch.prepare import prepare
from rewright.ir.contents import equal_contents
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from rewright.passes import EXACT, Pipeline
from rewright.passes.folding.fold_constants import FoldConstants
from tests.frontends.jit import compiles, jit, same
from tests.passes.graphs import ops

FOLD = {"pipeline": "default,fold-constants"}


class Scaled(torch.nn.Module):
    """A linear layer whose weight is computed from parameters in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 8))
        self.scale = torch.nn.Parameter(torch.rand(8))
        self.register_buffer("shift", torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight * torch.rsqrt(self.scale + 1)
        return torch.nn.functional.linear(x, weight, self.shift.neg().exp())


X = torch.linspace(-2, 2, 32).reshape(4, 8)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def fold(graph: Graph, **options) -> Graph:
    Pipeline((FoldConstants(**options),)).run(graph)
    return graph


# --------------------------------------------------------------------------- two ways to compile


def test_an_exported_program_computes_its_constants_once():
    model = Scaled().eval()
    exported = torch.export.export(model, (X,))
    program = rewright.compile_exported(exported, **FOLD)
    assert [node.op.name for node in program.graph] == ["rw.linear"]
    same(program(X), model(X).detach())
    assert program.prepared_bytes == 8 * 8 * 4 + 8 * 4
    assert "2 prepared (288 B)" in program.report()


def replace_parameter(model: Scaled) -> None:
    model.weight = torch.nn.Parameter(torch.randn(8, 8))


def swap_data(model: Scaled) -> None:
    model.scale.data = torch.rand(8)


def edit_in_place(model: Scaled) -> None:
    with torch.no_grad():
        model.weight.mul_(-0.5)


def load_state(model: Scaled) -> None:
    model.load_state_dict(Scaled().state_dict())


def replace_buffer(model: Scaled) -> None:
    model.shift = torch.rand(8)


@pytest.mark.parametrize(
    "change",
    [replace_parameter, swap_data, edit_in_place, load_state, replace_buffer],
    ids=lambda change: change.__name__,
)
@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_a_changed_parameter_is_seen(change, torch_backend):
    model = Scaled().eval()
    compiled = jit(model, options={**FOLD, "torch_backend": torch_backend})
    with torch.no_grad(), compiles():
        same(compiled(X), model(X))
        before = model(X)
        change(model)
        same(compiled(X), model(X))
    assert not torch.allclose(model(X), before), "the change should matter"


def test_two_instances_share_a_graph_and_no_constants():
    first, second = Scaled().eval(), Scaled().eval()
    with torch.no_grad(), compiles(1):
        compiled = [jit(model, options=FOLD) for model in (first, second)]
        for _ in range(2):
            for function, model in zip(compiled, (first, second), strict=True):
                same(function(X), model(X))


def test_a_buffer_that_the_program_writes_to_is_no_constant():
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.count * 2
            self.count.add_(1)
            return x + before

    mine, theirs = Counting(), Counting()
    compiled = jit(mine, options=FOLD)
    with compiles(1):
        for _ in range(3):
            same(compiled(X), theirs(X))
    same(mine.count, theirs.count)


# --------------------------------------------------------------------------- exactness

HALF = """
graph @main() -> (f16[4], f16[4], f16[4]) {
  %a = aten.mul.Tensor(@w, 3.0) : f16[4]
  %b = aten.div.Tensor(%a, 7.0) : f16[4]
  %c = aten.flip(%a, [0]) : f16[4]
  return %a, %b, %c
}
constants { parameter @w : f16[4] }
"""


def test_rounding_moves_only_where_it_may():
    assert ops(fold(parse_graph(HALF))) == []
    exact = parse_graph(HALF)
    Pipeline((FoldConstants(),)).run(exact, exactness=EXACT)
    assert ops(exact) == ["aten.div.Tensor"]
    weight = {"w": torch.randn(4).half()}
    expected = interpret(parse_graph(HALF), (), constants=weight).outputs
    prepared = prepare(exact, weight)
    found = interpret(exact, (), constants={**weight, **prepared}).outputs
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_recipe_that_is_there_already_is_not_rounded_either():
    graph = parse_graph("""
    graph @main() -> bool[4] {
      %a = aten.gt.Scalar(@p, 1.0) : bool[4]
      return %a
    }
    constants { parameter @w : f16[4] }
    prepare { @p = aten.mul.Tensor(@w, 3.0) : f16[4] }
    """)
    assert ops(fold(graph)) == ["aten.gt.Scalar"]


# --------------------------------------------------------------------------- sharing


def test_tensors_of_the_program_with_the_same_bits_are_one():
    graph = parse_graph("""
    graph @main(%x: f32[2]) -> (f32[2], f32[2], f32[2]) {
      %a = aten.add.Tensor(%x, @a) : f32[2]
      %b = aten.add.Tensor(%x, @b) : f32[2]
      %c = aten.add.Tensor(%x, @c) : f32[2]
      return %a, %b, %c
    }
    constants { constant @a : f32[2]  constant @b : f32[2]  constant @c : f32[2]
      parameter @p : f32[2] }
    """)
    zero = torch.zeros(2)
    for name, data in zip("abcp", (zero, zero.clone(), -zero, zero.clone()), strict=True):
        graph.constants[name].data = data
    fold(graph)
    assert [*graph.constants] == ["a", "c", "p"], "-0.0 is no 0.0, and a parameter its own"
    assert graph.constants["a"].aliases == ("b",)


def test_prepared_constants_with_the_same_bits_are_kept_once():
    graph = parse_graph("""
    graph @main() -> (f32[100], f32[100], f32[100]) { return @p, @q, @r }
    constants { parameter @v : f32[100]  parameter @w : f32[100] }
    prepare {
      @p = aten.exp(@v) : f32[100]
      @q = aten.exp(@w) : f32[100]
      @r = aten.neg(@w) : f32[100]
    }
    """)
    ones = torch.ones(100)
    made = prepare(graph, {"v": ones, "w": ones.clone()})
    assert made["p"] is made["q"]
    assert torch.equal(made["r"], -ones)
    other = ones.clone()
    other[37] = 2
    made = prepare(graph, {"v": ones, "w": other})
    assert made["p"] is not made["q"]


def test_tied_weights_stay_one():
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(8, 4)
            self.head = torch.nn.Linear(4, 8, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            scaled = self.head.weight * 0.5
            return self.embed(ids) @ scaled.t() + self.embed(ids) @ (self.embed.weight * 0.5).t()

    model, ids = Tied().eval(), torch.tensor([1, 2, 7])
    program = rewright.compile_exported(torch.export.export(model, (ids,)), **FOLD)
    assert sum(c.is_source for c in program.graph.constants.values()) == 1
    assert sum(not c.is_source for c in program.graph.constants.values()) == 1
    torch.testing.assert_close(program(ids), model(ids).detach())


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64], ids=str
)
def test_contents_are_compared_by_their_bits(dtype):
    base = (torch.arange(300) % 2).reshape(3, 100)
    tensors = {
        "a": base.to(dtype),
        "b": base.to(dtype).t().contiguous().t(),
        "shape": base.to(dtype).reshape(100, 3),
        "dtype": base.to(torch.int32),
        "late": base.index_fill(0, torch.tensor([2]), 0).to(dtype),
    }
    assert equal_contents(tensors) == [["a", "b"]]
    assert equal_contents(tensors, max_bytes=10) == []
    nan = torch.tensor([float("nan"), -0.0])
    assert equal_contents({1: nan, 2: nan.clone(), 3: nan.abs()}) == [[1, 2]]


# --------------------------------------------------------------------------- bounds


def test_all_prepared_constants_together_are_bounded():
    lines = "\n".join(f"  %a{i} = aten.mul.Tensor(@w, {i}.5) : f32[4096]" for i in range(8))
    names = ", ".join(f"%a{i}" for i in range(8))
    types = ", ".join(["f32[4096]"] * 8)
    text = f"graph @main() -> ({types}) {{\n{lines}\n  return {names}\n}}\n"
    text += "constants { parameter @w : f32[4096] }"
    folded = fold(parse_graph(text), max_growth=3.0, small=0)
    assert len(folded.prepare.prepared_names) == 3
    assert len(folded) == 5


def test_folding_again_and_again_does_not_grow():
    text = """
    graph @main(%x: f32[64]) -> f32[64] {
      %a = aten.cat([@p, @p]) : f32[64]
      %y = aten.add.Tensor(%x, %a) : f32[64]
      return %y
    }
    constants { parameter @w : f32[16] }
    prepare { @p = aten.cat([@w, @w]) : f32[32] }
    """
    folded = fold(parse_graph(text), small=0)
    assert ops(folded) == ["aten.cat", "aten.add.Tensor"], "four times the source"
