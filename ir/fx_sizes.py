"""Size expressions as FX nodes: integer arithmetic that AOTAutograd and Inductor understand."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import sympy
import torch

from rewright.errors import UnsupportedError
from rewright.ir.sizes import format_expr, simplify, solve

CallFunction: TypeAlias = Callable[..., Any]
"""``(function, *args)``: adds a node that calls `function`; numbers alone are computed."""


def emit_size(expr: Any, call: CallFunction, sizes: Mapping[sympy.Symbol, Any]) -> Any:
    """`expr` computed by new nodes; the number itself where it is one.

    Args:
        expr: a number, or an expression over `sizes`.
        call: adds a node.
        sizes: what stands for each symbol: a node, or a number.

    Raises:
        UnsupportedError: FX has no word for a function in `expr`.
    """
    expr = simplify(expr)
    if not isinstance(expr, sympy.Basic):
        return expr
    if isinstance(expr, sympy.Symbol):
        return sizes[expr]
    if isinstance(expr, sympy.Rational):
        return float(expr)

    def part(inner: Any) -> Any:
        return emit_size(inner, call, sizes)

    match expr:
        case sympy.Add():
            return functools.reduce(lambda a, b: call(operator.add, a, b), map(part, _terms(expr)))
        case sympy.Mul():
            ratio, rest = expr.as_coeff_Mul()
            if isinstance(ratio, sympy.Integer) or not rest.is_integer:
                factors = map(part, expr.args)
                return functools.reduce(lambda a, b: call(operator.mul, a, b), factors)
            return call(operator.floordiv, part(ratio.p * rest), int(ratio.q))  # it is whole
        case sympy.Pow():
            return call(operator.pow, *map(part, expr.args))
        case sympy.floor() | sympy.ceiling():
            divide = _floor_div if isinstance(expr, sympy.floor) else _ceil_div
            return divide(call, *map(part, expr.args[0].as_numer_denom()))
    function = _FUNCTIONS.get(type(expr).__name__.removeprefix("OpaqueUnaryFn_"))
    if function is None:
        raise UnsupportedError(f"the size {format_expr(expr)} can't be computed in an FX graph")
    return function(call, *map(part, expr.args))


def emit_solution(
    equation: Any,
    symbol: sympy.Symbol,
    held: Any,
    call: CallFunction,
    size: Callable[[sympy.Symbol], Any],
) -> Any:
    """The size `symbol` by new nodes, where ``equation == held``.

    Args:
        equation: an expression over `symbol` and others, linear in it.
        symbol: what is wanted.
        held: what stands for the value of `equation`.
        call: adds a node.
        size: gives what stands for another symbol.

    Raises:
        UnsupportedError: `equation` can't be solved, or not in words of FX.
    """
    if isinstance(equation, sympy.Eq):  # torch's way to say a bool by an integer: Eq(u0, 1)
        return call(torch.sym_ite, held, 1, 0)
    solved = held if equation == symbol else solve(equation, symbol, _HELD)
    if solved is None:
        raise UnsupportedError(f"the size {symbol} can't be computed from {equation}")
    if solved is held:
        return held
    others = {other: size(other) for other in equation.free_symbols - {symbol}}
    return emit_size(solved, call, {**others, _HELD: held})


_HELD: Final = sympy.Dummy("held", integer=True)


def _terms(expr: sympy.Add) -> list[Any]:
    """The terms of a sum, those with symbols first, so that no node adds two numbers."""
    return sorted(expr.args, key=lambda term: isinstance(term, sympy.Number))


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda call, *args: call(function, *args)


def _fold(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda call, *args: functools.reduce(lambda a, b: call(function, a, b), args)


def _floor_div(call: CallFunction, a: Any, b: Any) -> Any:
    return call(operator.floordiv, a, b)


def _ceil_div(call: CallFunction, a: Any, b: Any) -> Any:
    return call(operator.neg, call(operator.floordiv, call(operator.neg, a), b))


def _where(call: CallFunction, condition: Any, yes: Any, no: Any) -> Any:
    """``no + condition * (yes - no)``: torch's own choice takes no size beside a plain number."""
    chosen = call(torch.sym_ite, condition, 1, 0)
    difference = call(operator.sub, yes, no)
    return call(operator.add, no, call(operator.mul, chosen, difference))


def _modular(call: CallFunction, a: Any, b: Any, c: Any) -> Any:
    return call(operator.mod, call(operator.floordiv, a, b), c)


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "FloorDiv": _floor_div,
    "CleanDiv": _floor_div,
    "CeilDiv": _ceil_div,
    "Mod": _plain(operator.mod),
    "PythonMod": _plain(operator.mod),
    "ModularIndexing": _modular,
    "Max": _fold(torch.sym_max),
    "Min": _fold(torch.sym_min),
    "Where": _where,
    "Abs": _plain(operator.abs),
    "IntTrueDiv": _plain(operator.truediv),
    "FloatTrueDiv": _plain(operator.truediv),
    "ToFloat": _plain(torch.sym_float),
    "TruncToInt": _plain(math.trunc),
    "FloorToInt": _plain(math.floor),
    "CeilToInt": _plain(math.ceil),
    "RoundToInt": _plain(round),
    "PowByNatural": _plain(operator.pow),
    "FloatPow": _plain(operator.pow),
    "LShift": _plain(operator.lshift),
    "RShift": _plain(operator.rshift),
    "BitwiseFn_bitwise_and": _plain(operator.and_),
    "BitwiseFn_bitwise_or": _plain(operator.or_),
    "BitwiseFn_bitwise_xor": _plain(operator.xor),
    "sqrt": _plain(torch.sym_sqrt),
    "Equality": _plain(operator.eq),
    "Unequality": _plain(operator.ne),
    "LessThan": _plain(operator.le),
    "StrictLessThan": _plain(operator.lt),
    "GreaterThan": _plain(operator.ge),
    "StrictGreaterThan": _plain(operator.gt),
    "And": _fold(operator.and_),
    "Or": _fold(operator.or_),
    "Not": _plain(torch.sym_not),
}
"""How each function of an expression is called, by the name of its sympy class."""
