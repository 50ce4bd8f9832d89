"""Every node to the first backend that takes it, or to torch, with the reason.

A node is *free* where it computes nothing: it moves, repeats or states what is there. Free nodes
don't count for the size of a segment, and later follow those who use them.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import attrs

from rewright.errors import PassError, did_you_mean
from rewright.ir.graph import Graph, Node
from rewright.ir.ops import SCALAR, SEGMENT, Op, Trait, known_ops
from rewright.ir.types import TensorType
from rewright.passes.partition.backend import TORCH, SegmentBackend
from rewright.passes.partition.doubles import double_reason

_LOG: Final = logging.getLogger(__name__)


@attrs.frozen
class Overrides:
    """What the user sends to torch, whatever backends say.

    Attributes:
        ops: names of ops, globs: ``aten.softmax.int``, ``aten.softmax*``.
        modules: paths of modules, globs: ``layers.3``, ``layers.*.attn``. What is inside of a
            module that matches goes with it.
        nodes: single nodes: the name of a result without its %, or a source line, ``model.py:41``.
        prefix: what the settings that say so begin with.
    """

    ops: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    prefix: str = "torch_executed"

    def check(self, graph: Graph) -> None:
        """Refuses what matches nothing at all, for that is a slip of the pen.

        A module that is not here is only warned of, in the log: just in time it may be in another
        graph of the same model.

        Raises:
            PassError: no op is called so; no node of `graph` is.
        """
        names = [op.name for op in known_ops()]
        for pattern in self.ops:
            inside = any(_op_fits(node.op.name, pattern) for node in graph.walk())
            if not inside and not any(_op_fits(name, pattern) for name in names):
                raise PassError(
                    f"{self.prefix}_ops has {pattern!r}, and no operator is called so",
                    hint=did_you_mean(pattern, names),
                )
        if self.nodes:
            known = {name for node in graph for name in _names(node)}
            for name in self.nodes:
                if name.removeprefix("%") not in known:
                    raise PassError(
                        f"{self.prefix}_nodes has {name!r}, and no node is called so",
                        hint=did_you_mean(name.removeprefix("%"), sorted(known)),
                    )
        self._warn_of_modules(graph)

    def _warn_of_modules(self, graph: Graph) -> None:
        known = {node.loc.module for node in graph if node.loc} if self.modules else set()
        modules = sorted({path for module in known for path in _ancestors(module)})
        for pattern in self.modules:
            if not fnmatch.filter(modules, pattern):
                name, meant = f"{self.prefix}_modules", did_you_mean(pattern, modules)
                _LOG.warning(
                    "%s has %r, and no module in @%s is called so%s",
                    name, pattern, graph.name, f": {meant}" if meant else "",
                )  # fmt: skip

    def reason(self, node: Node) -> str | None:
        """Why the user has `node` in torch; None if not."""
        for pattern in self.ops:
            if _op_fits(node.op.name, pattern):
                return f"{self.prefix}_ops has {pattern!r}"
        module = node.loc.module if node.loc else ""
        for pattern in self.modules:
            if any(fnmatch.fnmatchcase(path, pattern) for path in _ancestors(module)):
                return f"{self.prefix}_modules has {pattern!r}"
        names = _names(node) if self.nodes else frozenset()
        for name in self.nodes:
            if name.removeprefix("%") in names:
                return f"{self.prefix}_nodes has {name!r}"
        return None


def _op_fits(name: str, pattern: str) -> bool:
    """Whether an op fits: a name without an overload means all of its overloads."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


@lru_cache(maxsize=4096)
def _ancestors(module: str) -> tuple[str, ...]:
    """A module's path, and those that it is inside of."""
    parts = module.split(".") if module else []
    return tuple(".".join(parts[: end + 1]) for end in range(len(parts)))


def _names(node: Node) -> frozenset[str]:
    line = (f"{node.loc.file}:{node.loc.line}",) if node.loc and node.loc.file else ()
    return frozenset((*(value.hint for value in node.results if value.hint), *line))


