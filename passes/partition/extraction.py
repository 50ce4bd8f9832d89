"""Segments: each phase of a backend becomes one ``rw.segment`` node, whose region holds its nodes.

Regions see only their inputs, so that everything a segment uses from outside is an operand of it:
constants too (as values, never copies of tensors), and sizes that no input tells, as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import attrs
import sympy

from rewright.ir.builder import Builder, equations, make_node, solvable
from rewright.ir.copying import copy_into
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.location import Location
from rewright.ir.ops import SCALAR, SEGMENT
from rewright.ir.sizes import free_symbols
from rewright.ir.types import ScalarType, type_symbols
from rewright.passes.partition.phases import LOOSE


def sort_by_phase(graph: Graph, nodes: Sequence[Node], phases: Sequence[int]) -> None:
    """Brings nodes into the order of their phases; within a phase they keep theirs."""
    for at in sorted(range(len(nodes)), key=phases.__getitem__):
        nodes[at].move_before(graph.terminator)


def extract(
    graph: Graph,
    nodes: Sequence[Node],
    backend: str,
    name: str,
    takes: Callable[[Node], bool] = lambda _: True,
    loose: frozenset[Node] = frozenset(),
) -> Node:
    """Moves `nodes`, which stand side by side, into the region of a new segment.

    Args:
        graph: where they are.
        nodes: in order, not empty.
        backend: the name of the backend that runs them.
        name: of the region.
        takes: whether the backend takes a node.
        loose: nodes of `graph` that the segment makes for itself, where its backend takes them.

    Returns:
        The segment.
    """
    inside = dict.fromkeys(nodes)
    own = _own_copies(nodes, loose, takes)
    outside = [v for v in _operands(nodes) if v.producer not in inside and v.producer not in own]
    told = {s: info for s, info in graph.symbols.items() if info.binding.producer in inside}
    read = [v for node in nodes for v in node.results if _is_read_outside(v, inside)]
    # A number is an expression over sizes: made again outside, it stays a number.
    again = [node for node in nodes if node.op is SCALAR and node.result in read]
    results = [value for value in read if value.producer not in again]
    tellers = _tellers(graph, told, results, {n: None for n in nodes if n not in again})
    region = Graph(name, device=graph.device, stage=graph.stage)
    sizes, scalars = _enter(region, graph, outside, [*own, *nodes], told.keys())
    copies = {**sizes}
    copy_into(region, [*own, *nodes], copies)
    for symbol, info in told.items():
        region.symbols[symbol] = attrs.evolve(info, binding=copies[info.binding])
    region.set_outputs([copies[value] for value in results])
    builder = Builder(graph, nodes[0], Location())
    extra = [builder.call(SCALAR, symbol, types=[_number_type(symbol)]) for symbol in scalars]
    segment = make_node(
        SEGMENT,
        {"operands": (*outside, *extra), "body": region, "backend": backend},
        [value.type for value in results],
        nodes[0].loc,
        [value.hint for value in results],
    )
    graph.insert(segment, nodes[0])
    made = dict(zip(results, segment.results, strict=True))
    copy_into(graph, again, made, before=nodes[0])
    for old, new in made.items():
        old.replace_all_uses(new)
    for symbol, (value, dim) in tellers.items():
        graph.symbols[symbol] = SymbolInfo(told[symbol].ranges, made[value], dim)
    for symbol in told.keys() - tellers.keys():
        del graph.symbols[symbol]
    graph.erase(nodes)
    return segment


def _tellers(
    graph: Graph,
    told: Mapping[sympy.Symbol, SymbolInfo],
    results: list[Value],
    inside: Mapping[Node, None],
) -> dict[sympy.Symbol, tuple[Value, int | None]]:
    """Which result of a segment tells a size that is found in it, and in which dimension.

    Args:
        graph: where the segment is to be.
        told: the sizes that its nodes tell.
        results: what it gives; what must be told by another value is added.
        inside: its nodes.

    Returns:
        The sizes of `told` that are read outside, or stand in the type of a result.
    """
    if not told:
        return {}
    wanted: set[Any] = set().union(*(type_symbols(value.type) for value in results))
    for node in graph:
        if node not in inside:
            wanted |= node.attributes.symbols().union(*(type_symbols(v.type) for v in node.results))
    for spec in graph.results:
        wanted |= free_symbols(spec.strides or ())
    found: dict[sympy.Symbol, tuple[Value, int | None]] = {}
    while missing := (told.keys() & wanted) - found.keys():
        symbol = min(missing, key=str)
        own = told[symbol]
        places = ((v, at) for v in results for size, at in equations(v.type) if size == symbol)
        found[symbol] = value, _ = next(places, (own.binding, own.dim))
        if value not in results:
            results.append(value)
            wanted |= type_symbols(value.type)
    return found


def _own_copies(
    nodes: Iterable[Node], loose: frozenset[Node], takes: Callable[[Node], bool]
) -> dict[Node, None]:
    """The loose nodes that `nodes` use, as far as the backend takes them."""
    used = (value.producer for value in _operands(nodes))
    return dict.fromkeys(node for node in used if node in loose and takes(node))


def _operands(nodes: Iterable[Node]) -> dict[Value, None]:
    return dict.fromkeys(value for node in nodes for value in node.operands)


def _is_read_outside(value: Value, inside: dict[Node, None]) -> bool:
    return any(use.node not in inside for use in value.uses)


def _enter(
    region: Graph,
    graph: Graph,
    outside: Sequence[Value],
    nodes: Sequence[Node],
    told: AbstractSet[sympy.Symbol],
) -> tuple[dict[Value, Value], list[sympy.Symbol]]:
    """Gives `region` an input for each value of `outside`, and each size that they don't tell.

    Not for those of `told`, which its own nodes tell.

    Returns:
        The input of each value, and the sizes that have inputs of their own.
    """
    entered: dict[Value, Value] = {}
    for value in outside:
        hint = value.name if isinstance(value, Constant) else value.hint
        entered[value] = region.add_input(value.type, hint)
    for value in entered.values():
        _bind(region, graph, value)
    wanted = _symbols(outside, nodes)
    known = region.symbols.keys() | told
    missing = [symbol for symbol in graph.symbols if symbol in wanted - known]
    for symbol in missing:
        _bind(region, graph, region.add_input(_number_type(symbol), symbol.name))
    return entered, missing


def _number_type(symbol: sympy.Symbol) -> ScalarType:
    """The type of a number that a call gives: a size, or a float."""
    return ScalarType("int" if symbol.is_integer else "float", symbol)


def _bind(region: Graph, graph: Graph, value: Value) -> None:
    """Enters the sizes that `value` tells into the region's table."""
    for equation, dim in equations(value.type):
        unknown = [s for s in equation.free_symbols if s not in region.symbols]
        if len(unknown) == 1 and solvable(equation, unknown[0]):
            known = graph.symbols[unknown[0]].ranges
            region.symbols[unknown[0]] = SymbolInfo(known, value, dim)


def _symbols(outside: Sequence[Value], nodes: Sequence[Node]) -> set[Any]:
    """The sizes that types and attributes mention."""
    types = [v.type for v in outside] + [v.type for node in nodes for v in node.results]
    found: set[Any] = set().union(*map(type_symbols, types))
    return found.union(*(node.attributes.symbols() for node in nodes))


def runs(
    nodes: Sequence[Node], phases: Sequence[int], colors: Sequence[int], torch: int
) -> list[tuple[int, list[Node]]]:
    """The nodes of each phase that is not torch's, with its color, in the order of phases."""
    found: dict[int, tuple[int, list[Node]]] = {}
    for node, phase, color in zip(nodes, phases, colors, strict=True):
        if color != torch and phase != LOOSE:
            found.setdefault(phase, (color, []))[1].append(node)
    return [found[phase] for phase in sorted(found)]
