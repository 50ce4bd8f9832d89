"""The text of expressions: printed, printed as Python, and parsed.

    2*s0 + 1      s0//2      Max(1, s1)      s0 % 8 is Mod(s0, 8)      s0 == 4 and s1 < 16

``parse_expr(format_expr(e)) == e``. The parser is our own and calls nothing but the functions of
:data:`~rewright.ir.expressions.FUNCTIONS`: ``sympy.sympify`` evaluates its argument as code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import sympy
from sympy.core.relational import Relational

from rewright.errors import did_you_mean
from rewright.ir.expressions import (
    FUNCTIONS,
    RELATIONS,
    function_of,
    relation_of,
    simplify,
    symbol,
)
from rewright.ir.lexer import Token, Tokens

# --------------------------------------------------------------------------- printing

_OR, _AND, _NOT, _CMP, _ADD, _MUL, _POW, _ATOM = range(8)
"""How tightly a text holds together; what holds less tightly than its place needs brackets."""


def format_expr(expr: Any) -> str:
    """The text of `expr`; :func:`parse_expr` reads it back to an equal expression.

    A function that is none of ours prints as well, but can't be read.
    """
    return _format_symbolic(expr) if isinstance(expr, sympy.Basic) else _format(expr, _OR)


@lru_cache(maxsize=4096, typed=True)
def _format_symbolic(expr: sympy.Basic) -> str:
    return _format(expr, _OR)


def _format(expr: Any, outer: int) -> str:
    text, level = _format_number(expr) or _format_inner(expr)
    return f"({text})" if level < outer else text


def _format_number(expr: Any) -> tuple[str, int] | None:
    match expr:
        case bool():
            return str(expr), _ATOM
        case int():
            return int.__repr__(expr), _ATOM if expr >= 0 else _MUL
        case float():
            return float.__repr__(expr), _MUL if math.copysign(1, expr) < 0 else _ATOM
        case sympy.Symbol():
            return str(expr.name), _ATOM
        case sympy.Integer():
            return str(int(expr)), _ATOM if expr >= 0 else _MUL
        case sympy.Rational():
            return f"{expr.p}/{expr.q}", _MUL
        case sympy.Float():
            return repr(float(expr)), _ATOM if expr >= 0 else _MUL
    if expr is sympy.true or expr is sympy.false:
        return str(bool(expr)), _ATOM
    return None


def _format_inner(expr: Any) -> tuple[str, int]:
    match expr:
        case sympy.Add():
            return _format_sum(expr), _ADD
        case sympy.Mul():
            return _format_product(expr), _MUL
        case sympy.Pow():
            return f"{_format(expr.args[0], _ATOM)}**{_format(expr.args[1], _ATOM)}", _POW
        case sympy.And():
            return " and ".join(sorted(_format(a, _NOT) for a in expr.args)), _AND
        case sympy.Or():
            return " or ".join(sorted(_format(a, _AND) for a in expr.args)), _OR
        case sympy.Not():
            return f"not {_format(expr.args[0], _CMP)}", _NOT
        case Relational():
            a, b = (_format(x, _ADD) for x in expr.args)
            return f"{a} {relation_of(expr).sign} {b}", _CMP
    name = type(expr).__name__
    if name == "FloorDiv":
        a, b = (_format(x, _ATOM) for x in expr.args)
        return f"{a}//{b}", _MUL
    args = [_format(a, _OR) for a in expr.args]
    if name in ("Max", "Min"):  # their arguments have no order of their own
        args.sort()
    return f"{name}({', '.join(args)})", _ATOM


def _format_product(expr: sympy.Mul) -> str:
    factor, rest = expr.as_coeff_Mul()
    if factor.is_negative:
        positive = -expr
        # A minus binds tighter than //: -(s0//2) is not -s0//2.
        return f"-{_format(positive, _MUL if isinstance(positive, sympy.Mul) else _POW)}"
    if isinstance(factor, sympy.Rational) and factor.q != 1:
        numerator = _format(factor.p * rest, _MUL)
        return f"{numerator}/{factor.q}"
    return "*".join(_format(a, _POW) for a in expr.as_ordered_factors())


def _format_sum(expr: sympy.Add) -> str:
    text = ""
    for term in expr.as_ordered_terms():
        piece = _format(term, _MUL)
        if not text:
            text = piece
        elif piece.startswith("-"):
            text += f" - {piece[1:]}"
        else:
            text += f" + {piece}"
    return text


# --------------------------------------------------------------------------- Python source


def to_python(expr: Any, names: Mapping[sympy.Symbol, str] | None = None) -> str:
    """Python source that computes `expr`; symbols are spelled by `names` or as they are.

    The source needs the module ``math`` in its scope.
    """
    match expr:
        case sympy.Symbol():
            return names[expr] if names and expr in names else str(expr.name)
        case sympy.Integer():
            return str(int(expr)) if expr >= 0 else f"({int(expr)})"
        case sympy.Float():
            return repr(float(expr))
        case sympy.Rational():
            return f"({expr.p} / {expr.q})"
        case sympy.Mul():
            return _product_to_python(expr, names)
        case sympy.Add():
            return "(" + " + ".join(to_python(a, names) for a in expr.as_ordered_terms()) + ")"
    if expr is sympy.true or expr is sympy.false:
        return str(bool(expr))
    if not isinstance(expr, sympy.Basic):
        return repr(expr)
    args = [to_python(arg, names) for arg in expr.args]
    match expr:
        case sympy.Pow():
            return f"({args[0]} ** {args[1]})"
        case sympy.And() | sympy.Or():
            return "(" + (" and " if isinstance(expr, sympy.And) else " or ").join(args) + ")"
        case sympy.Not():
            return f"(not {args[0]})"
        case Relational():
            return f"({args[0]} {relation_of(expr).sign} {args[1]})"
    return function_of(expr)[1].python.replace("{*}", ", ".join(args)).format(*args)


def _product_to_python(expr: sympy.Mul, names: Mapping[sympy.Symbol, str] | None) -> str:
    """A product; a rational factor divides last, so that integer results stay integers."""
    ratio, rest = expr.as_coeff_Mul()
    if isinstance(ratio, sympy.Rational) and ratio.q != 1 and expr.is_integer:
        return f"({to_python(ratio.p * rest, names)} // {ratio.q})"
    return "(" + " * ".join(to_python(a, names) for a in expr.args) + ")"


# --------------------------------------------------------------------------- parsing

_SYMBOL: Final = re.compile(r"[suf]\d+", re.ASCII)
_MOST_BITS: Final = 4096
_MOST_FACTORS: Final = 64
"""The largest powers: of numbers, and of expressions."""

_FLOATS: Final = {"inf": math.inf, "nan": math.nan}

OPERATORS: Final = frozenset(["+", "-", "*", "/", "//", "**", "and", "or", *RELATIONS])
"""What may stand between two operands of an expression."""


def parse_expr(text: str) -> Any:
    """The expression that prints as `text`: an int, float, bool or sympy expression.

    Raises:
        ParseError: `text` is not an expression of the IR.
    """
    tokens = Tokens(text)
    result = parse_expression(tokens)
    if tokens.next.kind != "end":
        raise tokens.unexpected("the end of the expression")
    return result


def parse_expression(tokens: Tokens) -> Any:
    """Reads an expression, as far as it goes: an int, float, bool or sympy expression.

    Raises:
        ParseError: there is none.
    """
    literal = _literal(tokens)
    return simplify(_either(tokens)) if literal is None else literal


def _literal(tokens: Tokens) -> int | float | None:
    """Reads a number that stands alone. It never becomes sympy's, which knows no -0.0 and nan."""
    start = tokens.at
    negative = tokens.accept("-")
    token = tokens.take()
    value: int | float | None = None
    if tokens.next.text not in OPERATORS:
        if token.kind == "int":
            value = int(token.text)
        elif token.kind == "float":
            value = float(token.text)
        else:
            value = _FLOATS.get(token.text)
    if value is None:
        tokens.at = start
        return None
    return -value if negative else value


