"""Copies of graphs and of nodes.

A copy shares types, attributes, ops, locations and the tensors of sources with its original;
nodes, values, regions, recipes and symbols are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping

import attrs

from rewright.errors import VerificationError
from rewright.ir.graph import Constant, Graph, Node, ResultSpec, Value


def copy_graph(graph: Graph) -> Graph:
    """A copy of `graph`, with its regions, constants and recipes.

    Raises:
        VerificationError: a node uses a value of another graph.
    """
    return copy_with_map(graph)[0]


def copy_with_map(graph: Graph) -> tuple[Graph, dict[Value, Value]]:
    """A copy of `graph`, and the copy of every value: of its regions and recipes, too.

    Raises:
        VerificationError: a node uses a value of another graph.
    """
    new = Graph(graph.name, device=graph.device, stage=graph.stage)
    copies: dict[Value, Value] = {}
    _copy_to(graph, new, copies)
    return new, copies


def copy_into(
    graph: Graph,
    nodes: Iterable[Node],
    copies: MutableMapping[Value, Value],
    *,
    before: Node | None = None,
) -> tuple[Node, ...]:
    """Copies `nodes` into `graph`, before another node or at its end.

    Args:
        graph: where the copies go.
        nodes: what is copied, in an order in which each comes after what it uses.
        copies: what to use in the place of values that `nodes` use, and takes up the copies of
            their results. A value of `graph` itself (a constant, say) needs no entry.
        before: a node of `graph`.

    Returns:
        The copies, in order.

    Raises:
        VerificationError: a node uses a value of another graph that `copies` does not have. The
            nodes before it have been copied then.
    """
    made = []
    for node in nodes:
        copy = _copy_node(node, graph, copies)
        made.append(graph.insert(copy, before))
    return tuple(made)


def _copy_node(node: Node, graph: Graph, copies: MutableMapping[Value, Value]) -> Node:
    operands = [_copy_of(value, graph, copies, node) for value in node.operands]
    regions = []
    for region in node.regions:
        new = Graph(region.name, device=region.device, stage=region.stage)
        _copy_to(region, new, copies)
        regions.append(new)
    copy = Node(
        node.op,
        operands,
        node.attributes,
        [value.type for value in node.results],
        regions=regions,
        loc=node.loc,
        hints=[value.hint for value in node.results],
    )
    copies.update(zip(node.results, copy.results, strict=True))
    return copy


def _copy_of(value: Value, graph: Graph, copies: Mapping[Value, Value], node: Node) -> Value:
    known = copies.get(value)
    if known is not None:
        return known
    if value.graph is graph:
        return value
    raise VerificationError(
        f"{node.op.name} uses {value!r}, which belongs to another graph",
        op=node.op.name,
        where=node.loc,
    )


def _copy_to(graph: Graph, new: Graph, copies: MutableMapping[Value, Value]) -> None:
    """Copies all of `graph` to `new`, which is empty."""
    for value in graph.inputs:
        copies[value] = new.add_input(value.type, value.hint)
    for constant in graph.constants.values():
        copies[constant] = _copy_constant(constant, new)
    if graph.has_recipes:
        recipes, source = new.prepare, graph.prepare
        copy_into(recipes, source, copies)
        recipes.prepared_names += source.prepared_names
        _copy_ending(source, recipes, copies)
    copy_into(new, graph, copies)
    _copy_ending(graph, new, copies)
    for symbol, info in graph.symbols.items():
        if info.binding not in copies:
            raise VerificationError(f"{symbol} is given by a value that is not in its graph")
        new.symbols[symbol] = attrs.evolve(info, binding=copies[info.binding])


def _copy_constant(constant: Constant, new: Graph) -> Constant:
    """A constant of the same name and tensor. A recipe, where it has one, follows later."""
    return new.add_constant(
        constant.name,
        constant.type,
        kind=constant.kind,
        data=constant.data,
        aliases=constant.aliases,
    )


def _copy_ending(graph: Graph, new: Graph, copies: Mapping[Value, Value]) -> None:
    """Copies what a graph returns and writes back."""

    def copy(value: Value) -> Value:
        return _copy_of(value, new, copies, graph.terminator)

    def copy_spec(spec: ResultSpec) -> ResultSpec:
        return attrs.evolve(spec, alias=copy(spec.alias)) if isinstance(spec.alias, Value) else spec

    new.set_outputs(
        [copy(value) for value in graph.outputs],
        results=[copy_spec(spec) for spec in graph.results],
        writebacks=[(copy(target), copy(value)) for target, value in graph.writebacks],
    )
    new.terminator.loc = graph.terminator.loc
