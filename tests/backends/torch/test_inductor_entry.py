"""Inductor is entered behind AOTAutograd, with nothing that mutates, and options lose nothing."""

import pytest
import torch
from torch._higher_order_ops.effects import _EffectType, _register_effectful_op
from torch._inductor import compile_fx
from torch._ops import OpOverload

from rewright.backends.torch.inductor import Inductor, part_of
from rewright.ir.parser import parse_graph

IN_PLACE = """
graph @main(%x: f32[2, 4, 16, 8]) -> (f32[2, 4, 1, 1], f32[2, 4, 16, 8], f32[2, 4, 16, 8]) {
  %n = aten.rms_norm(%x, [8]) : f32[2, 4, 16, 8]
  %p = aten.adaptive_avg_pool2d(%n, [1, 1]) : f32[2, 4, 1, 1]
  %g = rw.gated(%x, %n, activation="silu") : f32[2, 4, 16, 8]
  %l = rw.layout(%g, [512, 1, 32, 4]) : f32[2, 4, 16, 8]
  return %p, %n, %l
}
"""
"""Ops that torch, or our implementations of them, compute with calls that write in place."""


@pytest.fixture
def forwarded(monkeypatch):
    """The graphs that come in behind AOTAutograd, as they come; AOTAutograd itself must not run."""
    seen = []
    forward = compile_fx.compile_fx_forward

    def noted(module, *args, **kwargs):
        seen.append([node.target for node in module.graph.nodes if node.op == "call_function"])
        return forward(module, *args, **kwargs)

    monkeypatch.setattr(compile_fx, "compile_fx_forward", noted)
    monkeypatch.setattr(compile_fx, "aot_autograd", None)
    return seen


def test_inductor_gets_functional_operators_in_one_trace(forwarded):
    graph = parse_graph(IN_PLACE)
    x = torch.randn(2, 4, 16, 8)
    pooled, normed, gated = Inductor(part_of(graph, arriving=()), {})(x)
    (targets,) = forwarded
    assert torch.ops.aten.rms_norm.default not in targets, "decomposed as Inductor has it"
    assert all(isinstance(t, OpOverload) and not t._schema.is_mutable for t in targets)
    wanted = torch.nn.functional.rms_norm(x, (8,))
    torch.testing.assert_close(normed, wanted)
    torch.testing.assert_close(pooled, wanted.mean((2, 3), keepdim=True))
    torch.testing.assert_close(gated, torch.nn.functional.silu(x) * wanted)
    assert gated.stride() == (512, 1, 32, 4)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["pre_grad_custom_pass", "cpp_wrapper", "pattern_matcher"])
def test_options_that_ask_for_something_ahead_are_heard(option, monkeypatch):
    calls, ran = [], []
    standalone = torch._inductor.standalone_compile

    def noted(*args, **kwargs):
        calls.append(kwargs)
        return standalone(*args, **kwargs)

    monkeypatch.setattr(torch._inductor, "standalone_compile", noted)
    given = ran.append if option == "pre_grad_custom_pass" else True
    graph, x = parse_graph(IN_PLACE), torch.randn(2, 4, 16, 8)
    _, normed, _ = Inductor(part_of(graph, arriving=()), {option: given})(x)
    torch.testing.assert_close(normed, torch.nn.functional.rms_norm(x, (8,)))
    assert len(calls) == 1
    assert len(ran) == (1 if option == "pre_grad_custom_pass" else 0)


def test_inductors_patterns_are_not_traced(forwarded, monkeypatch):
    """Nothing is matched by them; what its passes do without patterns is done all the same."""
    from torch._inductor.fx_passes import joint_graph

    monkeypatch.setattr(joint_graph, "lazy_init", None)
    graph = parse_graph("""
    graph @main(%x: f32[4, 8]) -> f32[4, 8] {
      %z = aten.zeros_like(%x) : f32[4, 8]
      %y = aten.add.Tensor(%x, %z) : f32[4, 8]
      %c = aten.clone(%y) : f32[4, 8]
      %r = aten.sin(%c) : f32[4, 8]
      return %r
    }
    """)
    x = torch.randn(4, 8)
    torch.testing.assert_close(Inductor(part_of(graph, arriving=()), {})(x), [x.sin()])
    (targets,) = forwarded
    assert torch.ops.aten.sin.default in targets
    assert not {torch.ops.aten.add.Tensor, torch.ops.aten.clone.default} & {*targets}


FOLDED = """
graph @main(%x: f32[4, 6]) -> (f32[4, 6], f32[6, 4], f32[4, 6], f32[4, 6]) {
  %z = aten.zeros([4, 6]) : f32[4, 6]
  %y = aten.add.Tensor(%x, %z) : f32[4, 6]
  %t = aten.t(%y) : f32[6, 4]
  %s = aten.sin(%x) : f32[4, 6]
  %o = aten.ones([4, 6]) : f32[4, 6]
  %p = aten.mul.Tensor(%s, %o) : f32[4, 6]
  %w = aten.cos(%s) : f32[4, 6]
  return %y, %t, %s, %p
}
"""


def test_what_is_folded_away_has_memory_of_its_own(forwarded):
    """What is written to an argument after the call must not reach a result of ``x + 0``."""
    x = torch.randn(4, 6)
    before = x.clone()
    y, t, s, p = Inductor(part_of(parse_graph(FOLDED), arriving=()), {})(x)
    (targets,) = forwarded
    assert not {torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor} & {*targets}, "folded"
    s.add_(7)
    x.add_(1)
    torch.testing.assert_close([y, t, p], [before, before.t(), before.sin()])


def double(x):
    return 2 * x


def test_operators_whose_effects_have_an_order_go_through_autograds(monkeypatch):
    with torch.library._scoped_library("rewright_tests", "FRAGMENT") as library:
        library.define("ordered(Tensor x) -> Tensor")
        library.impl("ordered", double, "CompositeExplicitAutograd")
        operator = torch.ops.rewright_tests.ordered.default
        known = _register_effectful_op(operator, _EffectType.ORDERED)
        try:
            text = """
            graph @main(%x: f32[4]) -> f32[4] {
              %a = rewright_tests.ordered(%x) : f32[4]
              %b = rewright_tests.ordered(%a) : f32[4]
              return %b
            }
            """
            x = torch.randn(4)
            (found,) = Inductor(part_of(parse_graph(text), arriving=()), {})(x)
        finally:
            known.destroy()
        torch.testing.assert_close(found, 4 * x)


@pytest.mark.slow
def test_random_numbers_of_inductors_own_need_its_passes(forwarded):
    graph = parse_graph("""
    graph @main(%x: f32[4096]) -> f32[4096] {
      %r = aten.rand_like(%x) : f32[4096]
      %y = aten.add.Tensor(%x, %r) : f32[4096]
      return %y
    }
    """)
    x = torch.zeros(4096)
    (found,) = Inductor(part_of(graph, arriving=()), {"fallback_random": False})(x)
    assert 0 <= found.min() < 0.01 and 0.99 < found.max() < 1
    assert found.mean().item() == pytest.approx(0.5, abs=0.05)
