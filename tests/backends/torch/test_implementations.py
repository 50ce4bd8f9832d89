"""Each implementation of an op of ours against the op's reference, in float64 and as it runs."""

import pytest
import torch
from torch import Tensor

from rewright.backends.torch.implementations import implementations, implements
from rewright.ir.ops import get_op
from rewright.ir.rw_ops import ACTIVATIONS
from tests.backends.torch.programs import program


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def cases(name: str) -> list[dict]:
    """Arguments for the op that the implementation called `name` is of."""
    q, k, v = randn(2, 4, 5, 8), randn(2, 4, 7, 8), randn(2, 4, 7, 6)
    square = randn(2, 4, 5, 8)
    seen = torch.rand(2, 1, 5, 7) > 0.4
    seen[0, 0, 2] = False
    x = randn(2, 6, 4)
    angles = randn(5, 8)
    cos, sin = angles.cos(), angles.sin()
    part = {"cos": cos[:, :4], "sin": sin[:, :4]}
    return {
        "rope": [
            {"x": q, "cos": cos, "sin": sin},
            {"x": q, "cos": cos, "sin": sin, "interleaved": True},
            {"x": q, **part},
            {"x": q, **part, "interleaved": True},
        ],
        "gated": [{"gate": x, "up": randn(2, 6, 4), "activation": name} for name in ACTIVATIONS],
        "restrided": [
            {"input": x, "strides": (24, 1, 6)},
            {"input": x, "strides": (24, 4, 1)},
            {"input": x[:, :1].expand(2, 6, 4), "strides": (4, 0, 1)},
        ],
        "scaled_dot_product_attention": [
            {"query": q, "key": k, "value": v},
            {"query": q, "key": k, "value": v, "scale": 0.3},
            {"query": q, "key": k, "value": v, "mask": randn(5, 7)},
            {"query": q, "key": k, "value": v, "mask": seen},
            {"query": q, "key": square, "value": square, "causal": True},
            {"query": q, "key": k, "value": v, "causal": True},
            {"query": q, "key": k[:, :2], "value": v[:, :2]},
            {"query": q[0, 0], "key": k[0, 0], "value": v[0, 0]},
        ],
        "layer_norm": [
            {"input": x},
            {"input": x, "weight": randn(4), "bias": randn(4), "eps": 0.1},
            {"input": x, "weight": randn(6, 4), "dims": 2},
        ],
        "rms_norm": [
            {"input": x},
            {"input": x, "weight": randn(4), "eps": 0.1},
            {"input": x, "weight": randn(6, 4), "dims": 2},
        ],
        "group_norm": [
            {"input": x, "groups": 3},
            {"input": x, "groups": 2, "weight": randn(6), "bias": randn(6), "eps": 0.1},
            {"input": randn(2, 6, 3, 5), "groups": 6, "silu": True},
        ],
    }[name]


EVERY = [(item, at) for item in implementations() for at in range(len(cases(item.name)))]


@pytest.mark.parametrize(("item", "at"), EVERY, ids=[f"{i.name}-{at}" for i, at in EVERY])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_implementations_compute_the_reference(item, at, dtype):
    """In f64 to its precision; otherwise no further from f64 than twice the reference."""
    exact = cases(item.name)[at]
    given = {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in exact.items()
    }
    reference = get_op(item.op).target
    wide = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in given.items()
    }
    expected = reference(**wide)
    actual, stated = item.function(**given), reference(**given)
    assert (actual.dtype, actual.shape) == (stated.dtype, stated.shape)
    limit = torch.finfo(dtype).eps * max(1.0, expected.abs().max().item())
    allowed = max(2 * (stated.double() - expected).abs().max().item(), 4 * limit)
    assert (actual.double() - expected).abs().max().item() <= allowed


def test_names_are_unique():
    with pytest.raises(ValueError, match="two implementations called layer_norm"):

        @implements("rw.layer_norm")
        def layer_norm():
            """Another one."""


ATTENTION = """
graph @main(%q: f32[2, 5, 8], %m: MASK) -> f32[2, 5, 8] {
  %y = rw.attention(%q, %q, %q, MORE) : f32[2, 5, 8]
  return %y
}
"""


@pytest.mark.parametrize(
    ("mask", "more", "fused"),
    [
        ("bool[5, 5]", "%m", True),
        ("f32[5, 5]", "%m", True),
        ("f16[5, 5]", "%m", False),  # torch wants the query's dtype
        ("bool[5, 5]", "causal=True", True),
        ("bool[5, 5]", "%m, causal=True", False),
        ("bool[5, 5]", "window=2", False),
    ],
)
def test_an_implementation_is_used_where_it_can_be(mask, more, fused):
    made = program(ATTENTION.replace("MASK", mask).replace("MORE", more))
    assert ("scaled_dot_product_attention" in made.source) == fused
    q = torch.randn(2, 5, 8)
    m = torch.ones(5, 5).tril().to(made.graph.inputs[1].type.dtype)
    named = {"mask": m} if "%m" in more else {}
    named |= {"causal": True} if "causal" in more else {}
    named |= {"window": 2} if "window" in more else {}
    expected = get_op("rw.attention").target(q, q, q, **named)
    torch.testing.assert_close(made(q, m)[0], expected, rtol=1e-5, atol=1e-5)


def test_every_implementation_is_of_an_op_and_takes_its_parameters():
    for item in implementations():
        params = {param.name for param in get_op(item.op).params}
        taken = item.function.__annotations__.keys() - {"return"}
        assert taken <= params, item.name


def test_a_layout_is_kept_where_it_fits():
    text = """
    graph @main(%x: f32[2, 3]) -> f32[2, 3] {
      %y = rw.layout(%x, [1, 2]) : f32[2, 3]
      return %y {strides=[1, 2]}
    }
    """
    (y,) = program(text)(torch.randn(2, 3))
    assert y.stride() == (1, 2)
