"""What Inductor is given, what it assumed, and that options stay with one compile."""

import pytest
import torch

import rewright
from rewright.backends.torch import inductor
from rewright.backends.torch.inductor import Inductor, part_of
from rewright.errors import CompileError, FallbackWarning
from rewright.ir.parser import parse_graph
from tests.backends.torch.programs import program, random_data

TEXT = """
graph @main(%x: f32[s0, 4], %n: f32[2*s1]) -> (f32[s0, 4], f32[s0, 4], i64[u0], int(s0), int(u0))
  where s0 in {1..64} = dim(%x, 0), s1 in {1..8} with 2*s1 = dim(%n, 0), u0 in {0..} = dim(%i, 0)
{
  %y = aten.linear(%x, @w) : f32[s0, 4]
  %z = aten.softmax.int(%y, -1) : f32[s0, 4]
  %c = aten.add.Tensor(@count, 1) : i64[]
  %i = aten.nonzero(%n) : i64[u0, 1]
  %j = aten.reshape(%i, [u0]) : i64[u0]
  %a = rw.scalar(s0) : int(s0)
  %b = rw.scalar(u0) : int(u0)
  return %z, %x {alias=%x}, %j, %a, %b
  writeback @count = %c
}
constants {
  parameter @w : f32[4, 4]
  buffer @count : i64[]
}
"""


def test_a_part_has_what_the_end_of_a_program_needs():
    graph = parse_graph(TEXT)
    random_data(graph)
    part = part_of(graph, arriving=())
    assert [s.name for s in part.sizes] == ["s0", "s1"]
    assert [c.name for c in part.constants] == ["w", "count"]
    assert [v.hint for v in part.values] == ["z", "j", "c"], "no alias, no number that is stated"
    assert [s.name for s in part.symbols] == ["u0"]
    assert part.strides[graph.constants["w"]] == (4, 1)
    assert part_of(graph, arriving=("w",)).strides.keys() == {graph.constants["count"]}


def test_what_only_an_alias_needs_is_not_compiled():
    graph = parse_graph("""
    graph @main(%x: f32[4]) -> (f32[2], f32[4]) {
      %d = aten.add.Tensor(%x, @unused) : f32[4]
      %v = aten.slice.Tensor(%x, 0, 0, 2) : f32[2]
      %y = aten.neg(%x) : f32[4]
      return %v {alias=%x |> aten.slice.Tensor(0, 0, 2)}, %y
    }
    constants { parameter @unused : f32[4] }
    """)
    part = part_of(graph, arriving=())
    assert [node.op.name for node in part.graph] == ["aten.neg"]
    assert part.constants == ()


@pytest.mark.slow
def test_a_program_of_inductors():
    w = torch.randn(4, 4).t()
    count = torch.zeros((), dtype=torch.int64)
    made = program(TEXT, {"w": w, "count": count}, backend="inductor")
    for size, half in ((3, 2), (1, 1), (64, 8), (2, 1)):
        x, n = torch.randn(size, 4), torch.randn(2 * half)
        n[0] = 0
        z, same, j, a, b = made(x, n)
        torch.testing.assert_close(z, torch.softmax(x @ w.T, -1))
        assert same is x
        assert torch.equal(j, n.nonzero().flatten())
        assert (a, b) == (size, 2 * half - 1)
    assert count.item() == 4


BROADCAST = """
graph @main(%x: f32[s0, 4], %y: f32[s1, 4]) -> f32[s0, 4]
  where s0 in {1..64} = dim(%x, 0), s1 in {1..64} = dim(%y, 0)
{
  %m = aten.mean.dim(%y, [0], True) : f32[1, 4]
  %z = aten.mul.Tensor(%x, %m) : f32[s0, 4]
  return %z
}
"""


@pytest.mark.slow
def test_sizes_that_break_an_assumption_make_another_variant():
    """Inductor is told sizes of 2 and more, and may take for granted that they are not 1."""
    graph = parse_graph(BROADCAST)
    compiled = Inductor(part_of(graph, arriving=()), {})
    for sizes in ((4, 5), (1, 5), (4, 1), (1, 1), (64, 64)):
        x, y = (torch.randn(size, 4) for size in sizes)
        (z,) = compiled(*sizes, x, y)
        torch.testing.assert_close(z, x * y.mean(0, keepdim=True))
    assert 1 <= len(compiled) <= 4


@pytest.mark.slow
def test_options_hold_for_one_compile():
    from torch._inductor import config

    text = """
    graph @main(%x: f32[64]) -> f32[64] {
      %y = aten.sin(%x) : f32[64]
      return %y
    }
    """
    before = config.save_config_portable()
    made = program(text, backend="inductor", **{"cpp.simdlen": 1, "fallback_random": False})
    assert config.save_config_portable() == before
    x = torch.randn(64)
    torch.testing.assert_close(made(x)[0], x.sin())