def _either(tokens: Tokens) -> Any:
    parts = [_both(tokens)]
    while tokens.accept("or"):
        parts.append(_both(tokens))
    return parts[0] if len(parts) == 1 else _made(tokens, sympy.Or, parts)


def _both(tokens: Tokens) -> Any:
    parts = [_negation(tokens)]
    while tokens.accept("and"):
        parts.append(_negation(tokens))
    return parts[0] if len(parts) == 1 else _made(tokens, sympy.And, parts)


def _negation(tokens: Tokens) -> Any:
    if tokens.accept("not"):
        return _made(tokens, sympy.Not, [_negation(tokens)])
    return _comparison(tokens)


def _comparison(tokens: Tokens) -> Any:
    left = _sum(tokens)
    relation = RELATIONS.get(tokens.next.text)
    if relation is None:
        return left
    tokens.take()
    return _made(tokens, relation.make, [left, _sum(tokens)])


def _sum(tokens: Tokens) -> Any:
    terms = [_product(tokens)]
    while tokens.next.text in ("+", "-"):
        terms.append(_product(tokens, sign=-1 if tokens.take().text == "-" else 1))
    return terms[0] if len(terms) == 1 else _made(tokens, sympy.Add, terms)


def _product(tokens: Tokens, sign: int = 1) -> Any:
    """A product. Its factors are multiplied at once: step by step, sympy would expand some."""
    while tokens.accept("-"):
        sign = -sign
    factors = [_factor(tokens)] if sign == 1 else [sympy.Integer(-1), _factor(tokens)]
    while tokens.next.text in ("*", "/", "//"):
        operator = tokens.take().text
        factor = _factor(tokens)
        if operator == "//":
            total = _made(tokens, sympy.Mul, factors)
            factors = [_made(tokens, FUNCTIONS["FloorDiv"].make, [total, factor])]
        elif operator == "*":
            factors.append(factor)
        else:
            factors.append(_made(tokens, _inverse, [factor]))
    return factors[0] if len(factors) == 1 else _made(tokens, sympy.Mul, factors)


