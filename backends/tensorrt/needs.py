"""What a converter needs of a node: conditions as data, each of which can say why it is not met.

They decide what is given to TensorRT, word the reason where it isn't, and fill the table of
operators in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import attrs
import sympy
import torch

from rewright.backends.tensorrt.dtypes import COMPUTED, names_of, why_not
from rewright.backends.tensorrt.library import Library
from rewright.ir.graph import Node, Value
from rewright.ir.ops import SCALAR
from rewright.ir.sizes import is_true
from rewright.ir.types import DTYPE_NAMES, ScalarType, TensorType

MAX_RANK: Final = 8
"""TensorRT's limit."""


@attrs.frozen
class Query:
    """A node, and the library that it would be given to."""

    node: Node
    library: Library

    def values(self, name: str) -> list[Value]:
        """The values that the argument called `name` is or holds."""
        return [item for item in _flat(self.arg(name)) if isinstance(item, Value)]

    def arg(self, name: str) -> Any:
        """The argument called `name`, or its default; None where the op has none of the name."""
        try:
            return self.node.arg(name)
        except KeyError:
            return None

    def tensors(self, name: str) -> list[TensorType]:
        """The tensor types of the argument called `name`; ``out`` is the results."""
        values = list(self.node.results) if name == "out" else self.values(name)
        return [value.type for value in values if isinstance(value.type, TensorType)]

    def is_sure(self, condition: Any) -> bool:
        """Whether a condition on sizes holds for all of them."""
        ranges = {s: info.ranges for s, info in self.node.graph.symbols.items()}
        return is_true(condition, ranges) is True


def _flat(argument: Any) -> Iterable[Any]:
    if isinstance(argument, tuple):
        for item in argument:
            yield from _flat(item)
    else:
        yield argument


class Need(Protocol):
    """One condition; ``str`` says it in the words of the documentation."""

    def reason(self, query: Query) -> str | None:
        """Why the node of `query` does not meet this; None where it does."""


@attrs.frozen
class Dtypes:
    """The tensors of an argument have one of some dtypes."""

    name: str
    allowed: frozenset[torch.dtype]

    def reason(self, query: Query) -> str | None:
        for found in query.tensors(self.name):
            if found.dtype not in self.allowed:
                if found.dtype not in COMPUTED:
                    return why_not(found.dtype)
                name = DTYPE_NAMES[found.dtype]
                return f"{self.name} is {name}, and may be {names_of(self.allowed)}"
        return None

    def __str__(self) -> str:
        return f"{self.name}: {names_of(self.allowed)}"


@attrs.frozen
class Rank:
    """The tensors of an argument have a rank between two."""

    name: str
    low: int
    high: int = MAX_RANK

    def reason(self, query: Query) -> str | None:
        for found in query.tensors(self.name):
            if not self.low <= found.rank <= self.high:
                return f"{self.name} has {found.rank} dimensions, and may have {self._range()}"
        return None

    def _range(self) -> str:
        return f"{self.low} to {self.high}" if self.low < self.high else str(self.low)

    def __str__(self) -> str:
        return f"{self.name}: {self._range()} dimensions"


@attrs.frozen
class OneOf:
    """An argument is one of some values."""

    name: str
    allowed: tuple[Any, ...]

    def reason(self, query: Query) -> str | None:
        found = query.arg(self.name)
        if found in self.allowed and not isinstance(found, Value):
            return None
        return f"{self.name} is {found!r}, and may be {self._allowed()}"

    def _allowed(self) -> str:
        return " or ".join(map(repr, self.allowed))

    def __str__(self) -> str:
        return f"{self.name} = {self._allowed()}"


@attrs.frozen
class Constant:
    """An argument is a constant of the program (or left out)."""

    name: str

    def reason(self, query: Query) -> str | None:
        if all(value.is_constant for value in query.values(self.name)):
            return None
        return f"{self.name} must be a constant"

    def __str__(self) -> str:
        return f"{self.name} is constant"