@attrs.define
class Assignment:
    """Which backend each node goes to.

    Attributes:
        nodes: the nodes of the graph, in order.
        backends: the names of backends, torch the last.
        colors: the number of each node's backend in `backends`.
        reasons: why a node is not with the first backend, where it is not.
    """

    nodes: list[Node]
    backends: tuple[str, ...]
    colors: list[int]
    reasons: dict[Node, str]

    @property
    def torch(self) -> int:
        """The color of torch."""
        return len(self.backends) - 1

    def send_to_torch(self, at: int, reason: str) -> None:
        """Gives node number `at` to torch."""
        self.colors[at] = self.torch
        self.reasons[self.nodes[at]] = reason


def assign(graph: Graph, backends: Sequence[SegmentBackend], overrides: Overrides) -> Assignment:
    """Each node of `graph` to the first backend that takes it.

    Raises:
        PassError: `overrides` name what there is not.
    """
    overrides.check(graph)
    telling = {info.binding.producer for info in graph.symbols.values()}
    names = (*(backend.name for backend in backends), TORCH)
    made = Assignment([*graph], names, [], {})
    ask: list[Ask] = [overrides.reason, _structural]
    for node in made.nodes:
        color, reason = _choose(node, ask, backends, node in telling)
        made.colors.append(color)
        if reason is not None:
            made.reasons[node] = reason
    return made


_TELLS: Final = "it tells a size that only a run can know"


def _refusal(backend: SegmentBackend, node: Node, tells: bool) -> str | None:
    """Why `backend` does not take `node`, which `tells` a size that only a run can know, or not."""
    reason = backend.refuse(node)
    if not tells or (reason is None and getattr(backend, "tells_sizes", False)):
        return reason
    return _TELLS if reason is None else f"{_TELLS}: {reason}"


Ask = Callable[[Node], "str | None"]


def _choose(
    node: Node, ask: Iterable[Ask], backends: Sequence[SegmentBackend], tells: bool
) -> tuple[int, str | None]:
    """The color of `node`, and why it is not the first."""
    for question in ask:
        reason = question(node)
        if reason is not None:
            return len(backends), reason
    first: str | None = None
    for color, backend in enumerate(backends):
        reason = _refusal(backend, node, tells)
        if reason is None:
            return color, first
        first = first or reason
    double = double_reason(node)
    return len(backends), first if double is None else double.text


def _structural(node: Node) -> str | None:
    if node.op is SEGMENT:
        return "it is a segment already"
    if is_ordered(node):
        return f"{node.op.name} has an effect or draws random numbers, in an order that is kept"
    return None


# --------------------------------------------------------------------------- kinds of nodes


def is_ordered(node: Node) -> bool:
    """Whether the node keeps its place among the others that do: effects, random numbers."""
    return not node.is_pure


def is_free(node: Node) -> bool:
    """Whether the node computes nothing: views, permutations, numbers, fills."""
    return _op_is_free(node.op) or (not node.operands and node.is_pure)


@lru_cache(maxsize=4096)
def _op_is_free(op: Op) -> bool:
    return op is SCALAR or (op.has(Trait.MOVEMENT) and op.name not in _COPIES)


_COPIES: Final = frozenset({"aten.cat", "aten.stack", "aten.repeat", "aten.roll", "aten.flip"})
"""Movements that copy as much as they are given, and more: worth a kernel."""


def count_computing(node: Node) -> int:
    """How many nodes compute something: this one, or those in its regions."""
    if not node.regions:
        return int(not is_free(node))
    return max(1, sum(count_computing(inner) for region in node.regions for inner in region))


def is_loose(node: Node) -> bool:
    """Whether the node may be made anew wherever it is used: it takes nothing, and is pure."""
    return not node.operands and not node.regions and not is_ordered(node)


def tensor_bytes(values: Iterable[Any]) -> int | None:
    """Bytes of the tensors among `values`; None where a size is symbolic."""
    total = 0
    for value in values:
        if isinstance(value.type, TensorType):
            count = value.type.dtype.itemsize
            for dim in value.type.shape:
                if not isinstance(dim, int):
                    return None
                count *= dim
            total += count
    return total
