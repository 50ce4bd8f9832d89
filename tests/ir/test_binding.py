import pytest
import sympy
import torch

from rewright.errors import InputError
from rewright.ir.binding import bind_symbols
from rewright.ir.graph import Graph, SymbolInfo
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import NoneType, OpaqueType, ScalarType, TensorType
from tests.ir.building import S0, S1, f32, i64, program


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


def test_sizes_from_plain_dimensions_numbers_and_equations():
    graph, _ = program(f32(S0, 4), ScalarType("int", S1))
    assert bind_symbols(graph, [zeros(3, 4), 7]) == {S0: 3, S1: 7}
    graph, _ = program(f32(2 * S0 + 1))
    assert bind_symbols(graph, [zeros(7)]) == {S0: 3}
    graph, _ = program(f32(S0 // 1 * 4, S0))
    assert bind_symbols(graph, [zeros(12, 3)]) == {S0: 3}


def test_equations_that_need_each_other():
    graph, (x, y) = program(f32(S0 + S1), f32(3 * S1))
    graph.symbols[S0] = SymbolInfo((Range(1, None, 64),), x, 0)
    graph.symbols[S1] = SymbolInfo((Range(1, None, 64),), y, 0)
    assert bind_symbols(graph, [zeros(5), zeros(6)]) == {S0: 3, S1: 2}


def test_a_bool_that_stands_for_an_integer():
    u0 = symbol("u0")
    graph = Graph()
    value = graph.add_input(ScalarType("bool", sympy.Eq(u0, 1)))
    graph.symbols[u0] = SymbolInfo((Range(0, None, 1),), value, None)
    assert bind_symbols(graph, [True]) == {u0: 1}
    assert bind_symbols(graph, [False]) == {u0: 0}


def test_a_binding_that_doesnt_divide():
    graph, _ = program(f32(2 * S0))
    with pytest.raises(InputError, match=r"dimension 0 of x0 is 7, which 2\*s0 can't be"):
        bind_symbols(graph, [zeros(7)])


@pytest.mark.parametrize(
    ("expected", "given", "message"),
    [
        (f32(4), zeros(5), "dimension 0 of x0 must be 4, not 5"),
        (f32(4), zeros(4, 1), r"x0 must be f32\[4\] on cpu, not f32\[4, 1\] on cpu"),
        (f32(4), zeros(4, dtype=torch.int64), r"must be f32\[4\] on cpu, not i64\[4\] on cpu"),
        (f32(4), torch.zeros(4, device="meta"), "on meta"),
        (f32(4), 3, "not 3"),
        (f32(4), None, "not None"),
        (f32(4), [1], "not a list"),
        (ScalarType("int"), 1.5, "x0 must be int, not 1.5"),
        (ScalarType("int"), zeros(), "not f32"),
        (ScalarType("bool"), 1, "x0 must be bool, not 1"),
        (ScalarType("int", 3), 4, "x0 must be 3, not 4"),
        (NoneType(), 1, "x0 must be none, not 1"),
    ],
)
def test_inputs_that_dont_fit(expected, given, message):
    graph, _ = program(expected)
    with pytest.raises(InputError, match=message) as caught:
        bind_symbols(graph, [given])
    assert caught.value.name == "x0"


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (ScalarType("float"), 1),
        (ScalarType("int"), True),
        (NoneType(), None),
        (OpaqueType("Generator"), object()),
        (TensorType(torch.float32, (), "meta"), torch.zeros((), device="meta")),
    ],
)
def test_inputs_that_fit(expected, given):
    graph, _ = program(expected)
    assert bind_symbols(graph, [given]) == {}


def test_sizes_that_contradict_each_other():
    graph, _ = program(f32(S0), i64(S0 + 1, 2))
    assert bind_symbols(graph, [zeros(3), zeros(4, 2, dtype=torch.int64)]) == {S0: 3}
    with pytest.raises(InputError, match=r"dimension 0 of x1 must be s0 \+ 1 \(4\), not 5"):
        bind_symbols(graph, [zeros(3), zeros(5, 2, dtype=torch.int64)])


def test_sizes_outside_their_range():
    graph, _ = program(f32(S0), s0=Range(2, 4, 8))
    bind_symbols(graph, [zeros(2)])
    bind_symbols(graph, [zeros(8)])
    with pytest.raises(InputError, match=r"s0 is 9 \(from dimension 0 of x0\), outside 2..4..8"):
        bind_symbols(graph, [zeros(9)])


def test_all_sizes_are_in_one_profile():
    graph, (x,) = program(f32(S0, S1))
    graph.symbols[S0] = SymbolInfo((Range(1, None, 4), Range(5, None, 8)), x, 0)
    graph.symbols[S1] = SymbolInfo((Range(1, None, 4), Range(5, None, 8)), x, 1)
    bind_symbols(graph, [zeros(2, 3)])
    bind_symbols(graph, [zeros(6, 7)])
    with pytest.raises(InputError, match=r"outside 1..4 or 5..8"):
        bind_symbols(graph, [zeros(2, 7)])


def test_the_number_of_inputs():
    graph, _ = program(f32(4))
    with pytest.raises(InputError, match="@main takes 1 inputs, not 2"):
        bind_symbols(graph, [zeros(4), zeros(4)])


def test_a_size_that_no_input_tells():
    graph, (x,) = program(f32(S0 + S1))
    graph.symbols[S0] = SymbolInfo((Range(),), x, 0)
    with pytest.raises(InputError, match="don't tell the size s0"):
        bind_symbols(graph, [zeros(4)])
