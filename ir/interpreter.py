"""The reference interpreter: runs any graph op by op, with torch, on real tensors.

It is the oracle that everything else is compared with, so it does the plain thing: prepare the
constants, give symbols their values, then each node in order by what its op *is* (torch's
operator, the reference of an op of ours, a region). It never writes to what it is given; results
may share memory with inputs, as views do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import sympy
import torch

from rewright.errors import InputError, RewrightError
from rewright.ir.attributes import Operand, RegionRef
from rewright.ir.binding import bind_symbols, symbol_value
from rewright.ir.calls import flat_results, returns_bare, torch_arguments
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.ops import SCALAR, SEGMENT, call
from rewright.ir.sizes import evaluate

Observer: TypeAlias = Callable[[Node, tuple[Any, ...]], None]
"""Called after each node, those in regions too, with its results."""


@attrs.frozen
class Interpretation:
    """What a graph gave.

    Attributes:
        outputs: its outputs, in order.
        writebacks: the new value of each of ``graph.targets``, in order; nothing was written.
    """

    outputs: tuple[Any, ...]
    writebacks: tuple[Any, ...]


def interpret(
    graph: Graph,
    inputs: Sequence[Any],
    *,
    constants: Mapping[str, torch.Tensor] | None = None,
    observe: Observer | None = None,
) -> Interpretation:
    """Runs `graph`.

    Args:
        graph: any graph, at any stage.
        inputs: a tensor or number for each of its inputs, on its device.
        constants: the data of sources, by name; by default what they hold. Prepared constants
            given here are taken as they are.
        observe: called after each node with its results.

    Raises:
        InputError: an input is missing, or its dtype, rank or a size doesn't fit; a source has
            no data.
    """
    sizes = bind_symbols(graph, inputs)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    known = prepare_constants(graph, constants)
    values |= {constant: known[name] for name, constant in graph.constants.items() if name in known}
    with torch.no_grad():
        returned = _run(graph, values, sizes, observe)
    count = len(graph.outputs)
    return Interpretation(returned[:count], returned[count:])


def prepare_constants(
    graph: Graph, constants: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The value of every constant that `graph` or its recipes use, by name.

    Args:
        graph: a whole program.
        constants: the data of sources, by name; by default what they hold. Prepared constants
            given here are taken as they are.

    Raises:
        InputError: a source has no data.
    """
    given = constants or {}
    prepared = graph.prepare.prepared_names if graph.has_recipes else []
    known = {name: given[name] for name in prepared if name in given}
    sources: dict[Value, torch.Tensor] = {}
    for name, constant in graph.constants.items():
        if constant.is_source and constant.uses:
            sources[constant] = known[name] = _data(constant, given)
    if len(known) < len(prepared) + len(sources):
        with torch.no_grad():
            recipes = _run(graph.prepare, sources, {}, None)
        known |= {n: t for n, t in zip(prepared, recipes, strict=True) if n not in known}
    return known


def _data(constant: Constant, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    for name in (constant.name, *constant.aliases):
        if name in given:
            return given[name]
    if constant.data is None:
        raise InputError(
            f"the constant @{constant.name} has no data",
            name=constant.name,
            hint="pass it in constants=",
        )
    return constant.data


# --------------------------------------------------------------------------- running


def _run(
    graph: Graph,
    values: Mapping[Value, Any],
    sizes: Mapping[sympy.Symbol, Any],
    observe: Observer | None,
) -> tuple[Any, ...]:
    """The values of the terminator's operands; `values` has those of inputs and constants."""
    frame = _Frame(graph, values, sizes, observe)
    for node in graph:
        frame.step(node)
    return tuple(frame.values[value] for value in graph.terminator.operands)


class _Frame:
    """One run of one graph: the values that are still needed, and the sizes known so far."""

    def __init__(
        self,
        graph: Graph,
        values: Mapping[Value, Any],
        sizes: Mapping[sympy.Symbol, Any],
        observe: Observer | None,
    ) -> None:
        self.values = dict(values)
        self.sizes = dict(sizes)
        self.observe = observe
        self.waiting = Counter(v for n in (*graph, graph.terminator) for v in n.operands)
        self.bound: dict[Value, list[tuple[sympy.Symbol, SymbolInfo]]] = {}
        for row in graph.symbols.items():
            self.bound.setdefault(row[1].binding, []).append(row)

    def step(self, node: Node) -> None:
        """Runs `node`, and drops what nothing after it uses."""
        results = self.compute(node)
        if len(results) != len(node.results):
            raise RewrightError(
                f"{node.op.name} gave {len(results)} results, not {len(node.results)}",
                where=node.loc,
                hint="the graph states other results than the operator has: verify it",
            )
        for value, result in zip(node.results, results, strict=True):
            for symbol, info in self.bound.get(value, ()):
                self.sizes[symbol] = symbol_value(symbol, info, result, self.sizes)
            if self.waiting[value]:
                self.values[value] = result
        for value in node.operands:
            self.waiting[value] -= 1
            if not self.waiting[value]:
                self.values.pop(value, None)
        if self.observe is not None:
            self.observe(node, results)

    def compute(self, node: Node) -> tuple[Any, ...]:
        """The results of `node`."""

        def put(leaf: Any) -> Any:
            if isinstance(leaf, Operand):
                return self.values[node.operands[leaf.index]]
            if isinstance(leaf, RegionRef):
                return self.callable(node, leaf.index)
            return evaluate(leaf, self.sizes)

        arguments = torch_arguments(node.attributes, put)
        if node.op is SCALAR:
            return (arguments["value"],)
        if node.op is SEGMENT:
            return tuple(arguments["body"](*arguments["operands"]))
        returned = call(node.op, arguments)
        return () if node.op.results == 0 else flat_results(returned)

    def callable(self, node: Node, number: int) -> Callable[..., Any]:
        """A region as a Python function, which is how torch's higher-order operators take it."""
        region = node.regions[number]
        bare = returns_bare(node.op, number)

        def run(*inputs: Any) -> Any:
            sizes = bind_symbols(region, inputs)
            values = dict(zip(region.inputs, inputs, strict=True))
            results = _run(region, values, sizes, self.observe)
            return results[0] if bare else results

        return run
