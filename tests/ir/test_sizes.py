"""Sizes: what is known of them, what they come to, and how they are written."""

import math

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._sympy import functions as torch_fns

from rewright.errors import ParseError
from rewright.ir.sizes import (
    Range,
    bounds,
    evaluate,
    format_expr,
    free_symbols,
    hull,
    is_true,
    parse_expr,
    same,
    same_shape,
    simplify,
    solve,
    substitute,
    symbol,
    to_python,
)
from tests.ir.strategies import conditions, expressions

S0, S1, U0, F0 = (symbol(name) for name in ("s0", "s1", "u0", "f0"))
HALF = sympy.Rational(1, 2)
RANGES = {S0: (Range(1, 8, 32),), S1: (Range(4, None, 16), Range(2, None, 8))}

thorough = settings(max_examples=300, deadline=None, derandomize=True)


# --------------------------------------------------------------------------- symbols, ranges


def test_a_name_makes_the_same_symbol_always() -> None:
    assert symbol("s7") is symbol("s7")
    assert symbol("s7") == sympy.Symbol("s7", integer=True, nonnegative=True)
    assert symbol("u7").is_nonnegative is None
    assert symbol("f7").is_integer is None
    with pytest.raises(ValueError, match="start with s, u or f"):
        symbol("x0")


def test_simplify_leaves_pythons_own_numbers() -> None:
    for given_, plain in ((sympy.Integer(3), 3), (sympy.true, True), (sympy.Float(0.5), 0.5)):
        assert simplify(given_) == plain
        assert type(simplify(given_)) is type(plain)
    assert simplify(S0) is S0
    assert simplify("text") == "text"


@pytest.mark.parametrize("text", ["1..8..32", "0..", "..", "..5", "..5..", "-3..0..7", "4..4..4"])
def test_ranges_read_back(text: str) -> None:
    assert str(Range.parse(text)) == text


def test_ranges_are_in_order() -> None:
    with pytest.raises(ValueError, match=r"min <= opt <= max, not 5\.\.3"):
        Range(5, None, 3)
    with pytest.raises(ValueError, match=r"min\.\.max"):
        Range.parse("1..2..3..4")


def test_membership_and_hull() -> None:
    assert 32 in Range(1, 8, 32)
    assert 0 not in Range(1, 8, 32)
    assert 10**9 in Range(1)
    assert -5 in Range(None)
    assert hull(RANGES[S1]) == Range(2, None, 16)
    assert hull((Range(1, 4, 8), Range(0))) == Range(0, 4, None)
    assert hull(()) == Range()


# --------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("condition", "fact"),
    [
        (True, True),
        (sympy.Gt(S0, 0), True),
        (sympy.Gt(S0, 32), False),
        (sympy.Gt(S0, 31), None),
        (sympy.Le(S0, 32), True),
        (sympy.Lt(S0 + S1, 3), False),
        (sympy.Ge(S0 + S1, 3), True),
        (sympy.Eq(S0, 40), False),
        (sympy.Eq(S0, 8), None),
        (sympy.Ne(S0, 40), True),
        (sympy.Eq((S0 + 1) * (S0 - 1), S0**2 - 1), True),
        (sympy.And(sympy.Gt(S0, 0), sympy.Gt(S0, 8)), None),
        (sympy.And(sympy.Gt(S0, 32), sympy.Gt(S1, 8)), False),
        (sympy.Or(sympy.Gt(S0, 0), sympy.Gt(S1, 8)), True),
        (sympy.Not(sympy.And(sympy.Gt(S0, 32), sympy.Gt(S1, 8))), True),
        (sympy.Gt(U0, 0), None),
        (sympy.Ge(symbol("s9"), 0), True),
    ],
)
def test_facts_are_three_valued(condition: object, fact: bool | None) -> None:
    assert is_true(condition, RANGES) is fact


@settings(max_examples=40, deadline=None, derandomize=True)
@given(conditions(), st.integers(0, 40), st.integers(0, 40), st.integers(-9, 9))
def test_facts_hold_for_all_sizes(condition: object, a: int, b: int, u: int) -> None:
    """What is said to be true or false without ranges is so for every choice of sizes."""
    fact = is_true(condition)
    values = {s: a if s.name == "s0" else b for s in free_symbols([condition])}
    values = {s: u if s.name.startswith("u") else v for s, v in values.items()}
    assume(fact is not None)
    assert evaluate(condition, values) is fact


