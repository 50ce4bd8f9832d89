"""Loops and conditionals against Python's."""

from typing import Any

import pytest
import torch

from rewright.errors import EngineError, UnsupportedError
from tests.testing.networks import Net, close, out, trt

EW, UN, LOOP, TRIP = trt.ElementWiseOperation, trt.UnaryOperation, trt.LoopOutput, trt.TripLimit


def i32(value: int) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.int32)


def binary(net: Net, a: Any, b: Any, op: str) -> Any:
    return out(net.network.add_elementwise(a, b, EW.__members__[op]))


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_a_counted_loop_with_iterators_and_every_output(trips: int) -> None:
    """A running, decaying sum over rows, with the rows taken from both ends."""
    rows, start, decay = torch.randn(5, 3), torch.randn(3), torch.tensor([0.5])
    net = Net()
    loop = net.network.add_loop()
    count = net.input(i32(trips))
    loop.add_trip_limit(count, TRIP.COUNT)
    source = net.input(rows)
    forward = out(loop.add_iterator(source))
    backward = out(loop.add_iterator(source, 0, True))
    state = loop.add_recurrence(net.input(start))
    # Constant over the loop, and made of layers: computed once, outside.
    factor = binary(net, net.constant(decay), net.constant(decay), "SUM")
    held = binary(net, out(state), factor, "PROD")
    following = binary(net, binary(net, held, forward, "SUM"), backward, "SUB")
    state.set_input(1, following)
    last = loop.add_loop_output(out(state), LOOP.LAST_VALUE)
    places = {}
    for kind, axis in ((LOOP.CONCATENATE, 0), (LOOP.CONCATENATE, 1), (LOOP.REVERSE, 0)):
        layer = loop.add_loop_output(following, kind, axis)
        layer.set_input(1, count)
        places[kind, axis] = out(layer)
    got = net.evaluate(out(last), *places.values())
    value, history = start.double(), []
    for trip in range(trips):
        value = value * 1.0 + rows[trip].double() - rows[trips - 1 - trip].double()
        history.append(value)
    table = torch.stack(history) if history else torch.zeros(0, 3)
    close(got[0], value, 1e-5)
    close(got[1], table, 1e-5)
    close(got[2], table.T, 1e-5)
    close(got[3], table.flip(0), 1e-5)


def collatz(net: Net, limit: int | None) -> tuple[Any, Any]:
    """n -> n / 2 or 3 n + 1 while n > 1: the last n, and how many steps."""
    loop = net.network.add_loop()
    number = loop.add_recurrence(net.input(torch.tensor(6)))
    steps = loop.add_recurrence(net.constant(0))
    one, two, three = (net.constant(each) for each in (1, 2, 3))
    loop.add_trip_limit(binary(net, out(number), one, "GREATER"), TRIP.WHILE)
    if limit is not None:
        loop.add_trip_limit(net.constant(i32(limit)), TRIP.COUNT)
    half = binary(net, out(number), two, "DIV")
    even = binary(net, binary(net, half, two, "PROD"), out(number), "EQUAL")
    odd = binary(net, binary(net, out(number), three, "PROD"), one, "SUM")
    number.set_input(1, out(net.network.add_select(even, half, odd)))
    steps.set_input(1, binary(net, out(steps), one, "SUM"))
    return tuple(  # type: ignore[return-value]
        out(loop.add_loop_output(out(each), LOOP.LAST_VALUE)) for each in (number, steps)
    )


@pytest.mark.parametrize(("limit", "expected"), [(None, [1, 8]), (3, [5, 3]), (100, [1, 8])])
def test_a_while_loop(limit: int | None, expected: list[int]) -> None:
    net = Net()
    assert [int(each) for each in net.evaluate(*collatz(net, limit))] == expected


def test_what_no_iteration_gave_is_not_a_number() -> None:
    net = Net()
    loop = net.network.add_loop()
    state = loop.add_recurrence(net.input(torch.tensor([1.0])))
    loop.add_trip_limit(net.constant(i32(2)), TRIP.COUNT)
    state.set_input(1, binary(net, out(state), out(state), "SUM"))
    layer = loop.add_loop_output(out(state), LOOP.CONCATENATE)
    layer.set_input(1, net.constant(i32(4)))
    (got,) = net.evaluate(out(layer))
    assert got[:2].tolist() == [[1.0], [2.0]] and got[2:].isnan().all()


def test_nested_loops() -> None:
    """Factorials: an inner loop multiplies as often as the outer one has run."""
    net = Net()
    outer = net.network.add_loop()
    outer.add_trip_limit(net.constant(i32(5)), TRIP.COUNT)
    trip = outer.add_recurrence(net.constant(i32(1)))
    trip.set_input(1, binary(net, out(trip), net.constant(i32(1)), "SUM"))
    inner = net.network.add_loop()
    inner.add_trip_limit(out(trip), TRIP.COUNT)
    factor = inner.add_recurrence(net.constant(i32(1)))
    factor.set_input(1, binary(net, out(factor), net.constant(i32(1)), "SUM"))
    product = inner.add_recurrence(net.constant(i32(1)))
    product.set_input(1, binary(net, out(product), out(factor), "PROD"))
    factorial = out(inner.add_loop_output(out(product), LOOP.LAST_VALUE))
    layer = outer.add_loop_output(factorial, LOOP.CONCATENATE)
    layer.set_input(1, net.constant(i32(5)))
    (got,) = net.evaluate(out(layer))
    assert got.tolist() == [1, 2, 6, 24, 120]


