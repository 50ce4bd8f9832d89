"""Small graphs for tests: types in one word, inputs with their sizes bound."""

from __future__ import annotations

import torch

from rewright.ir.builder import equations, solvable
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType, Type

S0, S1, S2 = symbol("s0"), symbol("s1"), symbol("s2")


def f32(*shape) -> TensorType:
    return TensorType(torch.float32, shape)


def i64(*shape) -> TensorType:
    return TensorType(torch.int64, shape)


def flag(*shape) -> TensorType:
    return TensorType(torch.bool, shape)


def program(*types: Type, name: str = "main", **ranges: Range) -> tuple[Graph, list[Value]]:
    """A graph with an input of each type; their sizes are bound, in `ranges` or from 1 to 64."""
    graph = Graph(name)
    inputs = [graph.add_input(item, f"x{index}") for index, item in enumerate(types)]
    rows = [(e, v, dim) for v in inputs for e, dim in equations(v.type)]
    for equation, value, dim in sorted(rows, key=lambda row: not row[0].is_Symbol):
        for item in sorted(equation.free_symbols - graph.symbols.keys(), key=str):
            if solvable(equation, item):
                known = ranges.get(item.name, Range(1, 8, 64))
                graph.symbols[item] = SymbolInfo((known,), value, dim)
    return graph, inputs