def _inverse(number: Any) -> Any:
    if number.is_zero:
        raise ZeroDivisionError("division by zero")
    return sympy.Pow(number, -1)


def _factor(tokens: Tokens) -> Any:
    if tokens.accept("-"):
        return _made(tokens, sympy.Mul, [sympy.Integer(-1), _factor(tokens)])
    base = _atom(tokens)
    if not tokens.accept("**"):
        return base
    exponent = _factor(tokens)
    if _is_absurd(base, exponent):
        raise tokens.error("no size is such a power", tokens.last)
    return _made(tokens, sympy.Pow, [base, exponent])


def _is_absurd(base: Any, exponent: Any) -> bool:
    """Whether computing or expanding a power would take forever: a text may come from anybody."""
    if not isinstance(exponent, sympy.Number):
        return False
    if not isinstance(base, sympy.Number):
        return bool(abs(exponent) > _MOST_FACTORS)
    return bool(abs(exponent) * math.log2(abs(base) + 2) > _MOST_BITS)


def _atom(tokens: Tokens) -> Any:
    token = tokens.next
    if token.kind == "int":
        return sympy.Integer(int(tokens.take().text))
    if token.kind == "float":
        return sympy.Float(float(tokens.take().text))
    if token.kind == "word":
        return _named(tokens, tokens.take())
    if tokens.accept("("):
        inner = _either(tokens)
        tokens.expect(")")
        return inner
    raise tokens.unexpected("a number, a symbol or '('")


def _named(tokens: Tokens, name: Token) -> Any:
    if name.text in ("True", "False"):
        return sympy.true if name.text == "True" else sympy.false
    if tokens.next.text != "(":
        if _SYMBOL.fullmatch(name.text):
            return symbol(name.text)
        raise tokens.error(f"{name.text!r} is no symbol: symbols are s0, u0, f0 ...", name)
    if name.text not in FUNCTIONS:
        hint = did_you_mean(name.text, FUNCTIONS)
        raise tokens.error(f"there is no function {name.text!r} of sizes", name, hint)
    tokens.take()
    args = [_either(tokens)]
    while tokens.accept(","):
        args.append(_either(tokens))
    tokens.expect(")")
    return _made(tokens, FUNCTIONS[name.text].make, args)


_ARITHMETIC: Final = (sympy.Add, sympy.Mul, sympy.Pow)
_LOGIC: Final = (sympy.And, sympy.Or, sympy.Not)


def _made(tokens: Tokens, make: Any, args: list[Any]) -> Any:
    """What `make` gives for `args`, which may be of the wrong kind or number for it."""
    try:
        if make in _ARITHMETIC and not all(isinstance(arg, sympy.Expr) for arg in args):
            raise TypeError("a condition is no number")
        if make in _LOGIC and any(isinstance(arg, sympy.Expr) for arg in args):
            raise TypeError("a number is no condition")
        return make(*args)
    except (TypeError, ValueError, ArithmeticError, AssertionError) as error:
        raise tokens.error(f"this can't be computed: {error}", tokens.last) from None
