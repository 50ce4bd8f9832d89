"""Optimization profiles: the least, typical and largest shape of each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import sympy

from rewright.backends.tensorrt.emitter import Port
from rewright.errors import UnsupportedError
from rewright.ir.graph import Graph
from rewright.ir.sizes import Range, bounds, evaluate, free_symbols
from rewright.ir.types import ScalarType, TensorType

Shape = tuple[int, ...]


@attrs.frozen
class Limits:
    """The shapes that an input may have in one profile (or its values, where it is a size).

    Attributes:
        name: the input's name.
        low: the least.
        typical: what the engine is made to be fastest for.
        high: the largest.
        is_value: whether these are the values of a number.
    """

    name: str
    low: Shape
    typical: Shape
    high: Shape
    is_value: bool = False


def profiles(graph: Graph, inputs: Sequence[Port]) -> list[list[Limits]]:
    """The profiles of a graph: for each the limits of every input that varies.

    Args:
        graph: its symbols have one range for each profile.
        inputs: the inputs of its network.

    Raises:
        UnsupportedError: a size has no maximum.
    """
    varying = [port for port in inputs if _dims(port)]
    symbols = free_symbols(dim for port in varying for dim in _dims(port))
    if not symbols:
        return []
    count = max(len(graph.symbols[item].ranges) for item in symbols)
    made = []
    for number in range(count):
        ranges = {item: _range(graph, item, number) for item in symbols}
        made.append([_limits(port, ranges) for port in varying])
    return made


def _dims(port: Port) -> Shape:
    """The dimensions of an input (or the number that it is), where any varies."""
    match port.value.type:
        case TensorType(shape=shape):
            dims = shape
        case ScalarType(kind="int", expr=expr) if expr is not None:
            dims = (expr,)
        case _:
            return ()
    return dims if any(isinstance(dim, sympy.Basic) for dim in dims) else ()


def _range(graph: Graph, symbol: sympy.Symbol, number: int) -> Range:
    """The range of a symbol in a profile; one range serves all profiles."""
    ranges = graph.symbols[symbol].ranges
    found = ranges[number] if number < len(ranges) else ranges[-1]
    if found.max is None or found.min is None:
        raise UnsupportedError(
            f"the size {symbol} has no {'maximum' if found.max is None else 'minimum'}, "
            "and an engine is built for a range",
            hint="give one by mark_dynamic(min=, max=), Dim(max=) or Input(max=)",
        )
    return found


def _limits(port: Port, ranges: Mapping[sympy.Symbol, Range]) -> Limits:
    known = {symbol: (found,) for symbol, found in ranges.items()}
    typical = {symbol: _typical(found) for symbol, found in ranges.items()}
    low, middle, high = [], [], []
    for dim in _dims(port):
        if isinstance(dim, int):
            ends: tuple[Any, Any] = (dim, dim)
        else:
            interval = bounds(dim, known)
            ends = (interval.lower, interval.upper)
        low.append(max(int(ends[0]), 0))
        middle.append(evaluate(dim, typical))
        high.append(int(ends[1]))
    is_value = isinstance(port.value.type, ScalarType)
    return Limits(port.name, tuple(low), tuple(middle), tuple(high), is_value)


def _typical(found: Range) -> int:
    """The size to be fastest for: as stated, else the middle."""
    assert found.min is not None
    assert found.max is not None
    return found.opt if found.opt is not None else (found.min + found.max + 1) // 2


def add_profiles(builder: Any, config: Any, graph: Graph, inputs: Sequence[Port]) -> int:
    """Gives the profiles of a graph to a build; returns how many there are.

    Raises:
        UnsupportedError: a size has no maximum, or TensorRT refused the shapes.
    """
    made = profiles(graph, inputs)
    for limits in made:
        profile = builder.create_optimization_profile()
        for item in limits:
            if item.is_value:
                profile.set_shape_input(item.name, item.low, item.typical, item.high)
            else:
                profile.set_shape(item.name, item.low, item.typical, item.high)
        if config.add_optimization_profile(profile) < 0:
            shown = "; ".join(f"{i.name}: {i.low} {i.typical} {i.high}" for i in limits)
            raise UnsupportedError(f"TensorRT refused the optimization profile {shown}")
    return len(made)
