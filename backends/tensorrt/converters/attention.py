"""Attention and rotary embeddings.

TensorRT's attention has no scale of its own and says nothing of a query that sees no key, where
torch gives zeros: so the query is scaled before it, and such rows are set to zero after it.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from rewright.backends.tensorrt.converters.products import matmul
from rewright.backends.tensorrt.declaration import Call, Convert, converts
from rewright.backends.tensorrt.dtypes import BOOL, FLOATS
from rewright.backends.tensorrt.enums import AttentionNormalizationOp, CausalMaskKind
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import OneOf, Query, That, Unused
from rewright.backends.tensorrt.reducing import iota, reduce, softmax
from rewright.backends.tensorrt.shaping import cat, expand, narrow, reshape, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor, ranked

_MASK: Final = FLOATS | BOOL
_ATTENTION: Final = {
    **dict.fromkeys(("query", "key", "value", "out"), FLOATS),
    "mask": _MASK,
    "attn_mask": _MASK,
}


def _heads_known(query: Query) -> bool:
    q, k = query.tensors("query")[0], query.tensors("key")[0]
    if q.rank < 3 or k.rank < 3 or q.shape[-3] == k.shape[-3]:
        return True
    return isinstance(q.shape[-3], int) and isinstance(k.shape[-3], int)


_HEADS: Final = That("fixed numbers of heads, where they differ", _heads_known)
_SCALED: Final = That(
    "a scale, or a fixed number of channels",
    lambda query: (
        query.arg("scale") is not None or isinstance(query.tensors("query")[0].shape[-1], int)
    ),
)


@converts("rw.attention", dtypes=_ATTENTION, needs=[_HEADS, _SCALED])
def attention(call: Call, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
              scale: float | None, causal: bool, window: Any) -> Tensor:  # fmt: skip
    """ATTENTION, decomposable; else MATRIX_MULTIPLY, SOFTMAX, MATRIX_MULTIPLY"""
    return _attend(call, query, key, value, mask, scale, causal, window)


@converts(
    "aten.scaled_dot_product_attention",
    dtypes=_ATTENTION,
    needs=[_HEADS, _SCALED, OneOf("dropout_p", (0.0, 0))],
)
def sdpa(call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None,
         dropout_p: float, is_causal: bool, scale: float | None,
         enable_gqa: bool) -> Tensor:  # fmt: skip
    """ATTENTION, decomposable; else MATRIX_MULTIPLY, SOFTMAX, MATRIX_MULTIPLY"""
    return _attend(call, query, key, value, attn_mask, scale, is_causal, None)


_KERNELS: Final[dict[str, tuple[int, ...]]] = {
    "flash": tuple(range(1, 9)),
    "efficient": tuple(range(1, 4)),
    "cudnn": tuple(range(1, 9)),
    "fused_attention_overrideable": tuple(range(1, 9)),
    "flash_attention_for_cpu": (1,),
}
"""torch's own kernels, as operators, and their results besides the first."""


def _declare_kernels() -> None:
    for name, others in _KERNELS.items():
        full_name = name if "attention" in name else f"{name}_attention"
        converts(
            f"aten._scaled_dot_product_{full_name}",
            dtypes={**_ATTENTION, "attn_bias": _MASK},
            needs=[_HEADS, _SCALED, OneOf("dropout_p", (0.0, 0)),
                   Unused(others, "what only a gradient needs")],
            formula="as scaled_dot_product_attention",
        )(_kernel(len(others)))  # fmt: skip


def _kernel(others: int) -> Convert:
    def compute(call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None,
                attn_bias: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
                scale: Any = None, compute_log_sumexp: Any = None, compute_logsumexp: Any = None,
                return_debug_mask: Any = None) -> tuple[Tensor | None, ...]:  # fmt: skip
        mask = attn_mask if attn_bias is None else attn_bias
        made = _attend(call, query, key, value, mask, scale, is_causal, None)
        return (made, *(None for _ in range(others)))

    return compute


_declare_kernels()


def _attend(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Any,
            causal: bool, window: Any) -> Tensor:  # fmt: skip
    if scale is None:
        scale = float(call.shape("query")[-1]) ** -0.5
    if window is not None:
        near = _distance(call, q).unary(Unary.ABS) < int(window)
        mask = _both(call, q, mask, near)
    if causal and (mask is not None or not _has_causal(call)):
        mask, causal = _both(call, q, mask, _distance(call, q) >= 0), False
    if _fits_layer(call):
        return _by_layer(call, q, k, v, mask, scale, causal)
    if causal:
        mask = _both(call, q, mask, _distance(call, q) >= 0)
    return _by_products(call, q, k, v, mask, scale)


def _fits_layer(call: Call) -> bool:
    """Whether the layer takes these: keys and values of one shape, and nothing to broadcast."""
    q, k, v = (call.shape(name) for name in ("query", "key", "value"))
    if len(q) != 4 or len(k) != 4 or k != v or (q[0], q[3]) != (k[0], k[3]) or q[1] % k[1] != 0:
        return False
    return call.library.has("INetworkDefinition.add_attention")


