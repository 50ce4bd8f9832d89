"""What of a graph has to be computed, and when each value may be let go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import sympy

from rewright.ir.graph import Constant, Graph, Node, ResultSpec, Value
from rewright.ir.sizes import free_symbols
from rewright.ir.types import type_symbols


@attrs.frozen
class Plan:
    """The part of a graph that runs.

    Attributes:
        nodes: the nodes that something depends on, in order; those with effects are all here.
        freed: for each of them, the results of nodes that nothing needs after it.
        symbols: the sizes that the running nodes, the views and the strides mention.
        constants: the constants that are read or written, in the graph's order.
    """

    nodes: tuple[Node, ...]
    freed: Mapping[Node, tuple[Value, ...]]
    symbols: frozenset[sympy.Symbol]
    constants: tuple[Constant, ...]


def is_computed(spec: ResultSpec) -> bool:
    """Whether the value of an output is needed: an alias is made from what it is an alias of."""
    return spec.alias is None


def plan(graph: Graph) -> Plan:
    """What has to run so that `graph` gives its outputs and write-backs."""
    needs = _Needs(graph)
    outputs = zip(graph.outputs, graph.results, strict=True)
    needs.want(value for value, spec in outputs if is_computed(spec))
    needs.want(value for target, value in graph.writebacks if target is not value)
    at_end = {*needs.values}
    needs.want(spec.alias for spec in graph.results if isinstance(spec.alias, Value))
    needs.want(graph.targets)
    needs.want_sizes(spec_symbols(graph.results))
    running: list[Node] = []
    for node in reversed(graph):
        if not node.is_pure or not needs.values.isdisjoint(node.results):
            running.append(node)
            needs.want(node.operands)
            needs.want_sizes(node.attributes.symbols())
    constants = tuple(c for c in graph.constants.values() if c in needs.values)
    freed = _freed(running, at_end)
    return Plan(tuple(reversed(running)), freed, frozenset(needs.symbols), constants)


class _Needs:
    """The values and sizes wanted so far; a size wants the value that gives it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: set[Value] = set()
        self.symbols: set[sympy.Symbol] = set()

    def want(self, values: Iterable[Value]) -> None:
        self.values.update(values)

    def want_sizes(self, sizes: Iterable[sympy.Symbol]) -> None:
        pending = [*sizes]
        while pending:
            size = pending.pop()
            if size not in self.symbols and size in self.graph.symbols:
                self.symbols.add(size)
                binding = self.graph.symbols[size].binding
                self.values.add(binding)
                pending += type_symbols(binding.type)


def _freed(backwards: Sequence[Node], at_end: set[Value]) -> dict[Node, tuple[Value, ...]]:
    """For each node, the values whose last use it is, results that nobody uses among them."""
    used = {*at_end}
    freed = {}
    for node in backwards:
        mentioned = dict.fromkeys((*node.results, *node.operands))
        freed[node] = tuple(v for v in mentioned if v.producer is not None and v not in used)
        used.update(mentioned)
    return freed


def spec_symbols(specs: Iterable[ResultSpec]) -> set[sympy.Symbol]:
    """The sizes that outputs need beyond their values: in their strides and views."""
    found: set[sympy.Symbol] = set()
    for spec in specs:
        found |= free_symbols(spec.strides or ())
        for step in spec.views:
            found |= step.attributes.symbols()
    return found
