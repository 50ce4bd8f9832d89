"""Expressions over symbols: what they may consist of, and their value for given sizes.

Names tell what a symbol stands for, so that text alone rebuilds the very same sympy object:

=========  =======================================================  ====================
name       stands for                                               assumed
=========  =======================================================  ====================
``s<n>``   a size known from the inputs when a call starts          integer, >= 0
``u<n>``   an integer known only once a node has run (``item``)     integer
``f<n>``   a float known only at run time                           real
=========  =======================================================  ====================

How expressions are written is said in :mod:`rewright.ir.expression_text`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs
import sympy
from sympy.core.relational import Relational
from torch.utils._sympy import functions as torch_fns

Expr: TypeAlias = sympy.Basic
"""An integer, float or boolean expression over symbols."""


@lru_cache(maxsize=4096)
def symbol(name: str) -> sympy.Symbol:
    """The symbol called `name`; its first letter says what it stands for (see the module)."""
    match name[0]:
        case "s":
            return sympy.Symbol(name, integer=True, nonnegative=True)
        case "u":
            return sympy.Symbol(name, integer=True)
        case "f":
            return sympy.Symbol(name, real=True)
    raise ValueError(f"symbol names start with s, u or f: {name!r}")


def simplify(expr: Any) -> Any:
    """`expr` as a plain Python number or bool where it is one, otherwise unchanged."""
    if not isinstance(expr, sympy.Basic):
        return expr
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if expr is sympy.true or expr is sympy.false:
        return bool(expr)
    if isinstance(expr, sympy.Float):
        return float(expr)
    return expr


def free_symbols(items: Iterable[Any]) -> set[sympy.Symbol]:
    """Every symbol in `items`; what is not an expression has none."""
    found: set[sympy.Symbol] = set()
    for item in items:
        if isinstance(item, sympy.Basic):
            found |= item.free_symbols
    return found


def substitute(expr: Any, values: Mapping[Any, Any]) -> Any:
    """`expr` with symbols replaced by expressions, numbers simplified to Python's."""
    if not isinstance(expr, sympy.Basic) or not (expr.free_symbols & values.keys()):
        return expr
    return simplify(expr.xreplace({k: sympy.sympify(v) for k, v in values.items()}))


# --------------------------------------------------------------------------- the functions


@attrs.frozen
class Function:
    """One function that may stand in an expression."""

    make: Callable[..., Any]
    """Builds the sympy expression."""
    compute: Callable[..., Any]
    """Computes it on numbers."""
    python: str
    """Python source of a call, with ``{}`` for each argument (or ``{*}`` for all)."""


def _where(condition: bool, yes: Any, no: Any) -> Any:
    return yes if condition else no


_UNARY_MATH: Final = (
    *("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan"),
    *("exp", "log", "asinh", "log2"),
)

