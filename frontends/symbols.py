"""Torch's symbolic sizes as ours: expressions renamed, ranges and bindings collected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import sympy
import torch
from torch.utils._sympy import functions as torch_fns
from torch.utils._sympy.value_ranges import ValueRanges

from rewright.errors import FrontendError
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.sizes import Range, simplify, solve, symbol
from rewright.ir.types import ScalarType, TensorType

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a number of torch's that may depend on sizes."""
    return isinstance(value, _SYMBOLIC)


def scalar_kind(value: Any) -> str:
    """``int``, ``float`` or ``bool``: the kind of a Python or symbolic number."""
    if isinstance(value, bool | torch.SymBool):
        return "bool"
    return "int" if isinstance(value, int | torch.SymInt) else "float"


@attrs.define
class SymbolTable:
    """Names torch's symbols anew, in order of appearance: ``s0, s1 ...``, ``u0 ...``, ``f0 ...``.

    Attributes:
        ranges: torch's symbol to its range, where the frontend knows one.
        hints: torch's symbol to its size in the example.
        least: the least size of a symbol whose range torch starts at 2 or below. That start is
            none of the user's: torch traces as if a symbolic size were at least 2, writes 2 for a
            dim without a bound and 0 for a ``Dim`` without one, and its own ``ep.module()`` takes
            0 and 1 under both. So an export's sizes start at 1 (``Dim(min=2)`` can't be told
            from no bound); a start of 3 or more is a user's word and holds as it stands. Size 0
            is taken where ``Input(min=...)`` asks for it: most shape facts fail for it.
    """

    ranges: Mapping[sympy.Symbol, ValueRanges[Any]] = attrs.field(factory=dict)
    hints: Mapping[sympy.Symbol, Any] = attrs.field(factory=dict)
    least: int = 1
    _renamed: dict[sympy.Symbol, sympy.Symbol] = attrs.field(factory=dict, init=False)
    _originals: dict[sympy.Symbol, sympy.Symbol] = attrs.field(factory=dict, init=False)
    _known: dict[Any, Any] = attrs.field(factory=dict, init=False)

    def expression(self, value: Any) -> Any:
        """`value` (a number, SymInt, SymFloat, SymBool or torch expression) in our symbols."""
        if is_symbolic(value):
            value = value.node.expr
        if not isinstance(value, sympy.Basic):
            return value
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._translate(value)
        return known

    def _translate(self, expr: Any) -> Any:
        expr = expr.replace(lambda part: isinstance(part, sympy.Piecewise), _as_where)
        names = {old: self._rename(old) for old in sorted(expr.free_symbols, key=str)}
        return simplify(expr.xreplace(names))

    def _rename(self, old: sympy.Symbol) -> sympy.Symbol:
        if old not in self._renamed:
            letter = _letter(old)
            number = sum(new.name[0] == letter for new in self._renamed.values())
            new = symbol(f"{letter}{number}")
            self._renamed[old], self._originals[new] = new, old
        return self._renamed[old]

    def range_of(self, ours: sympy.Symbol) -> Range:
        """The range of one of our symbols, with the example's size as its typical one."""
        old = self._originals.get(ours)
        known = self.ranges.get(old) if old is not None else None
        low = None if known is None else _finite(known.lower)
        high = None if known is None else _finite(known.upper)
        if ours.name[0] != "s":
            return Range(low, None, high)
        low = self.least if low is None or low <= 2 else low
        hint = self.hints.get(old) if old is not None else None
        opt = int(hint) if hint is not None else None
        return Range(low, opt if opt is not None and opt in Range(low, None, high) else None, high)


def _letter(old: sympy.Symbol) -> str:
    if not old.is_integer:
        return "f"
    # An int that a caller passes may be negative; torch calls it s<n>, too, like a size.
    return "s" if old.is_nonnegative else "u"


def _finite(bound: Any) -> int | None:
    """An interval's bound as an int; None where it is infinite or no integer."""
    if isinstance(bound, int):
        number = bound
    elif isinstance(bound, sympy.Integer):
        number = int(bound)
    else:
        return None
    return number if abs(number) < 2**62 else None


def _as_where(piecewise: Any) -> Any:
    result = piecewise.args[-1][0]
    for value, condition in reversed(piecewise.args[:-1]):
        result = torch_fns.Where(condition, value, result)
    return result


def bind_inputs(graph: Graph, table: SymbolTable) -> None:
    """Gives every symbol that a graph's inputs mention its binding: plain dims first."""
    equations = [e for value in graph.inputs for e in equations_of(value)]
    equations.sort(key=lambda equation: not isinstance(equation[0], sympy.Symbol))
    for expr, value, dim in equations:
        _bind(graph, table, expr, value, dim)


def bind_results(graph: Graph, table: SymbolTable, values: tuple[Value, ...]) -> None:
    """Gives the symbols that `values` (results of a node) are the first to mention a binding."""
    for value in values:
        for expr, _, dim in equations_of(value):
            _bind(graph, table, expr, value, dim)


def equations_of(value: Value) -> list[tuple[Any, Value, int | None]]:
    """The symbolic dims of `value` as ``(expression, value, dim)``; a scalar's dim is None."""
    if isinstance(value.type, ScalarType) and isinstance(value.type.expr, sympy.Basic):
        return [(value.type.expr, value, None)]
    if isinstance(value.type, TensorType):
        return [
            (dim, value, at)
            for at, dim in enumerate(value.type.shape)
            if isinstance(dim, sympy.Basic)
        ]
    return []


def _bind(graph: Graph, table: SymbolTable, expr: Any, value: Value, dim: int | None) -> None:
    unknown = [s for s in sorted(expr.free_symbols, key=str) if s not in graph.symbols]
    if len(unknown) == 1 and _solvable(expr, unknown[0]):
        graph.symbols[unknown[0]] = SymbolInfo((table.range_of(unknown[0]),), value, dim)


def _solvable(expr: Any, unknown: sympy.Symbol) -> bool:
    if isinstance(expr, sympy.Eq):  # a bool that stands for an integer: Eq(u0, 1)
        return expr == sympy.Eq(unknown, 1)
    return solve(expr, unknown, 0) is not None


def check_bound(graph: Graph, mentioned: set[sympy.Symbol]) -> None:
    """Refuses a graph that mentions a symbol which no input or node gives.

    Raises:
        FrontendError: naming the symbol.
    """
    for unbound in sorted(mentioned - graph.symbols.keys(), key=str):
        raise FrontendError(
            f"no input or node gives the size {unbound}",
            hint="pass a tensor whose dimension is that size, or make it a constant",
        )