def _has_causal(call: Call) -> bool:
    """Whether the layer has the causal mask that torch means, which starts at the upper left."""
    return call.library.has("INetworkDefinition.add_attention_v2")


def _distance(call: Call, q: Tensor) -> Tensor:
    """``query position - key position``, with the rank of the scores."""
    queries, keys = call.shape("query")[-2], call.shape("key")[-2]
    return iota(q, q.rank - 2, queries) - iota(q, q.rank - 1, keys)


def _both(call: Call, q: Tensor, mask: Tensor | None, seen: Tensor) -> Tensor:
    """A mask that lets through what both let through."""
    if mask is None:
        return seen
    if mask.dtype is torch.bool:
        return mask & seen
    return seen.where(mask, float("-inf"))


# --------------------------------------------------------------------------- as one layer


def _by_layer(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float,
              causal: bool) -> Tensor:  # fmt: skip
    definition = call.net.definition
    arguments = [call.net.native(x) for x in (q * float(scale), k, v)]
    softmax_op = call.net.native(AttentionNormalizationOp.SOFTMAX)
    if _has_causal(call):
        kind = CausalMaskKind.UPPER_LEFT if causal else CausalMaskKind.NONE
        layer = definition.add_attention_v2(*arguments, softmax_op, call.net.native(kind))
    else:
        layer = definition.add_attention(*arguments, softmax_op, causal)
    if layer is None:
        call.net.check_log("add_attention")
        raise call.net.error("TensorRT refused an attention without a reason")
    layer.decomposable = True
    if mask is not None:
        layer.mask = ranked(_fit(mask, q.dtype), 4).handle
    return _without_blind(call.net.finish("add_attention", layer), mask)


def _fit(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return mask if mask.dtype is torch.bool else mask.to(dtype)


def _without_blind(made: Tensor, mask: Tensor | None) -> Tensor:
    """`made` with zeros for queries that a bool mask lets see no key."""
    if mask is None or mask.dtype is not torch.bool:
        return made
    seen = reduce(mask.to(torch.int32), Reduce.MAX, (mask.rank - 1,), True).to(torch.bool)
    return seen.where(made, 0.0)


# --------------------------------------------------------------------------- as products


def _by_products(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                 scale: float) -> Tensor:  # fmt: skip
    k, v = (_like_heads(call, x, name) for x, name in ((k, "key"), (v, "value")))
    scores = matmul((q * float(scale)), k, transpose_b=True).wide()
    if mask is not None and mask.dtype is not torch.bool:
        scores = scores + mask.to(scores.dtype)
    elif mask is not None:
        scores = mask.where(scores, -torch.finfo(scores.dtype).max)
    made = matmul(softmax(scores, scores.rank - 1).to(q.dtype), v)
    return _without_blind(made, mask)


def _like_heads(call: Call, x: Tensor, name: str) -> Tensor:
    """`x` with each of its heads repeated, in a row, to as many as the query has."""
    heads, had = call.shape("query"), call.shape(name)
    if min(x.rank, len(heads)) < 3 or heads[-3] in (1, had[-3]):
        return x
    times = heads[-3] // had[-3]
    deeper = [*had[:-2], times, *had[-2:]]
    return reshape(expand(unsqueeze(x, (x.rank - 2,)), deeper), (*had[:-3], heads[-3], *had[-2:]))


# --------------------------------------------------------------------------- rotary embedding


@converts("rw.rope", dtypes={"x": FLOATS, "cos": FLOATS, "sin": FLOATS},
          needs=[That("a fixed number of channels",
                      lambda query: isinstance(query.tensors("cos")[0].shape[-1], int)
                      and isinstance(query.tensors("x")[0].shape[-1], int))])  # fmt: skip
def rope(call: Call, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """x * cos + rotate(x) * sin"""
    shape, rotary = call.sizes, call.shape("cos")[-1]
    dim = shape[-1]
    turned = x if rotary == dim else narrow(x, x.rank - 1, 0, rotary, shape)
    sizes = (*shape[:-1], rotary)
    turned = turned.wide()
    if interleaved:
        pairs = reshape(turned, (*shape[:-1], rotary // 2, 2))
        parts = [narrow(pairs, x.rank, i, 1, (*shape[:-1], rotary // 2, 2)) for i in (0, 1)]
        rotated = reshape(cat([-parts[1], parts[0]], x.rank), sizes)
    else:
        half = rotary // 2
        first, second = (narrow(turned, x.rank - 1, i * half, half, sizes) for i in (0, 1))
        rotated = cat([-second, first], x.rank - 1)
    made = (turned * cos.wide() + rotated * sin.wide()).to(call.dtype)
    if rotary == dim:
        return made
    return cat([made, narrow(x, x.rank - 1, rotary, dim - rotary, shape)], x.rank - 1)
