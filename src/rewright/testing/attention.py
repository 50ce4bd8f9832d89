"""Layers of transformers: attention, rotary embedding, key-value cache update."""

import itertools
import math
from collections.abc import Mapping
from typing import TypeAlias

import torch

from rewright.testing.layer import Layer
from rewright.testing.precision import wide
from rewright.testing.quantization import requantized

__all__ = ["attention", "input_layer", "kv_cache_update", "rotary_embedding"]

Tensor: TypeAlias = torch.Tensor


def input_layer(layer: Layer, made_by: Mapping[str, Layer]) -> Layer:
    """The attention's input layer, of its output layer: the attention's inputs are its own."""
    return made_by[layer.native.get_input(0).name]


def attention(
    layer: Layer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scale: Tensor | None = None,
    query_lengths: Tensor | None = None,
    key_value_lengths: Tensor | None = None,
) -> Tensor:
    """``normalize(query @ keyᵀ + mask) @ value``: queries are *not* scaled.

    query is (B, Hq, Sq, D), key and value (B, Hkv, Skv, D), and Hq is a multiple of Hkv: as many
    heads of the query read one of the key. In form PACKED_NHD, the items of a batch stand one after
    the other, (tokens, heads, D), and lengths are the running totals (B + 1).

    A bool mask lets pass where it is True; one of floats is added. TensorRT does not say what a
    query that may read nothing gets; here, NaN.
    """
    head = layer.native.attention
    forms = (_form(head, "query_form"), _form(head, "key_value_form"))
    if forms == ("PADDED_BHND", "PADDED_BHND"):
        return _padded(layer, query, key, value, mask, scale, key_value_lengths)
    if mask is not None or forms[0] != "PACKED_NHD":
        raise layer.refuse(f"queries {forms[0]}, keys {forms[1]}, mask {mask is not None}")
    if query_lengths is None or key_value_lengths is None:
        raise layer.refuse("the lengths of packed queries or keys are missing")
    out = torch.zeros_like(query)
    for item, (first, last) in enumerate(itertools.pairwise(query_lengths.tolist())):
        if forms[1] == "PACKED_NHD":
            span, count = slice(*key_value_lengths[item : item + 2].tolist()), None
            keys, values = _unpacked(key[span]), _unpacked(value[span])
        else:
            count = key_value_lengths[item : item + 1]
            keys, values = key[item : item + 1], value[item : item + 1]
        made = _padded(layer, _unpacked(query[first:last]), keys, values, None, scale, count)
        out[first:last] = made[0].transpose(0, 1)
    return out


def _unpacked(rows: Tensor) -> Tensor:
    """(tokens, heads, D) as (1, heads, tokens, D)."""
    return rows.transpose(0, 1).unsqueeze(0)


def _form(head: object, attribute: str) -> str:
    """A form by name; versions before 11.0 have the padded one only."""
    form = getattr(head, attribute, None)
    return "PADDED_BHND" if form is None else form.name


def _padded(
    layer: Layer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:
    head = layer.native.attention
    repeat = query.shape[1] // key.shape[1]
    keys, values = (wide(each).repeat_interleave(repeat, 1) for each in (key, value))
    scores = wide(query) @ keys.mT
    allowed = _causal(layer, query.shape[2], key.shape[2])
    if lengths is not None:
        place = torch.arange(key.shape[2])
        allowed = allowed & (place < lengths.long()[:, None, None, None])
    if mask is not None and mask.dtype == torch.bool:
        allowed = allowed & mask
    elif mask is not None:
        scores = scores + wide(mask)
    norm = head.norm_op.name
    if norm == "SOFTMAX":
        shares = torch.softmax(scores.masked_fill(~allowed, -math.inf), -1)
    elif norm == "NONE":
        shares = scores.masked_fill(~allowed, 0)
    else:
        raise layer.refuse(f"normalization {norm} is not known here")
    if scale is not None:
        shares = requantized(layer, shares, scale, head.normalization_quantize_to_type.name)
    return (shares @ values).to(query.dtype)


def _causal(layer: Layer, queries: int, keys: int) -> Tensor:
    """Which keys (last axis) each query may read, without a mask."""
    head = layer.native.attention
    kind = getattr(head, "causal_kind", None)
    name = kind.name if kind is not None else ("UPPER_LEFT" if head.causal else "NONE")
    diagonals = {"NONE": keys, "UPPER_LEFT": 0, "LOWER_RIGHT": keys - queries}
    if name not in diagonals:
        raise layer.refuse(f"causal mask {name} is not known here")
    return torch.ones(queries, keys, dtype=torch.bool).tril(diagonals[name])


def rotary_embedding(
    layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """x (B, heads, S, D) with its first ``rotary_embedding_dim`` features (all, where it is 0)
    rotated in pairs: neighbours where ``interleaved``, else one of each half.

    cos and sin are (B, S, dim / 2); or (longest, dim / 2), with positions (B, S) to take from them.
    """
    dim = layer.native.rotary_embedding_dim or x.shape[-1]
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    cos, sin = (wide(table)[..., : dim // 2].unsqueeze(1) for table in (cos, sin))
    turned, rest = wide(x)[..., :dim], x[..., dim:]
    if layer.native.interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., : dim // 2], turned[..., dim // 2 :]
    pair = (a * cos - b * sin, a * sin + b * cos)
    out = torch.stack(pair, -1).flatten(-2) if layer.native.interleaved else torch.cat(pair, -1)
    return torch.cat([out.to(x.dtype), rest], -1)


def kv_cache_update(
    layer: Layer,
    cache: Tensor,
    update: Tensor,
    write_indices: Tensor,
    update_lengths: Tensor | None = None,
) -> Tensor:
    """A copy of cache (B, heads, longest, D) with update (B, heads, S, D) written for each batch
    item from its write index on. In form PACKED_NHD, the update is (tokens, heads, D), and lengths
    are its running totals (B + 1).
    """
    if (mode := layer.option("cache_mode")) != "LINEAR":
        raise layer.refuse(f"cache mode {mode} is not known here")
    out = cache.clone()
    packed = _form(layer.native, "update_form") == "PACKED_NHD"
    if packed and update_lengths is None:
        raise layer.refuse("the lengths of a packed update are missing")
    for item, start in enumerate(write_indices.tolist()):
        if packed and update_lengths is not None:
            span = slice(int(update_lengths[item]), int(update_lengths[item + 1]))
            rows = update[span].transpose(0, 1)
        else:
            rows = update[item]
        if not 0 <= start <= start + rows.shape[1] <= cache.shape[2]:
            raise layer.fault(
                f"{rows.shape[1]} tokens at {start} leave the cache, which has {cache.shape[2]}"
            )
        out[item, :, start : start + rows.shape[1]] = rows
    return out
