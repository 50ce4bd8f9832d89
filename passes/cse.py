"""Computes once what is computed several times.

    %a = f(%x); %b = f(%x)    ->  %a = f(%x), and %a in the place of %b

for nodes of one op with equal attributes and operands. Nodes with effects, random numbers, sizes
that depend on the data, regions, or a meaning that only torch knows are left alone.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from rewright.ir.graph import Graph, Node
from rewright.ir.ops import Trait
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass

_LEFT_ALONE: Final = frozenset({Trait.RANDOM, Trait.EFFECT, Trait.OPAQUE, Trait.DATA_DEPENDENT})


@register_pass
@attrs.frozen
class Cse(Pass):
    """a = f(x); b = f(x)  ->  a = f(x); b = a"""

    def run(self, graph: Graph, context: PassContext) -> None:
        """Merges equal nodes of `graph`, of each of its regions, and of its recipes."""
        pending = [graph]
        if graph.has_recipes:
            pending.append(graph.prepare)
        while pending:
            merged = pending.pop()
            _merge(merged)
            pending += [region for node in merged for region in node.regions]


def _merge(graph: Graph) -> None:
    tells_size = {info.binding.producer for info in graph.symbols.values()}
    known: dict[Any, Node] = {}
    for node in graph:
        if node.op.traits & _LEFT_ALONE or node.regions or node in tells_size:
            continue
        first = known.setdefault(_key(node), node)
        if first is not node:
            for old, new in zip(node.results, first.results, strict=True):
                old.replace_all_uses(new)
            node.erase()


def _key(node: Node) -> Any:
    """What nodes that compute the same have in common. Values go by identity."""
    types = tuple(value.type for value in node.results)
    return node.op, node.attributes, node.operands, types
