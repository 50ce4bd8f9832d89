"""The numbers behind symbols: what the inputs of a call say that a graph's sizes are.

Each symbol has an equation (``2*s0 + 1 == the second dimension of x``). A call's inputs give the
right sides; solving gives the sizes, and every other dimension then has to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch

from rewright.errors import InputError
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.sizes import evaluate, format_expr, solve, substitute
from rewright.ir.types import DTYPE_NAMES, NoneType, ScalarType, TensorType


def bind_symbols(graph: Graph, inputs: Sequence[Any]) -> dict[sympy.Symbol, Any]:
    """The numbers of all symbols that the inputs give.

    Args:
        graph: says the types and symbols.
        inputs: a tensor, number, None or object for each of its inputs.

    Raises:
        InputError: an input is of the wrong kind, dtype, rank or device; a size is not what the
            graph was made for, contradicts another, or is outside every profile's ranges.
    """
    if len(inputs) != len(graph.inputs):
        raise InputError(f"@{graph.name} takes {len(graph.inputs)} inputs, not {len(inputs)}")
    for value, given in zip(graph.inputs, inputs, strict=True):
        _check_kind(graph, value, given)
    sizes: dict[sympy.Symbol, Any] = {}
    pending = [(s, info) for s, info in graph.symbols.items() if info.binding.is_input]
    while pending:
        solved = len(pending)
        for symbol, info in list(pending):
            if info.equation.free_symbols <= {symbol, *sizes}:
                sizes[symbol] = symbol_value(symbol, info, inputs[info.binding.index], sizes)
                pending.remove((symbol, info))
        if len(pending) == solved:
            raise InputError(
                f"the inputs don't tell the size {pending[0][0]}",
                hint="its equation in the header needs no other size that is unknown",
            )
    for value, given in zip(graph.inputs, inputs, strict=True):
        _check_sizes(value, given, sizes)
    _check_ranges(graph, sizes)
    return sizes


def symbol_value(
    symbol: sympy.Symbol, info: SymbolInfo, given: Any, known: Mapping[sympy.Symbol, Any]
) -> Any:
    """The number of `symbol`, from what its binding turned out to be.

    Args:
        symbol: a symbol.
        info: its row in the graph's table.
        given: the tensor or number that ``info.binding`` is.
        known: the numbers of the other symbols in its equation.

    Raises:
        InputError: no integer solves the equation.
    """
    size = given if info.dim is None else given.shape[info.dim]
    equation = info.equation
    if equation == symbol:
        return size
    if isinstance(equation, sympy.Eq):  # torch's way to say a bool by an integer: Eq(u0, 1)
        return int(size)
    found = solve(substitute(equation, known), symbol, size)
    if found is None or evaluate(equation, {**known, symbol: found}) != size:
        raise InputError(
            f"{_place(info)} is {size}, which {format_expr(equation)} can't be",
            name=_name(info.binding),
        )
    return found


def _check_kind(graph: Graph, value: Value, given: Any) -> None:
    expected = value.type
    match expected:
        case TensorType():
            fits = isinstance(given, torch.Tensor)
            if fits:
                found = TensorType(given.dtype, tuple(given.shape), _elsewhere(given, graph.device))
                fits = (found.dtype, found.rank, found.device) == (
                    expected.dtype,
                    expected.rank,
                    expected.device,
                )
        case ScalarType(kind):
            fits = isinstance(given, {"int": int, "float": int | float, "bool": bool}[kind])
        case NoneType():
            fits = given is None
        case _:
            fits = True
    if not fits:
        raise InputError(
            f"{_name(value)} must be {expected}{_on(graph, expected)}, not {_describe(given)}",
            name=_name(value),
        )


def _elsewhere(tensor: torch.Tensor, home: str) -> str | None:
    return None if str(tensor.device) == home else str(tensor.device)


def _on(graph: Graph, expected: Any) -> str:
    plain = isinstance(expected, TensorType) and expected.device is None
    return f" on {graph.device}" if plain else ""


def _describe(given: Any) -> str:
    if isinstance(given, torch.Tensor):
        shape = ", ".join(map(str, given.shape))
        return f"{DTYPE_NAMES.get(given.dtype, given.dtype)}[{shape}] on {given.device}"
    return f"{given!r}" if isinstance(given, int | float | None) else f"a {type(given).__name__}"


def _check_sizes(value: Value, given: Any, sizes: Mapping[sympy.Symbol, Any]) -> None:
    match value.type:
        case TensorType(_, shape):
            pairs = [(f"dimension {at} of ", d, given.shape[at]) for at, d in enumerate(shape)]
        case ScalarType(_, expr) if expr is not None:
            pairs = [("", expr, given)]
        case _:
            return
    for place, stated, size in pairs:
        if evaluate(stated, sizes) != size:
            meaning = f" ({evaluate(stated, sizes)})" if isinstance(stated, sympy.Basic) else ""
            raise InputError(
                f"{place}{_name(value)} must be {format_expr(stated)}{meaning}, not {size}",
                name=_name(value),
            )


def _check_ranges(graph: Graph, sizes: Mapping[sympy.Symbol, Any]) -> None:
    """Some profile must hold all sizes."""
    rows = [(s, info) for s, info in graph.symbols.items() if s in sizes and info.ranges]
    profiles = max((len(info.ranges) for _, info in rows), default=0)
    outside: list[tuple[sympy.Symbol, SymbolInfo]] = []
    for profile in range(profiles):
        outside = [
            (symbol, info)
            for symbol, info in rows
            if sizes[symbol] not in info.ranges[min(profile, len(info.ranges) - 1)]
        ]
        if not outside:
            return
    if outside:
        symbol, info = outside[0]
        allowed = " or ".join(map(str, info.ranges))
        raise InputError(
            f"{symbol} is {sizes[symbol]} (from {_place(info)}), outside {allowed}",
            name=_name(info.binding),
            hint="compile for a wider range of sizes",
        )


def _place(info: SymbolInfo) -> str:
    name = _name(info.binding)
    return name if info.dim is None else f"dimension {info.dim} of {name}"


def _name(value: Value) -> str:
    return value.hint or f"input {value.index}"
