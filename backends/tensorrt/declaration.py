"""Converters are declared: for which ops, with which arguments, under which conditions.

    @converts("aten.softmax.int", "aten._softmax", dtypes={"self": FLOATS})
    def softmax(call: Call, self: Tensor, dim: int) -> Tensor:
        ...

The parameters of the function are the op's own, by name; its annotations say in what form it
gets them:

=====================  ======================================================================
annotation             an argument arrives as
=====================  ======================================================================
``Tensor``             a :class:`~rewright.backends.tensorrt.tensor.Tensor` of the network
``Sequence[Tensor]``   a list of them
``Any``, ``Size`` ...  a number, an expression, or a tensor where the graph has one
=====================  ======================================================================

A parameter that the function does not take must be left at its default (or be one of those that
mean nothing here, like `memory_format`): otherwise the node is refused, never half converted.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Final, TypeAlias

import attrs
import torch

from rewright.backends.tensorrt.dtypes import COMPUTED
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.needs import Dtypes, Need, Query, sizes_reason
from rewright.backends.tensorrt.network import Network
from rewright.backends.tensorrt.refused import EARLIER, NO_MEANING, REFUSED
from rewright.ir.attributes import Attributes
from rewright.ir.graph import Node, Value
from rewright.ir.ops import REQUIRED, Op
from rewright.ir.types import TensorType

Convert: TypeAlias = Callable[..., Any]

MEANINGLESS: Final = frozenset(
    ("memory_format", "layout", "pin_memory", "device", "non_blocking", "implicit", "copy")
)
"""Parameters that are about memory and places, which values don't have."""


@attrs.frozen
class Refusal:
    """Why a node can't be given to TensorRT."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.frozen
class Call:
    """The node that is being converted.

    Attributes:
        net: the network.
        node: the node.
    """

    net: Network
    node: Node

    @property
    def library(self) -> Library:
        """The TensorRT that the network is for."""
        return self.net.library

    @property
    def result(self) -> TensorType:
        """The type of the first result."""
        return self.node.results[0].type  # type: ignore[return-value]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first result."""
        return self.result.dtype

    @property
    def sizes(self) -> tuple[Any, ...]:
        """The shape of the first result: numbers and expressions."""
        return self.result.shape

    @property
    def all_sizes(self) -> list[tuple[Any, ...]]:
        """The shape of each result, which are all tensors."""
        return [value.type.shape for value in self.node.results]  # type: ignore[union-attr]

    def type(self, name: str) -> TensorType:
        """The type of the tensor argument called `name`."""
        return self.node.arg(name).type

    def shape(self, name: str) -> tuple[Any, ...]:
        """The shape of the tensor argument called `name`: numbers and expressions."""
        return self.type(name).shape

    def uses(self, index: int) -> bool:
        """Whether anybody uses result number `index`."""
        return self.node.results[index].has_uses

    def is_sure(self, condition: Any) -> bool:
        """Whether a condition on sizes holds for all of them."""
        return Query(self.node, self.library).is_sure(condition)


@attrs.frozen
class Converter:
    """A declared converter.

    Attributes:
        op: the name of the op.
        convert: makes the layers.
        family: the module that declares it, for the documentation.
        needs: what must hold, besides what holds for every node.
        formula: what it does, where it was made from a row of a table.
    """

    op: str
    convert: Convert
    family: str
    needs: tuple[Need, ...]
    formula: str

    @cached_property
    def takes(self) -> dict[str, str]:
        """The parameters that the function takes, with their annotations as text."""
        parameters = list(inspect.signature(self.convert).parameters.values())[1:]
        return {item.name: str(item.annotation) for item in parameters}

    def refusal(self, query: Query) -> str | None:
        """Why a node is refused; None where it is taken."""
        return self._untaken(query.node) or next(
            filter(None, (need.reason(query) for need in self.needs)), None
        )

    def _untaken(self, node: Node) -> str | None:
        """The argument that the function knows nothing of, and that is not at its default."""
        for name, given in node.attributes.items():
            if name in self.takes or name in MEANINGLESS:
                continue
            default = node.op.param(name).default
            if default is REQUIRED or Attributes({"": given}) != Attributes({"": default}):
                return f"no converter takes its argument {name}"
        return None


_converters: dict[str, Converter] = {}


def converts(
    *ops: str,
    dtypes: Mapping[str, frozenset[torch.dtype]] | None = None,
    needs: Sequence[Need] = (),
    formula: str = "",
) -> Callable[[Convert], Convert]:
    """Declares a converter.

    Args:
        ops: the names of the ops that it is for.
        dtypes: which dtypes each argument may have (``out``: the results); all others may have
            what TensorRT computes with.
        needs: further conditions.
        formula: what it does, for the documentation; by default its docstring says it.

    Raises:
        ValueError: there is one for an op already.
    """

    def declare(function: Convert) -> Convert:
        family = function.__module__.rpartition(".")[2]
        text = formula or (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        rows = tuple(Dtypes(name, allowed) for name, allowed in (dtypes or {}).items())
        for op in ops:
            if op in _converters:
                raise ValueError(f"there are two converters for {op}")
            _converters[op] = Converter(op, function, family, (*rows, *needs), text)
        return function

    return declare


@cache
def _load_all() -> None:
    from rewright.backends.tensorrt import converters as package

    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")


def converters() -> Mapping[str, Converter]:
    """Every converter, by the name of its op."""
    _load_all()
    return _converters


def converter_of(op: Op) -> Converter | None:
    """The converter for an op, or None."""
    return converters().get(op.name)


def supports(node: Node, library: Library) -> Refusal | None:
    """Whether TensorRT takes a node; None: yes.

    Args:
        node: a node of a graph.
        library: the TensorRT in question.

    Returns:
        Why it does not, where it does not.
    """
    from rewright.backends.tensorrt.emitter import STRUCTURAL

    if node.op.name in STRUCTURAL:
        return None
    converter = converter_of(node.op)
    if converter is None:
        known = {**REFUSED, **NO_MEANING}.get(node.op.name)
        if node.op.name in EARLIER:
            known = f"it is gone after {EARLIER[node.op.name]}"
        return Refusal(known or f"{node.op.name} has no converter to TensorRT")
    query = Query(node, library)
    reason = sizes_reason(query) or converter.refusal(query) or _dtype_reason(query, converter)
    return Refusal(reason) if reason else None


def _dtype_reason(query: Query, converter: Converter) -> str | None:
    """Why dtypes that the converter says nothing of are refused."""
    declared = {need.name for need in converter.needs if isinstance(need, Dtypes)}
    names = [*(name for name in query.node.attributes if name not in declared), "out"]
    rows = (Dtypes(name, COMPUTED).reason(query) for name in names if name not in declared)
    return next(filter(None, rows), None)


def arguments(call: Call, converter: Converter, tensor: Callable[[Value], Any]) -> dict[str, Any]:
    """The arguments of a node in the form in which its converter takes them.

    Args:
        call: the node.
        converter: its converter.
        tensor: gives what stands for a value: a tensor, a number or an expression.
    """

    def put(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return [put(item) for item in argument]
        return tensor(argument) if isinstance(argument, Value) else argument

    return {name: put(call.node.arg(name)) for name in converter.takes if _given(call, name)}


def _given(call: Call, name: str) -> bool:
    """Whether an op has the parameter: functions may take those of several ops."""
    try:
        call.node.arg(name)
    except KeyError:
        return False
    return True
