"""Whether two graphs are the same: every part compared, not their text."""

from itertools import chain
from typing import Any

import attrs
import torch

from rewright.ir.graph import Graph, Node, Value
from rewright.ir.printer import region_names, value_names


def assert_same(a: Graph, b: Graph, *, data: bool = False) -> None:
    """Asserts that `a` and `b` are the same, but for identity and for hints that no name shows.

    `data`: whether the sources must hold the same tensors.
    """
    twins: dict[Value, Value] = {}
    assert a.name == b.name
    _same_graph(a, b, twins, data)


def _same_graph(a: Graph, b: Graph, twins: dict[Value, Value], data: bool) -> None:
    assert (a.device, a.stage, len(a)) == (b.device, b.stage, len(b))
    _pair(a.inputs, b.inputs, twins)
    _same_constants(a, b, twins, data)
    if a.has_recipes or b.has_recipes:
        assert sorted(a.prepare.prepared_names) == sorted(b.prepare.prepared_names)
        _same_nodes(a.prepare, b.prepare, twins, data)
        for name in a.prepare.prepared_names:
            recipes = [g.recipe(g.constants[name]) for g in (a, b)]
            assert twins[recipes[0]] is recipes[1]
    _same_nodes(a, b, twins, data)
    _same_ending(a, b, twins)
    assert [*a.symbols] == [*b.symbols]
    for x, y in zip(a.symbols.values(), b.symbols.values(), strict=True):
        assert (x.ranges, x.dim, twins[x.binding]) == (y.ranges, y.dim, y.binding)
    assert [*value_names(a).values()] == [*value_names(b).values()]


def _pair(a: Any, b: Any, twins: dict[Value, Value]) -> None:
    assert [value.type for value in a] == [value.type for value in b]
    assert [value.index for value in a] == [value.index for value in b]
    twins.update(zip(a, b, strict=True))


def _same_constants(a: Graph, b: Graph, twins: dict[Value, Value], data: bool) -> None:
    assert a.constants.keys() == b.constants.keys()
    assert [n for n, c in a.constants.items() if c.is_source] == [
        n for n, c in b.constants.items() if c.is_source
    ]
    for name, x in a.constants.items():
        y = b.constants[name]
        assert (x.name, x.kind, x.type, x.aliases) == (y.name, y.kind, y.type, y.aliases)
        assert not data or x.data is y.data or torch.equal(x.data, y.data)
        twins[x] = y


def _same_nodes(a: Graph, b: Graph, twins: dict[Value, Value], data: bool) -> None:
    for x, y in zip(a, b, strict=True):
        _same_node(x, y, twins, data)


def _same_node(x: Node, y: Node, twins: dict[Value, Value], data: bool) -> None:
    assert x.op is y.op
    assert x.attributes == y.attributes
    assert [twins[value] for value in x.operands] == [*y.operands]
    assert str(x.loc or "") == str(y.loc or "")
    assert region_names(x) == region_names(y)
    for region, other in zip(x.regions, y.regions, strict=True):
        _same_graph(region, other, twins, data)
        assert other.parent is y
    _pair(x.results, y.results, twins)


def _same_ending(a: Graph, b: Graph, twins: dict[Value, Value]) -> None:
    assert [twins[value] for value in a.outputs] == [*b.outputs]
    assert [(twins[t], twins[v]) for t, v in a.writebacks] == [*b.writebacks]
    assert str(a.terminator.loc or "") == str(b.terminator.loc or "")
    for x, y in zip(a.results, b.results, strict=True):
        if isinstance(x.alias, Value):
            x = attrs.evolve(x, alias=twins[x.alias])
        assert x == y


def all_values(graph: Graph) -> list[Value]:
    """Every value of a graph, its recipes and its regions."""
    values: list[Value] = [*graph.inputs, *graph.constants.values()]
    prepare = list(graph.prepare.walk()) if graph.has_recipes else []
    for node in chain(prepare, graph.walk()):
        values += node.results
        for region in node.regions:
            values += region.inputs
    return values
