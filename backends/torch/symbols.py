"""Sizes in generated code: where each symbol comes from, as a Python expression."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sympy

from rewright.errors import UnsupportedError
from rewright.ir.graph import Graph, SymbolInfo
from rewright.ir.sizes import Range, evaluate, hull, solve, to_python

_SIZE = sympy.Symbol("size", integer=True)


def in_order(graph: Graph, wanted: Collection[sympy.Symbol]) -> list[sympy.Symbol]:
    """`wanted`, each after the symbols that its equation mentions besides.

    Raises:
        UnsupportedError: two sizes are given only by each other.
    """
    left = [s for s in graph.symbols if s in wanted]
    done: list[sympy.Symbol] = []
    while left:
        ready = [s for s in left if _others(graph.symbols[s].equation, s) <= {*done}]
        if not ready:
            raise UnsupportedError(f"no input gives the sizes {left} one after the other")
        done += ready
        left = [s for s in left if s not in ready]
    return done


def _others(equation: object, unknown: sympy.Symbol) -> set[sympy.Symbol]:
    return equation.free_symbols - {unknown} if isinstance(equation, sympy.Basic) else set()


def solution(
    info: SymbolInfo, unknown: sympy.Symbol, size: str, names: Mapping[sympy.Symbol, str]
) -> str:
    """The Python expression of a symbol.

    Args:
        info: what the graph knows of it.
        unknown: the symbol.
        size: the Python expression of the dimension or scalar that gives it.
        names: how the other symbols are called.

    Raises:
        UnsupportedError: its equation can't be solved.
    """
    held = info.equation
    if held == unknown:
        return size
    if held == sympy.Eq(unknown, 1):  # a bool, which is an integer to torch
        return f"int({size})"
    solved = solve(held, unknown, _SIZE)
    if solved is None:
        raise UnsupportedError(
            f"the size {unknown} can't be found from {held}",
            hint="export the model with that dimension as a symbol of its own",
        )
    return to_python(solved, {**names, _SIZE: size})


def range_of(info: SymbolInfo) -> Range:
    """The range that covers all optimization profiles."""
    return hull(info.ranges)


def typical(graph: Graph) -> dict[sympy.Symbol, int]:
    """A legal size for every symbol: its typical one where it is known."""
    sizes = {}
    for symbol, info in graph.symbols.items():
        known = range_of(info)
        least = 2 if known.min is None else max(known.min, 2)
        if known.opt is not None:
            sizes[symbol] = known.opt
        else:
            sizes[symbol] = least if known.max is None else min(least, known.max)
    return sizes


def typical_size(dim: object, sizes: Mapping[sympy.Symbol, int]) -> int:
    """`dim` at the sizes of :func:`typical`."""
    return max(0, int(evaluate(dim, sizes)))
