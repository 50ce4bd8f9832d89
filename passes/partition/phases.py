"""Phases: an order of the nodes in which each backend's turns are few, and no segment waits for
itself.

The backends take turns: phase ``p`` belongs to backend ``p mod k``. A node goes into the first
phase of its backend that is not before the phases of what it uses. So every edge leads to the same
phase or a later one: to make one segment of all that is in a phase can't make a cycle, whatever
the graph, and there are never more phases than the longest chain of changes of backend needs. It
takes one walk over the nodes. Torch begins, for what waits for torch must not be apart from what
waits for nothing.

Then a second walk, from the end, lets free nodes follow their users: a view that is only read in
phase 4 doesn't stay behind in phase 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.types import type_symbols
from rewright.passes.partition.assignment import (
    Assignment,
    is_free,
    is_loose,
    is_ordered,
    tensor_bytes,
)

_NEVER: Final = -1

LOOSE: Final = -1
"""The phase of nodes that belong to no phase, and stand before all of them."""


def dependencies(graph: Graph, nodes: Sequence[Node]) -> list[list[int]]:
    """For each node, the numbers of those that must come before it.

    Besides the producers of what it uses: the node that tells a size it mentions, and, for one
    whose order is kept, the last such node.
    """
    number = {node: at for at, node in enumerate(nodes)}
    told = {
        symbol: number[info.binding.producer]
        for symbol, info in graph.symbols.items()
        if info.binding.producer in number
    }
    last = _NEVER
    found: list[list[int]] = []
    for at, node in enumerate(nodes):
        before = [number[v.producer] for v in node.operands if v.producer in number]
        if told:
            before += [told[symbol] for symbol in _mentioned(node) & told.keys()]
            before = [other for other in before if other != at]
        if is_ordered(node):
            if last != _NEVER:
                before.append(last)
            last = at
        found.append(before)
    return found


def _mentioned(node: Node) -> set[Any]:
    return node.attributes.symbols().union(*(type_symbols(v.type) for v in node.results))


def first_phase(floor: int, color: int, count: int) -> int:
    """The first phase of backend `color`, of `count`, that is not before `floor`."""
    return floor + (color - floor) % count


def earliest(colors: Sequence[int], before: Sequence[Sequence[int]], count: int) -> list[int]:
    """The earliest phase of every node, torch's turn the first. Linear in nodes and edges."""
    phases: list[int] = []
    for color, others in zip(colors, before, strict=True):
        floor = max((phases[other] for other in others), default=count - 1)
        phases.append(first_phase(floor, color, count))
    return phases


def follow_users(
    nodes: Sequence[Node],
    phases: list[int],
    before: Sequence[Sequence[int]],
    count: int,
    tied: frozenset[int] = frozenset(),
) -> None:
    """Moves free nodes to the phase of their first user, where no more bytes cross then.

    Args:
        nodes: in order.
        phases: of each node; changed in place.
        before: as :func:`dependencies` gives it.
        count: of backends.
        tied: numbers of nodes that stay: what an output or a write-back is.
    """
    limit: list[int | None] = [None] * len(nodes)
    for at in range(len(nodes) - 1, -1, -1):
        bound = limit[at]
        if bound is not None and at not in tied and bound > phases[at] and _may_follow(nodes[at]):
            phases[at] = bound - (bound - phases[at]) % count
        for other in before[at]:
            known = limit[other]
            limit[other] = phases[at] if known is None else min(known, phases[at])


def _may_follow(node: Node) -> bool:
    if not is_free(node) or is_ordered(node):
        return False
    taken = tensor_bytes(v for v in node.operands if _crosses(v))
    given = tensor_bytes(node.results)
    if taken is None or given is None:  # symbolic: a view gives as much as it takes, at most
        return len([v for v in node.operands if _crosses(v)]) <= 1
    return taken <= given or not node.operands


def _crosses(value: Value) -> bool:
    """Whether a value costs something when another segment reads it: inputs are there anyway."""
    return not isinstance(value, Constant) and not value.is_input


def phases_of(graph: Graph, assignment: Assignment) -> list[int]:
    """The phase of each node of `assignment`; :data:`LOOSE` for one that has none."""
    before = dependencies(graph, assignment.nodes)
    count = len(assignment.backends)
    loose = loose_nodes(graph, assignment.nodes)
    free_of = [[other for other in others if other not in loose] for others in before]
    phases = earliest(assignment.colors, free_of, count)
    for at in loose:
        phases[at] = LOOSE
    follow_users(assignment.nodes, phases, free_of, count, _tied(assignment.nodes) | loose)
    return phases


def loose_nodes(graph: Graph, nodes: Sequence[Node]) -> frozenset[int]:
    """The numbers of the nodes that cost nothing and take nothing: numbers, fills, ranges.

    They bind nobody: each segment that uses one makes its own.
    """
    told = {symbol for symbol, info in graph.symbols.items() if info.binding.producer is not None}
    return frozenset(
        at
        for at, node in enumerate(nodes)
        if is_loose(node) and (not told or told.isdisjoint(_mentioned(node)))
    )


def _tied(nodes: Sequence[Node]) -> frozenset[int]:
    """The numbers of the nodes that the graph returns or writes back."""
    return frozenset(
        at
        for at, node in enumerate(nodes)
        if any(use.node.is_terminator for value in node.results for use in value.uses)
    )
