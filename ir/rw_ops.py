"""The ops of ours: each is a signature and a reference in torch ops.

The reference *is* the meaning of an op: its types, and what every implementation of it is
compared with. So the references below state formulas, and leave speed to implementations.

Numbers: for ``f16``, ``bf16`` and the 8-bit floats a reference computes in ``f32`` and rounds
once, at the end, to the dtype of its first operand; wider dtypes compute in themselves. Matrix
products and convolutions are torch's own, which accumulate in at least ``f32``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from rewright.errors import RewrightError
from rewright.ir.ops import Trait, define


def _wide(x: Tensor) -> Tensor:
    """`x` in the dtype that a reference computes in."""
    narrow = x.dtype.is_floating_point and x.dtype.itemsize < 4
    return x.float() if narrow else x


# --------------------------------------------------------------------------- products


@define("rw.linear")
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weightᵀ + bias`` over the last dimension.

    Args:
        input: ``[..., in]``.
        weight: ``[out, in]``, of the same dtype.
        bias: ``[out]``.

    Returns:
        ``[..., out]``, of the input's dtype.
    """
    return torch.nn.functional.linear(input, weight, bias)


@define("rw.matmul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` over the last two dimensions; those before them broadcast.

    Args:
        a: ``[..., m, k]``, or ``[k]``.
        b: ``[..., k, n]``, or ``[k]``, of the same dtype.

    Returns:
        ``[..., m, n]``; a dimension that an operand lacks is absent.
    """
    return torch.matmul(a, b)


@define("rw.conv")
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    transposed: bool = False,
    output_padding: Sequence[int] = (),
) -> Tensor:
    """Convolution (cross-correlation) over 1, 2 or 3 dimensions, or the transpose of one.

    Per dimension, ``out = (in + 2*padding - dilation*(kernel-1) - 1) // stride + 1``; transposed,
    ``out = (in-1)*stride - 2*padding + dilation*(kernel-1) + output_padding + 1``.

    Args:
        input: ``[n, channels, *spatial]``.
        weight: ``[out, channels/groups, *kernel]``, transposed
            ``[channels, out/groups, *kernel]``.
        bias: ``[out]``.
        stride: one number for each spatial dimension.
        padding: zeros on both sides of each spatial dimension.
        dilation: one number for each spatial dimension.
        groups: how many parts the channels come in, each convolved by itself.
        transposed: whether this is the transpose (the gradient) of a convolution.
        output_padding: added to the size at the far side, if transposed; none where empty.

    Returns:
        ``[n, out, *spatial]``, of the input's dtype.
    """
    extra = list(output_padding) or [0] * len(stride)
    return torch.convolution(
        input, weight, bias, stride, padding, dilation, transposed, extra, groups
    )


@define("rw.conv_relu")
def conv_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """``relu(conv(input, weight, bias) + residual)``: how the blocks of a ResNet end.

    Args:
        input: ``[n, channels, *spatial]``.
        weight: ``[out, channels/groups, *kernel]``.
        bias: ``[out]``.
        residual: broadcasts with the convolution's result.
        stride: one number for each spatial dimension.
        padding: zeros on both sides of each spatial dimension.
        dilation: one number for each spatial dimension.
        groups: how many parts the channels come in, each convolved by itself.

    Returns:
        ``[n, out, *spatial]``, of the input's dtype.
    """
    made = conv(
        input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return torch.relu(made if residual is None else made + residual)


# --------------------------------------------------------------------------- attention


@define("rw.attention")
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """``softmax(scale * query @ keyᵀ + mask) @ value``.

    With fewer key heads than query heads, each key head serves ``heads // key_heads`` query heads
    in a row (grouped queries). A query that sees no key gives zeros.

    Args:
        query: ``[..., heads, queries, dim]``.
        key: ``[..., key_heads, keys, dim]``, `heads` a multiple of `key_heads`.
        value: ``[..., key_heads, keys, value_dim]``.
        mask: broadcasts to ``[..., heads, queries, keys]``. Bool: True where a query sees a key.
            Floating: added to the scores.
        scale: by default ``dim ** -0.5``.
        causal: query ``i`` sees only keys ``j <= i``, counted from the first of both.
        window: query ``i`` sees only keys with ``abs(i - j) < window``.

    Returns:
        ``[..., heads, queries, value_dim]``, of the query's dtype.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = _wide(query), _like_heads(query, _wide(key)), _like_heads(query, _wide(value))
    scores = torch.matmul(q, k.transpose(-2, -1)) * scale
    if mask is not None and mask.dtype is not torch.bool:
        scores = scores + mask.to(scores.dtype)
    seen = mask if mask is not None and mask.dtype is torch.bool else None
    for limit in _limits(scores, causal, window):
        seen = limit if seen is None else seen & limit
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    probabilities = scores.softmax(-1)
    blind = (scores == float("-inf")).all(-1, keepdim=True)
    return torch.matmul(probabilities.masked_fill(blind, 0.0), v).to(query.dtype)


def _like_heads(query: Tensor, x: Tensor) -> Tensor:
    """`x` with each of its heads repeated, in a row, to as many as `query` has."""
    if x.dim() < 3 or x.shape[-3] == query.shape[-3]:
        return x
    if query.shape[-3] % x.shape[-3]:
        raise ValueError(
            f"{query.shape[-3]} heads of queries, and {x.shape[-3]} of keys or values: "
            "each of these must serve equally many of those"
        )
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3)


def _limits(scores: Tensor, causal: bool, window: int | None) -> list[Tensor]:
    """Bool ``[queries, keys]``: what the position alone lets a query see."""
    i = torch.arange(scores.shape[-2], device=scores.device).unsqueeze(-1)
    j = torch.arange(scores.shape[-1], device=scores.device)
    limits = [j <= i] if causal else []
    return limits if window is None else [*limits, (i - j).abs() < window]


