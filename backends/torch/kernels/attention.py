"""Attention sent to the kernel that is the fastest for its shape, by a table that was measured.

Torch picks a kernel of its own, by what can run at all, and then by a fixed order. That order was
measured on an H200 (torch 2.11, f16; ``python -m benchmarks.attention``), and is right but for
what stands in `TABLE`. The largest case are keys in a number that is no multiple of eight under a
mask, as in Swin (49 of them): cuDNN takes 32 us for 32 x 16 heads, torch's formula, which is what
Inductor ends with, 78, and the memory-efficient kernel 10, if the rows of the mask begin at
multiples of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Final

import attrs
import torch
from torch import Tensor

from rewright.ir.graph import Node
from rewright.ir.types import TensorType

_aten = torch.ops.aten
_sdpa = torch.nn.functional.scaled_dot_product_attention

ALIGNED: Final = 8
"""Rows of a mask begin at multiples of so many numbers of 16 bits; so long are heads, too."""

LARGEST: Final = 256
"""The largest head that the kernels take."""


@attrs.frozen
class Shape:
    """What the choice depends on.

    Attributes:
        heads: of queries, over the whole batch.
        queries: tokens that ask.
        keys: tokens that are asked.
        size: of a head.
        masked: whether there is a mask.
    """

    heads: int
    queries: int
    keys: int
    size: int
    masked: bool


@attrs.frozen
class Row:
    """A line of the table.

    Attributes:
        kernel: what is fastest.
        fits: for which shapes.
    """

    kernel: str
    fits: Callable[[Shape], bool]


TABLE: Final = (
    Row("efficient", lambda s: s.masked and s.keys % ALIGNED != 0),
    Row("efficient", lambda s: not s.masked and s.size >= 128 and s.keys < 128),
    Row("flash", lambda s: not s.masked and s.heads <= 16 and s.queries * s.keys <= 128 * 128),
)
"""The first row that fits says the kernel; where none does, torch's own choice is as fast."""


def kernel_of(node: Node) -> str | None:
    """The kernel that the table says for a ``rw.attention``, or None where torch's choice is right.

    Only for 16 bits, four dimensions, known sizes, and as many heads of keys as of queries.
    """
    types = [value.type for value in node.operands]
    tensors = [kind for kind in types if isinstance(kind, TensorType)]
    if len(tensors) < len(types) or any(t.rank != 4 or not t.is_static for t in tensors):
        return None
    query, key, value, *masks = tensors
    heads = {(kind.dtype, kind.shape[:2], kind.shape[-1]) for kind in (query, key, value)}
    plain = not node.attributes.get("causal", False) and node.attributes.get("window") is None
    if (
        len(heads) > 1
        or not plain
        or query.dtype not in (torch.float16, torch.bfloat16)
        or query.shape[-1] % ALIGNED
        or query.shape[-1] > LARGEST
        or 0 in (*query.shape, *key.shape)
        or any(mask.dtype not in (query.dtype, torch.bool) for mask in masks)
    ):
        return None
    *batch, queries, size = map(int, query.shape)
    shape = Shape(prod(batch), queries, int(key.shape[-2]), size, bool(masks))
    return next((row.kernel for row in TABLE if row.fits(shape)), None)


def efficient(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Torch's memory-efficient kernel.

    Args:
        query: ``[batch, heads, queries, size]``.
        key: ``[batch, heads, keys, size]``.
        value: of the key's shape.
        mask: added to the scores, of the query's dtype; or bool, true where a key is seen. Any
            shape that broadcasts to ``[batch, heads, queries, keys]``.
        scale: of the scores; ``size ** -0.5`` where it is None.
    """
    if not _has_kernels(query.device):
        return _sdpa(query, key, value, mask, scale=scale)
    bias = None
    if mask is not None:
        if mask.dtype == torch.bool:
            hidden = torch.full((), -torch.inf, dtype=query.dtype, device=query.device)
            mask = torch.where(mask, torch.zeros_like(hidden), hidden)
        keys = key.shape[-2]
        if mask.shape[-1] != keys:
            mask = mask.expand(*mask.shape[:-1], keys)
        rows = torch.nn.functional.pad(mask, (0, -keys % ALIGNED))[..., :keys]
        bias = rows.expand(*query.shape[:-1], keys)
    given = (whole(query), whole(key), whole(value))
    made: Tensor = _aten._scaled_dot_product_efficient_attention(
        *given, bias, False, 0.0, False, scale=scale
    )[0]
    return made


def flash(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Torch's flash attention, which takes no mask; arguments as of `efficient`."""
    if not _has_kernels(query.device):
        return _sdpa(query, key, value, scale=scale)
    given = (whole(query), whole(key), whole(value))
    size = query.shape[-1]
    made: Tensor = _aten._scaled_dot_product_flash_attention(
        *given, 0.0, False, False, scale=size**-0.5 if scale is None else scale
    )[0]
    return made


def whole(x: Tensor) -> Tensor:
    """`x`, with the numbers of a head side by side, as the kernels take it."""
    return x if x.stride(-1) == 1 else x.contiguous()


@lru_cache
def _has_kernels(device: torch.device) -> bool:
    """Whether the device is of a kind that the kernels are for: a loaded program may be on any."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