def test_an_iterator_that_runs_out_is_refused() -> None:
    net = Net()
    loop = net.network.add_loop()
    loop.add_trip_limit(net.input(i32(4)), TRIP.COUNT)
    row = out(loop.add_iterator(net.input(torch.randn(3, 2), (-1, 2))))
    state = loop.add_recurrence(net.constant(torch.zeros(2)))
    state.set_input(1, binary(net, out(state), row, "SUM"))
    with pytest.raises(EngineError, match="iteration 3 reads index 3 of axis 0, of size 3"):
        net.evaluate(out(loop.add_loop_output(out(state), LOOP.LAST_VALUE)))


def branches(net: Net, condition: torch.Tensor, x: torch.Tensor, then: Any, otherwise: Any) -> Any:
    fork = net.network.add_if_conditional()
    fork.set_condition(net.input(condition))
    entry = out(fork.add_input(net.input(x)))
    return out(fork.add_output(then(entry), otherwise(entry)))


@pytest.mark.parametrize("taken", [True, False])
def test_a_conditional(taken: bool) -> None:
    x = torch.randn(3, 2)
    net = Net()
    result = branches(
        net, torch.tensor(taken), x,
        lambda each: binary(net, each, net.constant(torch.full((1, 1), 2.0)), "PROD"),
        lambda each: out(net.network.add_unary(each, UN.NEG)),
    )  # fmt: skip
    doubled = binary(net, result, result, "SUM")
    got = net.evaluate(result, doubled)
    close(got[0], 2 * x if taken else -x)
    close(got[1], 4 * x if taken else -2 * x)


def test_the_branch_that_is_not_taken_is_not_computed() -> None:
    """An index out of bounds in one branch."""
    x = torch.randn(3)

    def wrong(net: Net, entry: Any) -> Any:
        place, value = net.input(torch.tensor([9])), net.constant([1.0])
        return out(net.network.add_scatter(entry, place, value, trt.ScatterMode.ELEMENT))

    for taken in (True, False):
        net = Net()
        result = branches(
            net, torch.tensor(taken), x, lambda each, net=net: out(net.network.add_identity(each)),
            lambda each, net=net: wrong(net, each),
        )  # fmt: skip
        if taken:
            close(net.evaluate(result)[0], x)
        else:
            with pytest.raises(EngineError, match="out of bounds"):
                net.evaluate(result)


def test_a_conditional_in_a_loop_and_a_loop_in_a_conditional() -> None:
    """In each iteration: the sign of the state decides between doubling and adding 10."""
    net = Net()
    loop = net.network.add_loop()
    loop.add_trip_limit(net.constant(i32(6)), TRIP.COUNT)
    state = loop.add_recurrence(net.input(torch.tensor(-3.0)))
    fork = net.network.add_if_conditional()
    fork.set_condition(binary(net, out(state), net.constant(0.0), "LESS"))
    entry = out(fork.add_input(out(state)))
    inner = net.network.add_loop()
    inner.add_trip_limit(net.constant(i32(2)), TRIP.COUNT)
    added = inner.add_recurrence(entry)
    added.set_input(1, binary(net, out(added), net.constant(5.0), "SUM"))
    plus = out(inner.add_loop_output(out(added), LOOP.LAST_VALUE))
    minus = binary(net, binary(net, entry, entry, "SUM"), net.constant(20.0), "SUB")
    state.set_input(1, out(fork.add_output(plus, minus)))
    (got,) = net.evaluate(out(loop.add_loop_output(out(state), LOOP.LAST_VALUE)))
    value = -3.0
    for _ in range(6):
        value = value + 10 if value < 0 else 2 * value - 20
    assert got.item() == value


def test_assertions() -> None:
    for taken, text in ((True, None), (False, "assertion failed: sizes differ")):
        net = Net()
        net.network.add_assertion(net.input(torch.tensor([True, taken])), "sizes differ")
        tensor = out(net.network.add_identity(net.input(torch.ones(2))))
        if text is None:
            assert net.evaluate(tensor)[0].tolist() == [1, 1]
        else:
            with pytest.raises(EngineError, match=text):
                net.evaluate(tensor)


def test_an_assertion_in_a_branch_is_refused() -> None:
    net = Net()

    def checked(entry: Any) -> Any:
        net.network.add_assertion(entry, "never")
        return out(net.network.add_identity(entry))

    flag = torch.tensor(True)
    result = branches(net, flag, flag, checked, checked)
    with pytest.raises(UnsupportedError, match="inside a loop or a branch"):
        net.evaluate(result)


def test_a_recurrence_that_changes_its_shape_is_refused() -> None:
    net = Net()
    loop = net.network.add_loop()
    loop.add_trip_limit(net.constant(i32(2)), TRIP.COUNT)
    state = loop.add_recurrence(net.input(torch.ones(2), (-1,)))
    layer = net.network.add_concatenation([out(state), out(state)])
    state.set_input(1, out(layer))
    with pytest.raises(EngineError, match=r"float32\[2\] to torch.float32\[4\]"):
        net.evaluate(out(loop.add_loop_output(out(state), LOOP.LAST_VALUE)))


def test_a_tensor_of_a_loop_has_no_value_outside() -> None:
    net = Net()
    loop = net.network.add_loop()
    loop.add_trip_limit(net.constant(i32(2)), TRIP.COUNT)
    state = loop.add_recurrence(net.constant(torch.ones(2)))
    inside = binary(net, out(state), out(state), "SUM")
    state.set_input(1, inside)
    with pytest.raises(EngineError, match="has no value here"):
        net.evaluate(inside)
