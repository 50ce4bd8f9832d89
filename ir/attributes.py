"""Attributes: what an op takes besides tensors, and where its tensors go.

The attributes of a node are an ordered mapping from parameter name to value. Where a value of
the graph belongs, the attribute holds an :class:`Operand`, a number into the node's operand
list; so attributes are immutable and hashable, and equal attributes mean equal wiring up to the
operands. A subgraph is held the same way, by a :class:`RegionRef`.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping
from typing import Any

import attrs
import sympy
import torch

from rewright.ir.sizes import free_symbols


@attrs.frozen
class Operand:
    """Stands for the node's operand number `index`."""

    index: int


@attrs.frozen
class RegionRef:
    """Stands for the node's region number `index`."""

    index: int


@attrs.frozen
class Record:
    """A dict as an attribute: ordered pairs of name and attribute."""

    items: tuple[tuple[str, Any], ...]


@attrs.frozen(eq=False)
class Opaque:
    """A Python object that has no text form; a graph that holds one can't be saved."""

    value: Any
    label: str


LEAVES = (
    *(type(None), bool, int, float, complex, str, sympy.Basic),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(Operand, RegionRef, Opaque),
)
"""The classes of attribute that hold no others."""


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """`value` with `function` applied to every leaf, tuples and records kept."""
    if isinstance(value, tuple):
        return tuple(map_leaves(item, function) for item in value)
    if isinstance(value, Record):
        return Record(tuple((name, map_leaves(item, function)) for name, item in value.items))
    return function(value)


def leaves(value: Any) -> Iterator[Any]:
    """Every leaf of `value`, in order."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Record):
        for _, item in value.items:
            yield from leaves(item)
    else:
        yield value


class Attributes(Mapping[str, Any]):
    """An immutable, hashable, ordered mapping from parameter name to attribute."""

    __slots__ = ("_hash", "_items", "_key")

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items = dict(items or {})
        self._hash: int | None = None
        self._key: tuple[Any, ...] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute called `name`, or `default`."""
        return self._items.get(name, default)

    def keys(self) -> KeysView[str]:
        """The names, in order."""
        return self._items.keys()

    def items(self) -> ItemsView[str, Any]:
        """Names and attributes, in order."""
        return self._items.items()

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.key)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attributes) and self.key == other.key

    def __repr__(self) -> str:
        return f"Attributes({self._items})"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells attributes apart: ``1``, ``1.0`` and ``True`` differ, and so do ``±0.0``."""
        if self._key is None:
            self._key = tuple((name, _key(item)) for name, item in self._items.items())
        return self._key

    def symbols(self) -> set[sympy.Symbol]:
        """Every symbol that the attributes mention."""
        return free_symbols(leaf for item in self._items.values() for leaf in leaves(item))

    def map(self, function: Callable[[Any], Any]) -> Attributes:
        """These attributes with `function` applied to every leaf."""
        return Attributes({n: map_leaves(item, function) for n, item in self._items.items()})


def _key(value: Any) -> Any:
    if isinstance(value, tuple):
        return ("tuple", *(_key(item) for item in value))
    if isinstance(value, Record):
        return ("record", *((name, _key(item)) for name, item in value.items))
    if isinstance(value, float | complex):
        return (type(value), repr(value))  # repr tells -0.0 from 0.0 and makes nan equal itself
    return (type(value), value)