FUNCTIONS: Final[dict[str, Function]] = {
    "FloorDiv": Function(torch_fns.FloorDiv, operator.floordiv, "({} // {})"),
    "CleanDiv": Function(torch_fns.CleanDiv, operator.floordiv, "({} // {})"),
    "CeilDiv": Function(torch_fns.CeilDiv, lambda a, b: -(-a // b), "-(-({}) // ({}))"),
    "Mod": Function(torch_fns.Mod, operator.mod, "({} % {})"),
    "PythonMod": Function(torch_fns.PythonMod, operator.mod, "({} % {})"),
    "ModularIndexing": Function(
        torch_fns.ModularIndexing, lambda a, b, c: a // b % c, "({} // {} % {})"
    ),
    "Max": Function(torch_fns.Max, max, "max({*})"),
    "Min": Function(torch_fns.Min, min, "min({*})"),
    "Where": Function(torch_fns.Where, _where, "({1} if {0} else {2})"),
    "Identity": Function(torch_fns.Identity, lambda a: a, "({})"),
    "Abs": Function(sympy.Abs, abs, "abs({})"),
    "floor": Function(sympy.floor, math.floor, "math.floor({})"),
    "ceiling": Function(sympy.ceiling, math.ceil, "math.ceil({})"),
    "IntTrueDiv": Function(torch_fns.IntTrueDiv, operator.truediv, "({} / {})"),
    "FloatTrueDiv": Function(torch_fns.FloatTrueDiv, operator.truediv, "({} / {})"),
    "ToFloat": Function(torch_fns.ToFloat, float, "float({})"),
    "TruncToInt": Function(torch_fns.TruncToInt, math.trunc, "math.trunc({})"),
    "TruncToFloat": Function(
        torch_fns.TruncToFloat, lambda a: float(math.trunc(a)), "float(math.trunc({}))"
    ),
    "FloorToInt": Function(torch_fns.FloorToInt, math.floor, "math.floor({})"),
    "CeilToInt": Function(torch_fns.CeilToInt, math.ceil, "math.ceil({})"),
    "RoundToInt": Function(torch_fns.RoundToInt, round, "round({})"),
    "RoundDecimal": Function(torch_fns.RoundDecimal, round, "round({}, {})"),
    "PowByNatural": Function(torch_fns.PowByNatural, operator.pow, "({} ** {})"),
    "FloatPow": Function(torch_fns.FloatPow, operator.pow, "({} ** {})"),
    "LShift": Function(torch_fns.LShift, operator.lshift, "({} << {})"),
    "RShift": Function(torch_fns.RShift, operator.rshift, "({} >> {})"),
    "BitwiseFn_bitwise_and": Function(torch_fns.BitwiseFn_bitwise_and, operator.and_, "({} & {})"),
    "BitwiseFn_bitwise_or": Function(torch_fns.BitwiseFn_bitwise_or, operator.or_, "({} | {})"),
    "BitwiseFn_bitwise_xor": Function(torch_fns.BitwiseFn_bitwise_xor, operator.xor, "({} ^ {})"),
    **{
        f"OpaqueUnaryFn_{name}": Function(
            getattr(torch_fns, f"OpaqueUnaryFn_{name}"), getattr(math, name), f"math.{name}({{}})"
        )
        for name in _UNARY_MATH
    },
}
"""The functions of expressions, by the name of their sympy class."""


def function_of(expr: Expr) -> tuple[str, Function]:
    """The name and meaning of the function that `expr` is a call of.

    Raises:
        ValueError: it is none of :data:`FUNCTIONS`.
    """
    name = type(expr).__name__
    if name not in FUNCTIONS:
        raise ValueError(f"the size expression {expr} uses {name}, which Rewright has no name for")
    return name, FUNCTIONS[name]


# --------------------------------------------------------------------------- relations


@attrs.frozen
class _Relation:
    """A comparison: how it is written, its sympy class, and what computes it."""

    sign: str
    make: Any
    compute: Callable[[Any, Any], bool]


_TABLE: Final = (
    _Relation("==", sympy.Eq, operator.eq),
    _Relation("!=", sympy.Ne, operator.ne),
    _Relation("<=", sympy.Le, operator.le),
    _Relation(">=", sympy.Ge, operator.ge),
    _Relation("<", sympy.Lt, operator.lt),
    _Relation(">", sympy.Gt, operator.gt),
)
RELATIONS: Final = {relation.sign: relation for relation in _TABLE}
"""The relations, by their sign."""
_RELATION_OF: Final = {relation.make: relation for relation in _TABLE}


def relation_of(expr: Relational) -> _Relation:
    """The relation that `expr` states."""
    return _RELATION_OF[type(expr)]


# --------------------------------------------------------------------------- evaluation


def evaluate(expr: Any, values: Mapping[sympy.Symbol, Any]) -> Any:
    """`expr` as a Python number or bool, its symbols replaced by `values`.

    Rational numbers stay exact on the way, so that ``s0/2 + 1/2`` of 3 is the integer 2.

    Raises:
        KeyError: a symbol has no value.
    """
    result = _evaluate(expr, values)
    return float(result) if isinstance(result, Fraction) else result


def _evaluate(expr: Any, values: Mapping[sympy.Symbol, Any]) -> Any:
    if not isinstance(expr, sympy.Basic):
        return expr
    match expr:
        case sympy.Symbol():
            return values[expr]
        case sympy.Integer():
            return int(expr)
        case sympy.Rational():
            return Fraction(int(expr.p), int(expr.q))
        case sympy.Float():
            return float(expr)
    if expr is sympy.true or expr is sympy.false:
        return bool(expr)
    if isinstance(expr, torch_fns.Where):  # the other side may not have a value
        condition, yes, no = expr.args
        return _evaluate(yes if _evaluate(condition, values) else no, values)
    return _apply(expr, [_evaluate(arg, values) for arg in expr.args])


def _apply(expr: Expr, args: list[Any]) -> Any:
    """The value of `expr`, given the values of its arguments."""
    match expr:
        case sympy.Add():
            return _exact(sum(args))
        case sympy.Mul():
            return _exact(math.prod(args))
        case sympy.Pow():
            return _exact(args[0] ** args[1])
        case sympy.And():
            return all(args)
        case sympy.Or():
            return any(args)
        case sympy.Not():
            return not args[0]
        case Relational():
            return relation_of(expr).compute(*args)
    return function_of(expr)[1].compute(*args)


def _exact(value: Any) -> Any:
    """`value`, as an int where it is a fraction of denominator 1."""
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value
