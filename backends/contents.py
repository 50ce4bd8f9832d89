"""Digests of the contents of tensors, computed once for each version of a tensor."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from rewright.digest import Read, digests
from rewright.errors import UnsupportedError

_PLAIN: Final = (Tensor, torch.nn.Parameter, torch.nn.Buffer)

_SAMPLES: Final = 1024
"""So many bytes of a tensor are compared before a digest is taken from memory."""


@attrs.frozen
class _Known:
    """A digest that was computed before.

    Attributes:
        storage: refers weakly to the memory; as long as this lives, no other gets its address.
        version: torch's count of writes.
        sample: a few bytes: they tell of writes through ``tensor.data``, which are not counted.
        digest: the digest.
    """

    storage: StorageWeakRef
    version: int
    sample: bytes
    digest: bytes


_known: dict[Any, _Known] = {}
_lock = threading.Lock()


def tensor_digests(tensors: Sequence[Tensor]) -> list[bytes]:
    """A digest of each tensor's dtype, shape and elements: 32 bytes.

    Tensors that were seen before, in the same memory and not written to since, cost microseconds;
    others about a second for each gigabyte. A write through ``tensor.data`` that torch does not
    count is found by comparing 1024 bytes spread over the tensor: one that changes few elements
    may be missed.

    Raises:
        UnsupportedError: a tensor has no elements that can be read: a fake, sparse, quantized one
            or a subclass.
    """
    for tensor in tensors:
        _check(tensor)
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.synchronize(device)  # threads read on streams of their own
    found: dict[int, bytes] = {}
    unknown: list[tuple[int, Any, int, bytes]] = []
    for number, tensor in enumerate(tensors):
        key, version, sample = _identity(tensor), _version(tensor), _sample(tensor)
        known = _known.get(key)
        if known is not None and (known.version, known.sample) == (version, sample):
            found[number] = known.digest
        else:
            unknown.append((number, key, version, sample))
    made = _contents([tensors[number] for number, *_ in unknown])
    with _lock:
        _forget_freed()
        for (number, key, version, sample), contents in zip(unknown, made, strict=True):
            tensor = tensors[number]
            found[number] = _whole(tensor, contents)
            if version >= 0:
                storage = StorageWeakRef(tensor.untyped_storage())
                _known[key] = _Known(storage, version, sample, found[number])
    return [found[number] for number in range(len(tensors))]


def _check(tensor: Tensor) -> None:
    if type(tensor) not in _PLAIN:
        reason = f"a {type(tensor).__name__}"
    elif tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
        reason = f"a tensor on {tensor.device} with layout {tensor.layout} and {tensor.dtype}"
    else:
        return
    raise UnsupportedError(f"{reason} has no elements that can be hashed")


def _identity(tensor: Tensor) -> Any:
    """What stays the same as long as a tensor is in the same memory."""
    return (
        *(tensor.untyped_storage()._cdata, tensor.data_ptr(), tensor.dtype),
        *(tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg()),
    )


def _version(tensor: Tensor) -> int:
    """How often torch wrote to a tensor; -1 where it does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _forget_freed() -> None:
    for key in [key for key, known in _known.items() if known.storage.expired()]:
        del _known[key]


# --------------------------------------------------------------------------- bytes


def _memory(tensor: Tensor) -> Tensor:
    """The bytes from a tensor's first element to its last, as they are in memory."""
    size = tensor.element_size()
    dims = zip(tensor.shape, tensor.stride(), strict=True)
    count = sum((dim - 1) * stride for dim, stride in dims) + 1 if tensor.numel() else 0
    with torch.no_grad():
        raw = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        start = tensor.storage_offset() * size
        return raw.set_(tensor.untyped_storage(), start, (count * size,), (1,))


def _sample(tensor: Tensor) -> bytes:
    """A few bytes, spread evenly; the odd step meets each byte of an element in turn."""
    raw = _memory(tensor)
    step = max(raw.numel() // _SAMPLES, 1) | 1
    return raw[::step].cpu().numpy().tobytes()


def _contents(tensors: Sequence[Tensor]) -> list[bytes]:
    """The digest of each tensor's elements in the order of their indices.

    Those that are dense and in order are read where they are, all together; of the others one
    copy at a time is made.
    """
    ready = [number for number, tensor in enumerate(tensors) if _is_in_order(tensor)]
    found = dict(zip(ready, digests([_source(tensors[n]) for n in ready]), strict=True))
    for number, tensor in enumerate(tensors):
        if number not in found:
            dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
            found[number] = digests([_source(dense)])[0]
    return [found[number] for number in range(len(tensors))]


def _is_in_order(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _source(tensor: Tensor) -> tuple[int, Read]:
    """A dense tensor, as :func:`~rewright.digest.digests` reads it: from a GPU in pieces."""
    raw = _memory(tensor)

    def read(start: int, stop: int) -> Any:
        return raw[start:stop].cpu().numpy()

    return raw.numel(), read


def _whole(tensor: Tensor, contents: bytes) -> bytes:
    shape: Iterable[int] = tensor.shape
    return hashlib.sha256(f"{tensor.dtype} {[*shape]} ".encode() + contents).digest()
