"""Which tensors hold the same bits, found without reading more of them than needed."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)

_SAMPLES: Final = 64
"""So many elements are looked at before all of them are hashed."""


def equal_contents(tensors: Mapping[K, Tensor], *, max_bytes: int | None = None) -> list[list[K]]:
    """The names of tensors that hold the same bits, in groups of at least two.

    Only those of one dtype, shape and device are compared: first by a few elements, and only
    where these agree by a hash of all bytes. So a model whose weights differ costs next to nothing.

    Args:
        tensors: dense tensors, by name.
        max_bytes: larger ones are left out.
    """
    groups: list[list[K]] = [
        [
            name
            for name, tensor in tensors.items()
            if tensor.layout is torch.strided
            and not tensor.is_quantized
            and tensor.device.type != "meta"
            and (max_bytes is None or tensor.nbytes <= max_bytes)
        ]
    ]
    for key in (_kind, _sample, _digest):
        groups = [part for group in groups for part in _split(group, tensors, key)]
    return groups


def _split(group: list[K], tensors: Mapping[K, Tensor], key: Any) -> list[list[K]]:
    parts: dict[Any, list[K]] = {}
    for name in group:
        parts.setdefault(key(tensors[name]), []).append(name)
    return [part for part in parts.values() if len(part) > 1]


def _kind(tensor: Tensor) -> Any:
    return tensor.dtype, tuple(tensor.shape), tensor.device


def _sample(tensor: Tensor) -> bytes:
    count = tensor.numel()
    if count <= _SAMPLES:
        return _bytes(tensor)
    at = torch.linspace(0, count - 1, _SAMPLES, dtype=torch.float64).long()
    places = torch.unravel_index(at.to(tensor.device), tensor.shape)
    return _bytes(tensor.detach()[places])


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(_bytes(tensor), digest_size=16).digest()


def _bytes(tensor: Tensor) -> bytes:
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().tobytes()