def test_sameness() -> None:
    assert same(3, 3) is True
    assert same(3, 4) is False
    assert same(2 * S0, S0 + S0) is True
    assert same(S0, 33, RANGES) is False
    assert same(S0, S1, RANGES) is None
    assert same_shape((S0, 3), (S0, 3)) is True
    assert same_shape((S0, 3), (S1, 4)) is False
    assert same_shape((S0, 3), (S1, 3)) is None
    assert same_shape((3,), (3, 1)) is False


def test_bounds() -> None:
    interval = bounds(2 * S0 + S1, RANGES)
    assert (interval.lower, interval.upper) == (4, 80)
    assert bounds(7, RANGES).lower == 7
    assert bounds(torch_fns.FloorDiv(S0, 4), RANGES).upper == 8


# --------------------------------------------------------------------------- solving


def test_solving_linear_equations() -> None:
    assert solve(S0, S0, 5) == 5
    assert solve(2 * S0 + 1, S0, 9) == 4
    assert solve(S0 * 3 + S1, S0, S1 + 12) == 4
    assert solve(S0**2, S0, 9) is None
    assert solve(S1 + 1, S0, 9) is None
    assert solve(torch_fns.Max(S0, 3), S0, 9) is None


@given(st.integers(1, 9), st.integers(-9, 9), st.integers(0, 99))
def test_a_solution_fits_its_equation(factor: int, rest: int, size: int) -> None:
    equation = factor * S0 + rest
    assert solve(equation, S0, evaluate(equation, {S0: size})) == size


# --------------------------------------------------------------------------- values

VALUES = {S0: 7, S1: 3, U0: -2, F0: 0.25}
CASES = {
    "2*s0 + 1": (2 * S0 + 1, 15),
    "s0 - s1": (S0 - S1, 4),
    "-s0*s1": (-S0 * S1, -21),
    "s0**2": (S0**2, 49),
    "s0**s1": (S0**S1, 343),
    "s0/2 + 1/2": (S0 / 2 + HALF, 4),
    "3*s0/2": (3 * S0 / 2, 10.5),
    "0.5*f0": (0.5 * F0, 0.125),
    "s0//2": (torch_fns.FloorDiv(S0, 2), 3),
    "-(s0//2)": (-torch_fns.FloorDiv(S0, 2), -3),
    "(-s0)//2": (torch_fns.FloorDiv(-S0, 2), -4),
    "3*((s0 + 1)//2) - 1": (3 * torch_fns.FloorDiv(S0 + 1, 2) - 1, 11),
    "Mod(s0, 4)": (torch_fns.Mod(S0, 4), 3),
    "PythonMod(u0, 4)": (torch_fns.PythonMod(U0, 4), 2),
    "ModularIndexing(s0, 2, 2)": (torch_fns.ModularIndexing(S0, 2, 2), 1),
    "(s0 + 3)//4": (torch_fns.CeilDiv(S0, 4), 2),
    "Max(5, s0, s1)": (torch_fns.Max(S0, S1, 5), 7),
    "Min(5, s0, s1)": (torch_fns.Min(S0, S1, 5), 3),
    "Abs(u0)": (sympy.Abs(U0), 2),
    "floor(u0/4)": (sympy.floor(U0 / 4), -1),
    "ceiling(u0/4)": (sympy.ceiling(U0 / 4), 0),
    "Where(s0 > 3, s0, s1)": (torch_fns.Where(S0 > 3, S0, S1), 7),
    "IntTrueDiv(s0, 2)": (torch_fns.IntTrueDiv(S0, 2), 3.5),
    "ToFloat(s0)": (torch_fns.ToFloat(S0), 7.0),
    "TruncToInt(f0)": (torch_fns.TruncToInt(F0), 0),
    "CeilToInt(f0)": (torch_fns.CeilToInt(F0), 1),
    "OpaqueUnaryFn_sqrt(f0)": (torch_fns.OpaqueUnaryFn_sqrt(F0), 0.5),
    "FloatPow(f0, 2.0)": (torch_fns.FloatPow(F0, 2.0), 0.0625),
    "BitwiseFn_bitwise_and(s0, s1)": (torch_fns.BitwiseFn_bitwise_and(S0, S1), 3),
    "s0 == 7": (sympy.Eq(S0, 7), True),
    "s0 != 7": (sympy.Ne(S0, 7), False),
    "s0 > 3 and s1 <= 3": (sympy.And(S0 > 3, S1 <= 3), True),
    "s0 < 3 or s1 >= 4": (sympy.Or(S0 < 3, S1 >= 4), False),
    "not (s0 > 3 and s1 <= 3)": (sympy.Not(sympy.And(S0 > 3, S1 <= 3)), False),
    "(s0 + 1)*(s0 + s1)": ((S0 + S1) * (S0 + 1), 80),
    "-(s0 + s1)*Mod(s0, 4)": (sympy.Mul(-1, S0 + S1, torch_fns.Mod(S0, 4)), -30),
}