@attrs.frozen
class Static:
    """Dimensions of an argument don't vary: all, or those from one number on."""

    name: str
    first: int | None = None

    def reason(self, query: Query) -> str | None:
        for found in query.tensors(self.name):
            dims = found.shape[self.first :]
            if not all(isinstance(dim, int) for dim in dims):
                return f"{self} must hold, and its shape is {list(map(str, found.shape))}"
        return None

    def __str__(self) -> str:
        which = "" if self.first is None else f" from dimension {self.first} on"
        return f"{self.name} is static{which}"


@attrs.frozen
class Numbers:
    """An argument is made of numbers, not of sizes that vary."""

    name: str

    def reason(self, query: Query) -> str | None:
        if any(isinstance(item, Value | sympy.Basic) for item in _flat(query.arg(self.name))):
            return f"{self.name} varies from call to call"
        return None

    def __str__(self) -> str:
        return f"{self.name} does not vary"


@attrs.frozen
class Unused:
    """Results of the node that nobody uses."""

    results: tuple[int, ...]
    what: str

    def reason(self, query: Query) -> str | None:
        if any(query.node.results[index].has_uses for index in self.results):
            return f"TensorRT has no layer that gives {self.what}"
        return None

    def __str__(self) -> str:
        return f"{self.what} not used"


@attrs.frozen
class Feature:
    """The library has something."""

    path: str

    def reason(self, query: Query) -> str | None:
        if query.library.has(self.path):
            return None
        return f"{query.library.name} has no {self.path.partition('.')[2]}"

    def __str__(self) -> str:
        return f"`{self.path.partition('.')[2]}`"


@attrs.frozen
class That:
    """Anything else: a condition in words, and the function that decides it."""

    words: str
    holds: Callable[[Query], bool]

    def reason(self, query: Query) -> str | None:
        return None if self.holds(query) else f"it needs: {self.words}"

    def __str__(self) -> str:
        return self.words


# --------------------------------------------------------------------------- for every node


def sizes_reason(query: Query) -> str | None:
    """Why the types of a node can't be in a network at all; None where they can."""
    values = [*query.node.operands, *query.node.results]
    for value in values:
        found = value.type
        if isinstance(found, TensorType):
            if found.rank > MAX_RANK:
                return f"TensorRT takes {MAX_RANK} dimensions, not {found.rank}"
            if found.device is not None:
                return f"it works on {found.device}"
        elif not isinstance(found, ScalarType) and value.producer is None:
            return f"TensorRT has nothing like {found}"
    return _unbounded(query)


def _unbounded(query: Query) -> str | None:
    """Which size of a node has no end, or is known only once this node has run.

    Where another node finds it, in Torch, it is the size of an input like any other.
    """
    table = query.node.graph.symbols
    symbols: set[sympy.Symbol] = set(query.node.attributes.symbols())
    for value in (*query.node.operands, *query.node.results):
        if isinstance(value.type, TensorType):
            for dim in value.type.shape:
                symbols |= getattr(dim, "free_symbols", set())
    for symbol in sorted(symbols, key=str):
        info = table.get(symbol)
        if info is None or not symbol.is_integer:  # a float is no size, and needs no range
            continue
        from_values = not info.binding.is_input and info.binding.producer is not None
        tells = info.binding.producer is query.node
        if from_values and tells and not query.library.builds_sizes_from_values:
            return (
                f"the size {symbol} depends on values, for which {query.library.name} has no "
                "kernel: target='tensorrt' has one"
            )
        if any(item.max is None for item in info.ranges) or not info.ranges:
            return (
                f"the size {symbol} has no maximum: give one by torch._check(size <= max)"
                if from_values or info.dim is None
                else f"the size {symbol} has no maximum: give one by mark_dynamic(min=, max=), "
                "Dim(max=) or Input(max=)"
            )
    return None


def is_number(value: Any) -> bool:
    """Whether an argument is a plain number: also one that a node of the graph holds."""
    if isinstance(value, Value):
        producer = value.producer
        return producer is not None and producer.op is SCALAR
    return isinstance(value, int | float)
