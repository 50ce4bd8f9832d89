"""Attention, rotary embedding and cache update against torch in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rewright.errors import EngineError
from tests.testing.networks import FLOATS, Net, close, out, trt

SOFTMAX, NONE = trt.AttentionNormalizationOp.SOFTMAX, trt.AttentionNormalizationOp.NONE
KIND, FORM = trt.CausalMaskKind, trt.AttentionIOForm


def qkv(dtype: torch.dtype, heads: int = 4, shared: int = 2, tokens: int = 5, keys: int = 7) -> Any:
    shapes = ((2, heads, tokens, 8), (2, shared, keys, 8), (2, shared, keys, 8))
    return [torch.randn(shape).to(dtype) for shape in shapes]


def attended(
    q: Any, k: Any, v: Any, kind: Any = KIND.NONE, norm: Any = SOFTMAX, mask: Any = None
) -> Any:
    net = Net()
    layer = net.network.add_attention_v2(net.input(q), net.input(k), net.input(v), norm, kind)
    if mask is not None:
        layer.mask = net.input(mask)
    (got,) = net.evaluate(layer.get_output(0))
    return got


def expected_of(q: Any, k: Any, v: Any, mask: Any = None) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), mask, scale=1.0, enable_gqa=True
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (6, 1)])
def test_queries_are_not_scaled_and_heads_are_shared(
    heads: int, shared: int, dtype: torch.dtype
) -> None:
    q, k, v = qkv(dtype, heads, shared)
    close(attended(q, k, v), expected_of(q, k, v))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["bool", "added"])
def test_masks_broadcast(kind: str, dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype)
    mask = torch.rand(1, 1, 5, 7) > 0.3
    mask[..., 0] = True
    if kind == "added":
        mask = torch.randn(2, 4, 5, 7).to(dtype)
    close(
        attended(q, k, v, mask=mask),
        expected_of(q, k, v, mask if kind == "bool" else mask.double()),
    )


@pytest.mark.parametrize(("kind", "legacy"), [
    ("UPPER_LEFT", False), ("LOWER_RIGHT", False), ("UPPER_LEFT", True),
])  # fmt: skip
def test_causal_masks(kind: str, legacy: bool) -> None:
    q, k, v = qkv(torch.float16)
    if legacy:
        net = Net()
        layer = net.network.add_attention(net.input(q), net.input(k), net.input(v), SOFTMAX, True)
        (got,) = net.evaluate(layer.get_output(0))
    else:
        got = attended(q, k, v, KIND.__members__[kind])
    first = 0 if kind == "UPPER_LEFT" else 2
    mask = torch.tensor([[j <= i + first for j in range(7)] for i in range(5)])
    close(got, expected_of(q, k, v, mask))


def test_without_normalization() -> None:
    q, k, v = qkv(torch.float32, 2, 2)
    close(attended(q, k, v, norm=NONE), q.double() @ k.double().mT @ v.double(), 1e-5)


def test_lengths_of_keys() -> None:
    q, k, v = qkv(torch.float32)
    net = Net()
    layer = net.network.add_attention_v2(
        net.input(q), net.input(k), net.input(v), SOFTMAX, KIND.NONE
    )
    layer.key_value_lengths = net.input(torch.tensor([3, 7], dtype=torch.int32))
    (got,) = net.evaluate(layer.get_output(0))
    close(got[:1], expected_of(q[:1], k[:1, :, :3], v[:1, :, :3]))
    close(got[1:], expected_of(q[1:], k[1:], v[1:]))


def test_packed_tokens() -> None:
    lengths, totals = (3, 2), torch.tensor([0, 3, 5], dtype=torch.int32)
    q, k, v = torch.randn(5, 4, 8), torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    net = Net()
    tensors = [net.input(each) for each in (q, k, v)]
    layer = net.network.add_attention_v2(*tensors, SOFTMAX, KIND.LOWER_RIGHT)
    layer.query_form = layer.key_value_form = FORM.PACKED_NHD
    layer.query_lengths = layer.key_value_lengths = net.input(totals)
    (got,) = net.evaluate(layer.get_output(0))
    for first, count in zip(totals.tolist(), lengths, strict=False):
        part = [each[first : first + count].transpose(0, 1)[None] for each in (q, k, v)]
        mask = torch.ones(count, count).tril().bool()
        close(got[first : first + count], expected_of(*part, mask)[0].transpose(0, 1))


def test_quantized_normalization() -> None:
    q, k, v = qkv(torch.float16, 2, 2)
    scale = torch.tensor(1 / 127, dtype=torch.float16)
    net = Net()
    layer = net.network.add_attention_v2(
        net.input(q), net.input(k), net.input(v), SOFTMAX, KIND.NONE
    )
    layer.normalization_quantize_to_type = trt.int8
    layer.normalization_quantize_scale = net.constant(scale)
    (got,) = net.evaluate(layer.get_output(0))
    shares = (q.float() @ k.float().mT).softmax(-1)
    rounded = torch.round(shares / scale.float()).clamp(-128, 127) * scale.float()
    close(got, rounded.double() @ v.double())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("dim", [0, 4])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("by_position", [False, True])
def test_rotary_embedding(
    by_position: bool, interleaved: bool, dim: int, dtype: torch.dtype
) -> None:
    """As a multiplication of complex numbers."""
    x = torch.randn(2, 3, 5, 8).to(dtype)
    half = (dim or 8) // 2
    angles = torch.randn(9, half) if by_position else torch.randn(2, 5, half)
    positions = torch.randint(0, 9, (2, 5))
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    net = Net()
    layer = net.network.add_rotary_embedding(
        net.input(x), net.input(cos), net.input(sin), interleaved, dim
    )
    if by_position:
        layer.set_input(3, net.input(positions))
    (got,) = net.evaluate(out(layer))
    turn = torch.complex(cos.double(), sin.double())
    turn = (turn[positions] if by_position else turn)[:, None]
    part = x.double()[..., : 2 * half]
    if interleaved:
        turned = torch.view_as_complex(part.reshape(2, 3, 5, half, 2)) * turn
        expected = torch.view_as_real(turned).flatten(-2)
    else:
        turned = torch.complex(part[..., :half], part[..., half:]) * turn
        expected = torch.cat([turned.real, turned.imag], -1)
    close(got, torch.cat([expected, x.double()[..., 2 * half :]], -1))


def test_kv_cache_update() -> None:
    cache, update = torch.randn(2, 3, 10, 4), torch.randn(2, 3, 2, 4)
    for starts, legal in (([0, 5], True), ([9, 0], False)):
        net = Net()
        layer = net.network.add_kv_cache_update(
            net.input(cache), net.input(update),
            net.input(torch.tensor(starts, dtype=torch.int32)), trt.KVCacheMode.LINEAR,
        )  # fmt: skip
        if not legal:
            with pytest.raises(EngineError, match="2 tokens at 9 leave the cache"):
                net.evaluate(out(layer))
            continue
        before = cache.clone()
        (got,) = net.evaluate(out(layer))
        expected = cache.clone()
        expected[0, :, 0:2], expected[1, :, 5:7] = update[0], update[1]
        close(got, expected)
        assert torch.equal(cache, before)
