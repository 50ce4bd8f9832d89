"""The numbers behind ``trt.Weights``, as torch tensors.

TensorRT keeps a reference to the memory that weights were given in, never a copy. Reading them
back, its Python binding makes a numpy view for the dtypes numpy has; for the others (BF16, FP8,
E8M0, INT4, FP4) it returns a ``trt.Weights`` without a way to its bytes. Those come from the side
table where one was given, else from the memory that the C++ object points to.

Either way the memory belongs to whoever made the network, and must live as long as the network is
used: nothing here can tell that it was freed. Nor can weights be told from placeholders for those
that are to come at refit (a null pointer with a count), for which TensorRT gives an address of its
own: these must be in the side table.
"""

import ctypes
from collections.abc import Mapping
from typing import Any

import torch

from rewright.errors import EngineError
from rewright.testing.dtypes import torch_dtype, unpack_4bit

__all__ = ["read_weights"]

_BITS_PER_VALUE = {"INT4": 4, "FP4": 4, "BF16": 16, "HALF": 16, "FLOAT": 32, "INT32": 32}


class _Weights(ctypes.Structure):
    """``nvinfer1::Weights``, a plain struct in every version since 5."""

    _fields_ = [
        ("type", ctypes.c_int32),
        ("values", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    ]


def read_weights(
    weights: Any, where: str, key: str, table: Mapping[str, torch.Tensor]
) -> torch.Tensor | None:
    """The values of ``weights`` as a flat CPU tensor; None where there are none.

    Args:
        weights: what a layer's attribute gave: a numpy array or a ``trt.Weights``.
        where: the layer, for messages.
        key: the name of these weights in ``table``.
        table: tensors that hold weights' values, by name; preferred to reading memory.

    The result may be a view of the caller's memory: it is not to be written to.
    """
    held = table.get(key)
    numpy_view = hasattr(weights, "__array_interface__")
    count = int(weights.size)
    if count == 0:
        return None
    if held is not None:
        return _from_table(held, weights, count, numpy_view, where, key)
    if numpy_view:
        # torch has no read-only tensors, and warns of a numpy array that is one.
        return torch.from_numpy(weights if weights.flags.writeable else weights.copy()).flatten()
    return _from_memory(weights, count, where)


def _from_table(
    held: torch.Tensor, weights: Any, count: int, numpy_view: bool, where: str, key: str
) -> torch.Tensor:
    if not numpy_view:
        expected = torch_dtype(weights.dtype)
    else:
        expected = torch.from_numpy(weights[:1].copy()).dtype
    if held.dtype != expected or held.numel() != count:
        raise EngineError(
            f"weights {key!r} are {count} × {expected} in the network, "
            f"{held.numel()} × {held.dtype} in the table given",
            where=where,
            hint="give the tensors that the network was made with, or no table",
        )
    return held.detach().cpu().contiguous().flatten()


def _from_memory(weights: Any, count: int, where: str) -> torch.Tensor:
    # pybind11 puts the pointer to the C++ object right after the Python object's head.
    pointer = ctypes.c_void_p.from_address(id(weights) + object.__basicsize__).value
    native = _Weights.from_address(pointer) if pointer else None
    if native is None or native.type != int(weights.dtype) or native.count != count:
        raise EngineError(
            f"{weights.dtype.name} weights can't be read back from this TensorRT binding",
            where=where,
            hint="pass them: evaluate_network(network, inputs, weights={layer name: tensor})",
        )
    if not native.values:
        raise EngineError(
            f"{count} weights have no values: they are to be given at refit",
            where=where,
            hint="make the network with its weights, or pass them by `weights=`",
        )
    kind = weights.dtype.name
    held_as = torch_dtype(weights.dtype)
    bits = _BITS_PER_VALUE.get(kind, 8 * held_as.itemsize)
    size = (count * bits + 7) // 8
    memory = (ctypes.c_uint8 * size).from_address(native.values)
    raw = torch.frombuffer(memory, dtype=torch.uint8)
    return unpack_4bit(raw, kind, count) if bits == 4 else raw.view(held_as)
