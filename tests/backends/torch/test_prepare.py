"""Recipes: computed once, wide, rounded once."""

import pytest
import torch

import rewright
from rewright.backends.torch.prepare import prepare, recipe_sources
from rewright.ir.interpreter import prepare_constants
from rewright.ir.parser import parse_graph
from tests.backends.torch.programs import program

FOLDED = """
graph @main(%x: DT[2, 4]) -> DT[2, 4] {
  %y = aten.linear(%x, @w.scaled) : DT[2, 4]
  %z = aten.add.Tensor(%y, @b) : DT[2, 4]
  return %z
}
constants {
  parameter @w : DT[4, 4]
  parameter @s : DT[4]
  parameter @b : DT[4]
  parameter @unused : DT[4]
}
prepare {
  %r = aten.rsqrt(@s) : DT[4]
  %u = aten.mul.Tensor(@w, %r) : DT[4, 4]
  %v = aten.mul.Tensor(%u, 3.0) : DT[4, 4]
  @w.scaled = aten.div.Tensor(%v, 7.0) : DT[4, 4]
}
"""


def sources(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        "w": torch.randn(4, 4).to(dtype),
        "s": (torch.rand(4) + 0.5).to(dtype),
        "b": torch.randn(4).to(dtype),
    }


def test_a_program_uses_prepared_constants():
    data = sources(torch.float32)
    made = program(FOLDED.replace("DT", "f32"), data)
    x = torch.randn(2, 4)
    expected = x @ (data["w"] * data["s"].rsqrt() * 3 / 7).T + data["b"]
    torch.testing.assert_close(made(x)[0], expected)
    assert rewright.stats().specializations == 1
    assert "w.scaled" in made.source
    assert "constants['s']" not in made.source


def test_only_the_sources_of_recipes_are_read():
    graph = parse_graph(FOLDED.replace("DT", "f32"))
    assert [c.name for c in recipe_sources(graph)] == ["w", "s"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_recipes_round_once(dtype):
    """As f64 rounded once, where four steps in the dtype itself are further off."""
    name = {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    graph = parse_graph(FOLDED.replace("DT", name))
    data = sources(dtype)
    made = prepare(graph, data)["w.scaled"]
    wide = {key: value.double() for key, value in data.items()}
    expected = (wide["w"] * wide["s"].rsqrt() * 3 / 7).to(dtype)
    assert made.dtype == dtype
    assert torch.equal(made, expected)
    stepwise = prepare_constants(graph, {**data, "unused": torch.zeros(4)})["w.scaled"]
    assert not torch.equal(stepwise, expected)


def test_casts_inside_a_recipe_do_not_round():
    graph = parse_graph("""
    graph @main() -> f32[2] { return @p }
    constants { parameter @w : f32[2] }
    prepare {
      %h = aten._to_copy(@w, dtype=f16) : f16[2]
      %g = aten.mul.Tensor(%h, 3.0) : f16[2]
      @p = aten._to_copy(%g, dtype=f32) : f32[2]
    }
    """)
    w = torch.tensor([1 / 3, 1e-6])
    assert torch.equal(prepare(graph, {"w": w})["p"], w * 3)


def test_moving_elements_keeps_the_dtype_and_the_memory():
    graph = parse_graph("""
    graph @main() -> f16[3, 2] { return @p }
    constants { parameter @w : f16[2, 3] }
    prepare { @p = aten.transpose.int(@w, 0, 1) : f16[3, 2] }
    """)
    w = torch.randn(2, 3).half()
    made = prepare(graph, {"w": w})["p"]
    assert torch.equal(made, w.T)
    assert made.data_ptr() == w.data_ptr()


def test_bits_are_those_of_the_declared_dtype():
    graph = parse_graph("""
    graph @main() -> i16[2] { return @p }
    constants { parameter @w : f16[2] }
    prepare {
      %d = aten.mul.Tensor(@w, 2.0) : f16[2]
      @p = aten.view.dtype(%d, i16) : i16[2]
    }
    """)
    w = torch.randn(2).half()
    assert torch.equal(prepare(graph, {"w": w})["p"], (w * 2).view(torch.int16))


def test_a_recipe_may_be_made_of_another():
    graph = parse_graph("""
    graph @main() -> (f32[2], f32[2]) { return @p, @q }
    constants { parameter @w : f32[2] }
    prepare {
      @p = aten.neg(@w) : f32[2]
      @q = aten.mul.Tensor(@p, @p) : f32[2]
    }
    """)
    w = torch.randn(2)
    made = prepare(graph, {"w": w})
    assert torch.equal(made["p"], -w)
    assert torch.equal(made["q"], w * w)


def test_prepared_constants_are_no_inference_tensors():
    graph = parse_graph(FOLDED.replace("DT", "f32"))
    with torch.inference_mode():
        made = prepare(graph, sources(torch.float32))["w.scaled"]
    assert not made.is_inference()


def test_equal_constants_share_memory_unless_its_order_differs():
    graph = parse_graph("""
    graph @main() -> (f32[2, 3], f32[2, 3], f32[2, 3]) { return @a, @b, @c }
    constants { parameter @w : f32[2, 3] }
    prepare {
      @a = aten.neg(@w) : f32[2, 3]
      @b = aten.mul.Tensor(@w, -1.0) : f32[2, 3]
      @c = rw.layout(@a, [1, 2]) : f32[2, 3]
    }
    """)
    made = prepare(graph, {"w": torch.randn(2, 3)})
    assert made["a"].data_ptr() == made["b"].data_ptr()
    assert torch.equal(made["c"], made["a"])
    assert made["c"].stride() == (1, 2)