@pytest.mark.parametrize("text", CASES)
def test_text_value_and_python_of_an_expression(text: str) -> None:
    expr, value = CASES[text]
    assert format_expr(expr) == text
    assert parse_expr(text) == expr
    assert evaluate(expr, VALUES) == value
    names = {S0: "a", S1: "b", U0: "c", F0: "d"}
    scope = {"math": math, "a": 7, "b": 3, "c": -2, "d": 0.25}
    assert eval(to_python(expr, names), scope) == value


@pytest.mark.parametrize("number", [0, -3, 10**30, 0.1, -0.0, 1e-30, math.inf, -math.inf, True])
def test_numbers_stay_themselves(number: object) -> None:
    read = parse_expr(format_expr(number))
    assert repr(read) == repr(number)


def test_nan_stays_itself() -> None:
    assert math.isnan(parse_expr(format_expr(math.nan)))


@thorough
@given(expressions() | conditions())
def test_any_expression_reads_back(expr: object) -> None:
    text = format_expr(expr)
    assert parse_expr(text) == expr
    assert format_expr(parse_expr(text)) == text


@thorough
@given(expressions(), st.integers(0, 40), st.integers(0, 40), st.integers(-9, 9))
def test_all_ways_to_compute_agree(expr: object, a: int, b: int, u: int) -> None:
    values = {s: a if s.name == "s0" else b for s in free_symbols([expr])}
    values = {s: u if s.name.startswith("u") else v for s, v in values.items()}
    value = evaluate(expr, values)
    assert type(value) is int
    assert value == substitute(expr, values)
    assert value == eval(to_python(expr), {s.name: v for s, v in values.items()})


def test_only_the_side_that_is_chosen_is_computed() -> None:
    chosen = torch_fns.Where(S1 > 0, torch_fns.FloorDiv(S0, S1), S0)
    assert evaluate(chosen, {S0: 7, S1: 0}) == 7


def test_substitution() -> None:
    assert substitute(2 * S0 + S1, {S0: 3}) == S1 + 6
    assert substitute(2 * S0, {S0: 3}) == 6
    assert type(substitute(2 * S0, {S0: 3})) is int
    assert substitute(2 * S0, {S0: S1}) == 2 * S1
    assert substitute("text", {S0: 3}) == "text"


def test_a_missing_size_is_an_error() -> None:
    with pytest.raises(KeyError):
        evaluate(S0 + S1, {S0: 1})


def test_functions_that_are_not_ours_are_shown_and_refused() -> None:
    strange = sympy.gamma(F0)
    assert format_expr(strange) == "gamma(f0)"
    with pytest.raises(ParseError, match="there is no function 'gamma' of sizes"):
        parse_expr("gamma(f0)")
    for compute in (to_python, lambda expr: evaluate(expr, {F0: 1.0})):
        with pytest.raises(ValueError, match="uses gamma, which Rewright has no name for"):
            compute(strange)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("s0 +", 5, "expected a number, a symbol or '(', found the end of the text"),
        ("", 1, "expected a number, a symbol or '(', found the end of the text"),
        ("batch", 1, "'batch' is no symbol: symbols are s0, u0, f0 ..."),
        ("Mud(s0, 2)", 1, "there is no function 'Mud' of sizes"),
        ("s0 $ 3", 4, "expected the end of the expression, found '$'"),
        ("(s0", 4, "expected ')', found the end of the text"),
        ("s0 s1", 4, "expected the end of the expression, found 's1'"),
        ("FloorDiv(s0)", 12, "this can't be computed: FloorDiv takes exactly 2 arguments"),
        ("s0//0", 5, "this can't be computed: "),
        ("s0/0", 4, "this can't be computed: division by zero"),
        ("s0 + (s0 > 1)", 13, "this can't be computed: a condition is no number"),
        ("s0 and s0 > 1", 13, "this can't be computed: a number is no condition"),
        ("-True", 2, "this can't be computed: a condition is no number"),
        ("__import__('os')", 1, "there is no function '__import__' of sizes"),
        ("s0.is_integer", 1, "'s0.is_integer' is no symbol"),
    ],
)
def test_errors_say_what_and_where(text: str, column: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_expr(text)
    assert caught.value.message.startswith(message)
    assert caught.value.column == column