@pytest.mark.slow
def test_random_numbers_are_eagers():
    text = """
    graph @main(%x: f32[64]) -> f32[64] {
      %r = aten.rand_like(%x) : f32[64]
      %y = aten.add.Tensor(%x, %r) : f32[64]
      return %y
    }
    """
    made, x = program(text, backend="inductor"), torch.randn(64)
    torch.manual_seed(5)
    expected = x + torch.rand_like(x)
    torch.manual_seed(5)
    torch.testing.assert_close(made(x)[0], expected)


@pytest.mark.slow
def test_parameters_that_arrive_with_a_call():
    text = """
    graph @main(%x: f32[3, 4]) -> f32[3, 4] {
      %y = aten.linear(%x, @scaled) : f32[3, 4]
      %z = aten.add.Tensor(%y, @b) : f32[3, 4]
      return %z
    }
    constants {
      parameter @w : f32[4, 4]
      parameter @b : f32[4]
    }
    prepare { @scaled = aten.mul.Tensor(@w, 2.0) : f32[4, 4] }
    """
    made = program(text, late=("w", "b"), backend="inductor")
    x = torch.randn(3, 4)
    for w in (torch.randn(4, 4), torch.randn(4, 4).t()):
        b = torch.randn(8)[::2]
        torch.testing.assert_close(made(x, w, b)[0], x @ (2 * w).T + b)
    assert rewright.stats().specializations == 2


def test_what_inductor_refuses_is_an_error_of_ours():
    text = """
    graph @main(%x: f32[4]) -> f32[4] {
      %y = aten.sin(%x) : f32[4]
      return %y
    }
    """
    part = part_of(parse_graph(text), arriving=())
    with pytest.raises(CompileError, match="Inductor can't compile @main") as caught:
        Inductor(part, {"no_such_option": 1})
    assert caught.value.hint == "compile with torch_backend='eager'"


def test_without_tensors_to_compute_there_is_nothing_to_compile():
    text = """
    graph @main(%x: f32[s0]) -> int(2*s0)
      where s0 in {1..} = dim(%x, 0)
    {
      %n = rw.scalar(2*s0) : int(2*s0)
      return %n
    }
    """
    assert program(text, backend="inductor")(torch.randn(3)) == [6]


LERP = """
graph @main(%x: f32[4], %y: f32[4], %w: float(f0)) -> f32[4] where f0 in {..} = %w {
  %z = aten.lerp.Scalar(%x, %y, f0) : f32[4]
  return %z
}
"""


@pytest.mark.parametrize("number", [0.25, -0.0, float("nan")])
def test_a_float_that_inductor_asks_about_makes_another_variant(number):
    """There is no kernel for any weight: below a half, ``lerp`` is computed another way."""
    graph = parse_graph(LERP)
    compiled = Inductor(part_of(graph, arriving=()), {})
    x, y = torch.randn(4), torch.randn(4)
    before = len(compiled)
    for _ in range(2):
        (z,) = compiled(number, x, y, number)
        torch.testing.assert_close(z, torch.lerp(x, y, number), equal_nan=True)
    assert len(compiled) == before + 1


@pytest.mark.slow
def test_numbers_without_end_are_said_and_not_kept(monkeypatch):
    monkeypatch.setattr(inductor, "_VARIANTS", 6)
    graph = parse_graph(LERP)
    compiled = Inductor(part_of(graph, arriving=()), {})
    x, y = torch.randn(4), torch.randn(4)
    numbers = [number / 16 for number in range(1, 9)]
    with pytest.warns(FallbackWarning, match=r"how large a float of @main is \(f0\)") as caught:
        found = [compiled(number, x, y, number)[0] for number in numbers]
    torch.testing.assert_close(found, [torch.lerp(x, y, number) for number in numbers])
    assert len(caught) == 1
    assert len(compiled) == 6


def test_code_for_other_sizes_is_not_found_again():
    """The ranges of sizes without an example are not in the key of Inductor's cache."""
    for sizes, given in (("2..", 3), ("0..1", 0)):
        graph = parse_graph(f"""
        graph @main(%n: int(u0)) -> i64[u0] where u0 in {{{sizes}}} = %n {{
          %a = aten.arange(u0, device=cpu) : i64[u0]
          %b = aten.mul.Tensor(%a, 2) : i64[u0]
          return %b
        }}
        """)
        (found,) = Inductor(part_of(graph, arriving=()), {})(given, given)
        assert torch.equal(found, 2 * torch.arange(given))
