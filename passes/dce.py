"""Removes what nothing uses.

    %y = f(%x)                    ->  nothing, where %y has no uses and f has no effect
    @w = g(@source)  (prepare)    ->  nothing, where @w has no uses

Random nodes stay (without them the others would draw other numbers), and so do nodes that tell a
size that something mentions. Sources stay: callers bind them by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from rewright.ir.graph import Graph, Node
from rewright.ir.sizes import free_symbols
from rewright.ir.types import type_symbols
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass


@register_pass
@attrs.frozen
class Dce(Pass):
    """unused nodes and recipes  ->  nothing"""

    def run(self, graph: Graph, context: PassContext) -> None:
        """Removes dead code from `graph`, its regions and its recipes."""
        sweep(graph)
        if graph.has_recipes:
            _drop_recipes(graph)
            sweep(graph.prepare)


def sweep(graph: Graph) -> None:
    """Erases the dead nodes of `graph` and of its regions. Linear in their number."""
    pending = [graph]
    while pending:
        swept = pending.pop()
        _Sweep(swept).run()
        pending += [region for node in swept for region in node.regions]


class _Sweep:
    """One walk from the end of a graph to its start, so that users go before what they use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: dict[Node, list[Any]] = {}
        """The symbols that each node tells."""
        for symbol, info in graph.symbols.items():
            if info.binding.producer is not None:
                self.made.setdefault(info.binding.producer, []).append(symbol)
        self.mentioned: set[Any] = set()
        """The symbols that what stays mentions, so far."""

    def run(self) -> None:
        if self.made:
            self.mentioned = _of_results(self.graph)
        for node in reversed(self.graph):
            symbols = self.made.get(node, ())
            if _is_unused(node) and self.mentioned.isdisjoint(symbols):
                node.erase()
                for symbol in symbols:
                    del self.graph.symbols[symbol]
            elif self.made:
                self.mentioned |= _of_node(node)


def _is_unused(node: Node) -> bool:
    """Whether nobody would miss the numbers of `node`, nor what else it does."""
    if not node.results or any(value.uses for value in node.results):
        return False
    inside = (inner for region in node.regions for inner in region.walk())
    return node.is_pure and all(inner.is_pure for inner in inside)


def _of_node(node: Node) -> set[Any]:
    """The symbols that a node mentions."""
    return node.attributes.symbols().union(*(type_symbols(value.type) for value in node.results))


def _of_results(graph: Graph) -> set[Any]:
    """The symbols that the description of the outputs mentions."""
    strides: Iterable[Any] = (dim for spec in graph.results for dim in spec.strides or ())
    views = (step.attributes.symbols() for spec in graph.results for step in spec.views)
    return free_symbols(strides).union(*views)


def _drop_recipes(graph: Graph) -> None:
    """Removes the prepared constants that nothing uses."""
    kept = {*graph.targets, *(spec.alias for spec in graph.results)}
    for constant in [*graph.constants.values()]:
        if not constant.is_source and not constant.uses and constant not in kept:
            graph.remove_constant(constant)
