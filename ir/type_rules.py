"""Types of ops of ours that follow from their operands by a line of arithmetic.

A reference of a dozen steps takes torch tens of milliseconds on fake tensors; a U-Net has 32 group
norms of different shapes. A rule here answers for the plain cases, whatever the sizes are, and
says None for all others, wrong ones among them: for those the reference is run, and names what
is wrong. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs
import torch

from rewright.ir.attributes import Attributes, Operand
from rewright.ir.sizes import Dim
from rewright.ir.types import TensorType, Type


@attrs.frozen
class _Call:
    """The operands and attributes of a node, by parameter."""

    attributes: Attributes
    types: tuple[TensorType, ...]

    def tensor(self, name: str) -> TensorType | None:
        """The operand given for the parameter `name`."""
        given = self.attributes.get(name)
        return self.types[given.index] if isinstance(given, Operand) else None

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Its shape."""
        found = self.tensor(name)
        return None if found is None else found.shape


_Rule = Callable[[_Call], "tuple[Dim, ...] | None"]


def _linear(call: _Call) -> tuple[Dim, ...] | None:
    x, weight, bias = (call.shape(name) for name in ("input", "weight", "bias"))
    if not x or weight is None or len(weight) != 2 or x[-1] != weight[1]:
        return None
    if bias not in (None, weight[:1]) or len({item.dtype for item in call.types}) != 1:
        return None
    return (*x[:-1], weight[0])


def _normalised(call: _Call) -> tuple[Dim, ...] | None:
    x, dims = call.shape("input"), call.attributes.get("dims", 1)
    if x is None or not isinstance(dims, int) or not 1 <= dims <= len(x):
        return None
    over = x[len(x) - dims :]
    return x if all(call.shape(name) in (None, over) for name in ("weight", "bias")) else None


def _grouped(call: _Call) -> tuple[Dim, ...] | None:
    x, groups = call.shape("input"), call.attributes["groups"]
    if x is None or len(x) < 2 or not isinstance(groups, int) or groups < 1:
        return None
    if not isinstance(x[1], int) or x[1] % groups:
        return None
    return x if all(call.shape(name) in (None, x[1:2]) for name in ("weight", "bias")) else None


def _attention(call: _Call) -> tuple[Dim, ...] | None:
    held = [item for name in ("query", "key", "value") if (item := call.tensor(name))]
    if len({item.dtype for item in held}) != 1 or held[0].rank < 3:
        return None
    query, key, value = (item.shape for item in held)
    if not len(query) == len(key) == len(value) or not query[:-3] == key[:-3] == value[:-3]:
        return None
    if query[-1] != key[-1] or key[-2] != value[-2]:
        return None
    if not all(_serves(x[-3], query[-3]) for x in (key, value)):
        return None
    scores, mask = (*query[:-1], key[-2]), call.shape("mask")
    if mask is not None and not _broadcasts(mask, scores):
        return None
    return (*query[:-1], value[-1])


def _serves(heads: Dim, queries: Dim) -> bool:
    """Whether so many heads serve those of the queries, each equally many."""
    if heads == queries:
        return True
    return isinstance(heads, int) and isinstance(queries, int) and heads > 0 and not queries % heads


def _broadcasts(shape: tuple[Dim, ...], to: tuple[Dim, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(dim in (1, wanted) for dim, wanted in pairs)


_RULES: Final[Mapping[str, tuple[str, _Rule]]] = {
    "rw.linear": ("input", _linear),
    "rw.layer_norm": ("input", _normalised),
    "rw.rms_norm": ("input", _normalised),
    "rw.group_norm": ("input", _grouped),
    "rw.attention": ("query", _attention),
}
"""The parameter whose dtype the result has, and a rule for its shape."""

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def plain_type(name: str, attributes: Attributes, types: tuple[Type, ...]) -> TensorType | None:
    """The type of the result of the op called `name`, where a rule tells it.

    Args:
        name: of the op.
        attributes: its attributes.
        types: of its operands.
    """
    if name not in _RULES:
        return None
    tensors = tuple(item for item in types if isinstance(item, TensorType))
    if len(tensors) != len(types) or len({item.device for item in tensors}) != 1:
        return None
    call = _Call(attributes, tensors)
    mask = call.tensor("mask")
    if any(not (item.dtype in _DTYPES or _is_bool(item, mask)) for item in tensors):
        return None
    like, rule = _RULES[name]
    shape, model = rule(call), call.tensor(like)
    return None if shape is None or model is None else attrs.evolve(model, shape=shape)


def _is_bool(item: TensorType, mask: TensorType | None) -> bool:
    return item is mask and item.dtype is torch.bool