@define("rw.rope")
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Rotary position embedding: ``x * cos + rotate(x) * sin``.

    ``rotate`` turns a pair ``(a, b)`` of channels into ``(-b, a)``. Pairs are channels ``i`` and
    ``i + r/2`` (GPT-NeoX, Llama), or, interleaved, ``2*i`` and ``2*i + 1`` (GPT-J, RoFormer).

    Args:
        x: ``[..., dim]``.
        cos: broadcasts to ``[..., r]``, with ``r <= dim`` even. Channels from ``r`` on are kept.
        sin: like `cos`.
        interleaved: how channels are paired.

    Returns:
        ``[..., dim]``, of the dtype of `x`.
    """
    rotary = cos.shape[-1]
    wide = _wide(x)
    turned, kept = wide[..., :rotary], x[..., rotary:]
    if interleaved:
        pairs = torch.stack((-turned[..., 1::2], turned[..., 0::2]), -1)
        rotated = pairs.flatten(-2)
    else:
        rotated = torch.cat((-turned[..., rotary // 2 :], turned[..., : rotary // 2]), -1)
    result = (turned * _wide(cos) + rotated * _wide(sin)).to(x.dtype)
    return result if rotary == x.shape[-1] else torch.cat((result, kept), -1)


# --------------------------------------------------------------------------- norms


@define("rw.layer_norm")
def layer_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    dims: int = 1,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last `dims` dimensions.

    Args:
        input: any shape.
        weight: the shape of the last `dims` dimensions.
        bias: likewise.
        dims: how many dimensions are normalised together.
        eps: added to the (biased) variance.

    Returns:
        The input's shape and dtype.
    """
    x, over = _wide(input), list(range(-dims, 0))
    centred = x - x.mean(over, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(over, keepdim=True) + eps)
    return _affine(scaled, weight, bias).to(input.dtype)


@define("rw.rms_norm")
def rms_norm(
    input: Tensor, weight: Tensor | None = None, *, dims: int = 1, eps: float = 1e-6
) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last `dims` dimensions.

    Args:
        input: any shape.
        weight: the shape of the last `dims` dimensions.
        dims: how many dimensions are normalised together.
        eps: added to the mean square.

    Returns:
        The input's shape and dtype.
    """
    x, over = _wide(input), list(range(-dims, 0))
    scaled = x / torch.sqrt(x.square().mean(over, keepdim=True) + eps)
    return _affine(scaled, weight, None).to(input.dtype)


@define("rw.group_norm")
def group_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
    silu: bool = False,
) -> Tensor:
    """Layer norm over each of `groups` groups of channels, then SiLU if asked for.

    Args:
        input: ``[n, channels, *spatial]``, `channels` a multiple of `groups`.
        weight: ``[channels]``.
        bias: ``[channels]``.
        groups: how many groups the channels come in.
        eps: added to the (biased) variance of a group.
        silu: whether the result is ``y * sigmoid(y)`` of the normalised ``y``.

    Returns:
        The input's shape and dtype.
    """
    n, channels, *spatial = input.shape
    x = _wide(input).reshape(n, groups, channels // groups, *spatial)
    over = list(range(2, x.dim()))
    centred = x - x.mean(over, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(over, keepdim=True) + eps)
    per_channel = [channels, *(1 for _ in spatial)]
    result = _affine(
        scaled.reshape(input.shape),
        None if weight is None else weight.reshape(per_channel),
        None if bias is None else bias.reshape(per_channel),
    )
    return (torch.nn.functional.silu(result) if silu else result).to(input.dtype)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * _wide(weight)
    return x if bias is None else x + _wide(bias)


# --------------------------------------------------------------------------- activations

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.nn.functional.relu,
    "sigmoid": torch.sigmoid,
}
"""What may gate, by name."""


@define("rw.gated", Trait.ELEMENTWISE)
def gated(gate: Tensor, up: Tensor, *, activation: str = "silu") -> Tensor:
    """``activation(gate) * up``: the middle of a gated MLP (SwiGLU, GEGLU).

    Args:
        gate: any shape.
        up: broadcasts with it.
        activation: a key of :data:`ACTIVATIONS`.

    Returns:
        The shape of both, of the gate's dtype.

    Raises:
        RewrightError: there is no such activation.
    """
    if activation not in ACTIVATIONS:
        raise RewrightError(
            f"rw.gated has no activation {activation!r}", hint=f"known: {', '.join(ACTIVATIONS)}"
        )
    return (ACTIVATIONS[activation](_wide(gate)) * _wide(up)).to(gate.dtype)


# --------------------------------------------------------------------------- memory


@define("rw.layout", Trait.OPAQUE)
def layout(input: Tensor, strides: Sequence[int]) -> Tensor:
    """The same numbers, in memory of the given strides.

    Values have no memory; this stands before an opaque op whose code may look at it.

    Args:
        input: any shape.
        strides: for each dimension, in elements; 0 repeats one element along it.

    Returns:
        The input's shape and dtype.
    """
    dense = input
    for dim, stride in enumerate(strides):
        if _is_zero(stride):
            dense = dense.narrow(dim, 0, 1)
    made = torch.empty_strided(dense.shape, strides, dtype=input.dtype, device=input.device)
    return made.copy_(dense).expand(input.shape)


def _is_zero(stride: Any) -> bool:
    """Whether `stride` is 0 for all sizes; a symbolic one isn't asked, that would be a guard."""
    return isinstance(stride, int) and stride == 0
