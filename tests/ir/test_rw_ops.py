"""Each reference against its formula, written another way and computed in float64."""

import math

import pytest
import torch

from rewright.errors import RewrightError
from rewright.ir import rw_ops
from rewright.ir.ops import get_op, known_ops

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def draw(*shape, dtype=torch.float64):
    """Normal values that `dtype` holds exactly."""
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def check(result, expected, dtype, ulps=2.0):
    """`result` is `expected` but for `ulps` roundings, at the size of its largest element."""
    assert result.dtype == dtype
    assert result.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 0.0
    error = (result.double() - expected).abs().max().item() if expected.numel() else 0.0
    assert error <= ulps * torch.finfo(dtype).eps * max(scale, 1e-3)


# ---- products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_linear(dtype, lead):
    x, w, b = draw(*lead, 4, dtype=dtype), draw(5, 4, dtype=dtype), draw(5, dtype=dtype)
    expected = (x.double().unsqueeze(-2) * w.double()).sum(-1)
    check(rw_ops.linear(x, w), expected, dtype, 4)
    check(rw_ops.linear(x, w, b), expected + b.double(), dtype, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((6, 1, 3, 4), (2, 4, 5)), ((4,), (4, 5))]
)
def test_matmul(dtype, a, b):
    a, b = draw(*a, dtype=dtype), draw(*b, dtype=dtype)
    rows = a.double().unsqueeze(-1)
    columns = b.double() if a.dim() == 1 else b.double().unsqueeze(-3)
    check(rw_ops.matmul(a, b), (rows * columns).sum(-2), dtype, 4)


def direct_convolution(x, w, b, stride, padding, dilation, groups):
    """Convolution by its definition: one dot product for each place of the kernel."""
    n, _, *spatial = x.shape
    out_channels, group_channels, *kernel = w.shape
    padded = torch.nn.functional.pad(x, [p for q in reversed(padding) for p in (q, q)])
    sizes = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(spatial, padding, dilation, kernel, stride, strict=True)
    ]
    result = torch.zeros(n, out_channels, *sizes, dtype=x.dtype)
    for channel in range(out_channels):
        group = channel // (out_channels // groups)
        part = padded[:, group * group_channels : (group + 1) * group_channels]
        for place in torch.cartesian_prod(*(torch.arange(s) for s in sizes)).view(-1, len(sizes)):
            window = part
            for dim, at in enumerate(place.tolist()):
                first = at * stride[dim]
                taps = torch.arange(kernel[dim]) * dilation[dim] + first
                window = window.index_select(dim + 2, taps)
            value = (window * w[channel]).flatten(1).sum(1)
            result[(slice(None), channel, *place.tolist())] = value
    return result if b is None else result + b.view(-1, *(1 for _ in sizes))


