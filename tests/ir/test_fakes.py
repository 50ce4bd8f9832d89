import pytest
import sympy
import torch

from rewright.errors import UnsupportedError
from rewright.ir import fakes
from rewright.ir.fakes import FakeWorld, example_sizes
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import NoneType, OpaqueType, ScalarType, TensorType
from tests.ir.building import S0, S1, f32, flag

U0, F0 = symbol("u0"), symbol("f0")
RANGES = {S0: (Range(1, 8, 32),), S1: (Range(2, None, None),), U0: (Range(None, None, 9),)}


@pytest.fixture
def world():
    return FakeWorld([S0, S1, U0, F0], RANGES, "cpu")


@pytest.mark.parametrize(
    "value_type",
    [
        f32(S0, 2 * S1 + 1, 3),
        flag(),
        TensorType(torch.bfloat16, (2,), "meta"),
        ScalarType("int", S0 * 2),
        ScalarType("int", 4),
        ScalarType("float", F0 * 2),
        ScalarType("bool", sympy.Eq(U0, 1)),
        NoneType(),
    ],
    ids=str,
)
def test_types_go_to_torch_and_back(world, value_type):
    assert world.type_of(world.make(value_type)) == value_type
    assert world.type_of(world.new(value_type)) == value_type
    assert world.assumptions() == []


def test_values_are_made_once_for_a_type_and_an_occurrence(world, monkeypatch):
    first = world.make(f32(S0))
    assert world.make(f32(S0)) is first
    assert world.make(f32(S0), 1) is not first
    assert world.new(f32(S0)) is not first
    monkeypatch.setattr(fakes, "_MAX_MADE", 1)
    assert world.make(f32(S0)) is not first


def test_objects_have_no_fake_value(world):
    with pytest.raises(UnsupportedError, match="object<Generator>"):
        world.make(OpaqueType("Generator"))


def test_unknown_numbers_come_back_as_dummies_with_their_range(world):
    number = world.expression(world.make(ScalarType("int")))
    assert isinstance(number, sympy.Dummy)
    assert world.expression(world.make(ScalarType("int"))) == number
    assert world.fresh() == {number: Range(None)}
    assert not world.is_ours(number + S0)
    assert world.is_ours(S0 + 1)


def test_what_torch_assumes_is_told_in_our_symbols(world):
    a, b = world.number(S0), world.number(S1)
    with world.active():
        torch._check(a + 1 == b)
    assert sympy.Eq(S0 + 1, S1) in world.assumptions()


def test_what_ranges_say_is_no_assumption(world):
    with world.active():
        torch._check(world.number(S1) >= 2)
        torch._check(world.number(S0) <= 32)
    assert world.assumptions() == []


def test_messages_are_in_our_names(world):
    theirs = str(world.number(S0 + S1))
    assert world.reworded(f"sizes {theirs} and 3") == "sizes s0 + s1 and 3"


def test_backed_sizes_have_the_example_given():
    world = FakeWorld([S0, U0], RANGES, "cpu", {S0: 5})
    assert world.number(S0 * 2).node.hint == 10
    assert world.type_of(world.make(f32(S0, U0))) == f32(S0, U0)


def test_examples_are_in_range_distinct_and_generic():
    small = symbol("s9")
    ranges = {S0: (Range(1, 8, 32),), S1: (Range(100),), small: (Range(1, None, 2),), U0: ()}
    assert example_sizes(ranges) == {S0: 7, S1: 100, small: 2}
    assert example_sizes(ranges, typical=True) == {S0: 8, S1: 100, small: 2}
    many = {symbol(f"s{n}"): (Range(),) for n in range(10)}
    assert len(set(example_sizes(many).values())) == 10


def test_a_compile_under_way_in_this_thread_is_not_seen(world):
    other = FakeWorld([S0], RANGES, "cpu")
    with torch._guards.tracing(torch._guards.TracingContext(other.mode)):
        with world.active():
            assert torch._guards.detect_fake_mode() is world.mode
        assert torch._guards.detect_fake_mode() is other.mode