CONVOLUTIONS = [
    ((7,), (3,), [1], [0], [1], 1),
    ((8, 7), (3, 2), [2, 1], [1, 0], [1, 2], 1),
    ((5, 5), (3, 3), [1, 1], [1, 1], [1, 1], 2),
    ((4, 5, 3), (2, 2, 2), [1, 2, 1], [0, 1, 0], [1, 1, 1], 1),
]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "groups"), CONVOLUTIONS
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_conv(dtype, size, kernel, stride, padding, dilation, groups):
    x = draw(2, 4, *size, dtype=dtype)
    w, b = draw(6, 4 // groups, *kernel, dtype=dtype), draw(6, dtype=dtype)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    wide = (x.double(), w.double(), b.double())
    check(rw_ops.conv(x, w, b, **how), direct_convolution(*wide, **how), dtype, 8)
    expected = direct_convolution(*wide[:2], None, **how)
    check(rw_ops.conv(x, w, **how), expected, dtype, 8)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "groups"), CONVOLUTIONS
)
def test_transposed_conv_is_the_transpose_of_conv(size, kernel, stride, padding, dilation, groups):
    """``<conv(x), y> == <x, conv_transposed(y)>`` for all x and y."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, w = draw(2, 4, *size), draw(6, 4 // groups, *kernel)
    there = direct_convolution(x, w, None, **how)
    y = torch.randn_like(there)
    lost = [
        (s + 2 * p - d * (k - 1) - 1) % t
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    back = rw_ops.conv(y, w, transposed=True, output_padding=lost, **how)
    assert back.shape == x.shape
    torch.testing.assert_close((there * y).sum(), (x * back).sum())


# ---- attention


def looped_attention(q, k, v, mask=None, scale=None, causal=False, window=None):
    """One softmax for each query, over the keys that it sees."""
    heads, queries, dim = q.shape[-3:]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    result = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
    if mask is not None:
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    for batch in range(q.shape[0]):
        for head in range(heads):
            shared = head * k.shape[-3] // heads
            for i in range(queries):
                weights, seen = [], []
                for j in range(k.shape[-2]):
                    if (causal and j > i) or (window is not None and abs(i - j) >= window):
                        continue
                    score = scale * (q[batch, head, i] @ k[batch, shared, j]).item()
                    if mask is not None and mask.dtype is torch.bool:
                        if not mask[batch, head, i, j]:
                            continue
                    elif mask is not None:
                        score += mask[batch, head, i, j].item()
                    weights.append(math.exp(score) if score > -math.inf else 0.0)
                    seen.append(v[batch, shared, j])
                total = sum(weights)
                if total:
                    result[batch, head, i] = sum(
                        w / total * value for w, value in zip(weights, seen, strict=True)
                    )
    return result


ATTENTIONS = [
    {},
    {"scale": 0.3},
    {"causal": True},
    {"window": 2},
    {"causal": True, "window": 2},
]


@pytest.mark.parametrize("how", ATTENTIONS, ids=str)
@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype, heads, key_heads, how):
    q = draw(2, heads, 5, 8, dtype=dtype)
    k, v = draw(2, key_heads, 6, 8, dtype=dtype), draw(2, key_heads, 6, 3, dtype=dtype)
    expected = looped_attention(q.double(), k.double(), v.double(), **how)
    check(rw_ops.attention(q, k, v, **how), expected, dtype, 4)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 4), (6, 4)])
def test_heads_that_make_no_groups_are_refused(heads, key_heads):
    q, k = draw(2, heads, 5, 8, dtype=torch.float32), draw(2, key_heads, 6, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match=f"{heads} heads of queries, and {key_heads} of keys"):
        rw_ops.attention(q, k, k)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(5, 6), (2, 1, 5, 6), (2, 1, 1, 6), (4, 5, 6)])
@pytest.mark.parametrize("kind", ["bool", "float", "double"])
def test_attention_masks(kind, shape, causal):
    q, k, v = (draw(2, 4, n, 8, dtype=torch.float32) for n in (5, 6, 6))
    mask = torch.rand(shape) > 0.4
    if kind != "bool":
        mask = torch.where(mask, torch.randn(shape), -math.inf).to(getattr(torch, kind))
    wide = mask if kind == "bool" else mask.double()
    expected = looped_attention(q.double(), k.double(), v.double(), wide, causal=causal)
    check(rw_ops.attention(q, k, v, mask, causal=causal), expected, torch.float32, 4)


def test_a_query_that_sees_no_key_gives_zeros_and_nan_is_kept():
    q, k, v = (draw(1, 1, 3, 4, dtype=torch.float32) for _ in range(3))
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    result = rw_ops.attention(q, k, v, mask)
    assert torch.equal(result[0, 0, 1], torch.zeros(4))
    assert not result[0, 0, 0].isnan().any()
    k[0, 0, 0] = math.nan
    assert rw_ops.attention(q, k, v)[0, 0].isnan().all()


def test_attention_agrees_with_torch():
    q, k, v = (draw(2, 4, 7, 8, dtype=torch.float32) for _ in range(3))
    grouped = (k[:, :2], v[:, :2])
    sdpa = torch.nn.functional.scaled_dot_product_attention
    for ours, theirs in (
        (rw_ops.attention(q, k, v), sdpa(q, k, v)),
        (rw_ops.attention(q, k, v, causal=True), sdpa(q, k, v, is_causal=True)),
        (rw_ops.attention(q, *grouped), sdpa(q, *grouped, enable_gqa=True)),
        (rw_ops.attention(q[:, 0], k[:, 0], v[:, 0]), sdpa(q[:, 0], k[:, 0], v[:, 0])),
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary", [8, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rope(dtype, rotary, interleaved):
    """Pairs of channels are complex numbers, turned by an angle."""
    x, angle = draw(2, 3, 5, 8, dtype=dtype), draw(5, rotary // 2)
    both = angle.repeat_interleave(2, -1) if interleaved else torch.cat((angle, angle), -1)
    cos, sin = both.cos().to(dtype), both.sin().to(dtype)
    wide = x.double()
    pairs = range(rotary // 2)
    order = [(2 * i, 2 * i + 1) if interleaved else (i, i + rotary // 2) for i in pairs]
    expected = wide.clone()
    for a, b in order:
        turn = torch.complex(cos[:, a].double(), sin[:, a].double())
        turned = torch.complex(wide[..., a], wide[..., b]) * turn
        expected[..., a], expected[..., b] = turned.real, turned.imag
    result = rw_ops.rope(x, cos, sin, interleaved=interleaved)
    check(result, expected, dtype)
    assert torch.equal(result[..., rotary:], x[..., rotary:])


def test_rope_takes_its_dtype_from_x():
    x, cos, sin = draw(3, 4, dtype=torch.float16), draw(3, 4), draw(3, 4)
    assert rw_ops.rope(x, cos, sin).dtype == torch.float16


# ---- norms


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype, dims):
    x, shape = draw(3, 4, 6, dtype=dtype), (4, 6)[-dims:]
    w, b = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    flat = x.double().reshape(-1, math.prod(shape))
    mean = flat.sum(1, keepdim=True) / flat.shape[1]
    variance = (flat**2).sum(1, keepdim=True) / flat.shape[1] - mean**2
    normal = ((flat - mean) / (variance + 0.01).sqrt()).reshape(x.shape)
    check(rw_ops.layer_norm(x, dims=dims, eps=0.01), normal, dtype)
    check(rw_ops.layer_norm(x, w, dims=dims, eps=0.01), normal * w.double(), dtype)
    both = rw_ops.layer_norm(x, w, b, dims=dims, eps=0.01)
    check(both, normal * w.double() + b.double(), dtype, 4)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(dtype, dims):
    x, shape = draw(3, 4, 6, dtype=dtype), (4, 6)[-dims:]
    w = draw(*shape, dtype=dtype)
    flat = x.double().reshape(-1, math.prod(shape))
    root = ((flat**2).sum(1, keepdim=True) / flat.shape[1] + 0.01).sqrt()
    normal = (flat / root).reshape(x.shape)
    check(rw_ops.rms_norm(x, dims=dims, eps=0.01), normal, dtype)
    check(rw_ops.rms_norm(x, w, dims=dims, eps=0.01), normal * w.double(), dtype)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("spatial", [(), (5,), (3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm(dtype, spatial, silu):
    x, w, b = draw(2, 6, *spatial, dtype=dtype), draw(6, dtype=dtype), draw(6, dtype=dtype)
    expected = torch.empty(x.shape, dtype=torch.float64)
    for n in range(2):
        for first in range(0, 6, 2):
            group = x[n, first : first + 2].double()
            mean, variance = group.mean(), group.var(correction=0)
            for c in (first, first + 1):
                y = (x[n, c].double() - mean) / (variance + 0.01).sqrt()
                y = y * w[c].double() + b[c].double()
                expected[n, c] = y / (1 + torch.exp(-y)) if silu else y
    check(rw_ops.group_norm(x, w, b, groups=3, eps=0.01, silu=silu), expected, dtype, 8)


def test_norms_of_half_numbers_do_not_overflow():
    x = torch.full((1, 64), 200.0, dtype=torch.float16)
    assert torch.equal(rw_ops.rms_norm(x), torch.ones_like(x))
    x[0, ::2] = -200.0
    assert torch.equal(rw_ops.layer_norm(x).abs(), torch.ones_like(x))


# ---- activations

GATES = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GATES)
def test_gated(name, dtype):
    gate, up = draw(3, 5, dtype=dtype), draw(5, dtype=dtype)
    expected = GATES[name](gate.double()) * up.double()
    check(rw_ops.gated(gate, up, activation=name), expected, dtype)


def test_every_activation_is_tested_and_others_are_refused():
    assert GATES.keys() == rw_ops.ACTIVATIONS.keys()
    with pytest.raises(RewrightError, match="no activation 'swish'"):
        rw_ops.gated(draw(2), draw(2), activation="swish")


# ---- memory


@pytest.mark.parametrize("strides", [(12, 4, 1), (1, 2, 6), (12, 0, 1), (0, 0, 0), (24, 8, 2)])
def test_layout(strides):
    shape = (2, 3, 4)
    x = draw(2, 1, 4).expand(shape) if 0 in strides else draw(*shape)
    x = draw(1, 1, 1).expand(shape) if strides == (0, 0, 0) else x
    result = rw_ops.layout(x, strides)
    assert result.stride() == strides
    assert torch.equal(result, x)
    assert result.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("added", [False, True])
def test_conv_relu(added):
    x, w, b = torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 3), torch.randn(6)
    z = torch.randn(2, 6, 3, 4) if added else None
    steps = {"stride": [2, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 2}
    made = torch.nn.functional.conv2d(x, w, b, **steps)
    expected = (made + z if added else made).clamp(min=0)
    torch.testing.assert_close(rw_ops.conv_relu(x, w, b, z, **steps), expected)


# ---- all


def test_no_op_of_ours_is_without_a_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    get_op("rw.linear")
    ours = {op.name.removeprefix("rw.") for op in known_ops() if op.name.startswith("rw.")}
    declared = {name for name in ours if hasattr(rw_ops, name)}
    assert declared == tested & ours
    assert declared >= {"linear", "attention", "layer_norm", "rms_norm", "conv", "rope", "layout"}
