import pytest

from rewright.errors import InferenceError
from rewright.ir.builder import Builder
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import ScalarType, TensorType
from tests.ir.building import S0, S1, f32, flag, i64, program

U0 = symbol("u0")


def region(body, *types):
    """A region of inputs of `types` that returns what `body(build, *inputs)` does."""
    graph, inputs = program(*types, name="body")
    returned = body(Builder(graph), *inputs)
    graph.set_outputs(returned if isinstance(returned, tuple | list) else [returned])
    return graph


def unary(op, *types, args=()):
    return region(lambda build, x, *_: build.call(op, x, *args), *types)


def result_types(op, *args, inputs=(), **kwargs):
    """The types of a call whose arguments may be numbers: the input of that number."""
    graph, values = program(*inputs)

    def put(item):
        if isinstance(item, list):
            return [put(part) for part in item]
        return values[item] if type(item) is int else item

    results = Builder(graph).call(op, *map(put, args), **kwargs)
    return [value.type for value in results], graph


def test_a_segment_has_the_types_of_its_body_in_the_sizes_outside():
    body = unary("aten.reshape", f32(S0, 4), args=([4 * S0],))
    types, _ = result_types("rw.segment", [0], body, backend="torch", inputs=[f32(S1 + 2, 4)])
    assert types == [f32(4 * S1 + 8)]


def test_sizes_inside_and_outside_may_trade_names():
    body = region(lambda build, x, y: (x, y), f32(S0, S1), f32(S1))
    given = [f32(S1, S0), f32(S0)]
    types, _ = result_types("rw.segment", [0, 1], body, backend="torch", inputs=given)
    assert types == given


def test_sizes_passed_as_numbers():
    body = region(
        lambda build, x, n: build.call("aten.expand", x, [S1, 4]), f32(1, 4), ScalarType("int", S1)
    )
    types, _ = result_types("rw.segment", [0, 2 * S0], body, backend="torch", inputs=[f32(1, 4)])
    assert types == [f32(2 * S0, 4)]


def test_sizes_behind_an_equation():
    body = unary("aten.relu", f32(2 * S0 + 1))
    types, _ = result_types("rw.segment", [0], body, backend="torch", inputs=[f32(2 * S0 + 1)])
    assert types == [f32(2 * S0 + 1)]


def test_a_size_made_inside_is_one_made_here():
    body = unary("aten.nonzero", f32(S0, 4))
    types, graph = result_types("rw.segment", [0], body, backend="torch", inputs=[f32(S0, 4)])
    assert types == [i64(U0, 2)]
    assert graph.symbols[U0].ranges == (Range(0, None, 256),)


@pytest.mark.parametrize(
    ("no", "expected"),
    [
        (lambda build, x: build.call("aten.neg", x), f32(S0, 4)),
        (lambda build, x: build.call("aten.slice.Tensor", x, 1, 1), f32(S0, U0)),
        (lambda build, x: build.call("aten.cat", [x, x]), f32(U0, 4)),
    ],
)
def test_cond(no, expected):
    branches = [unary("aten.relu", f32(S0, 4)), region(no, f32(S0, 4))]
    types, graph = result_types("higher_order.cond", 0, *branches, [1], inputs=[flag(), f32(S0, 4)])
    assert types == [expected]
    if U0 in graph.symbols:
        assert graph.symbols[U0].ranges[0].max in (4, 128)


def test_branches_that_return_other_dtypes_or_ranks():
    for other in (("aten.eq.Scalar", 0), ("aten.sum",)):
        branches = [unary("aten.relu", f32(4)), unary(other[0], f32(4), args=other[1:])]
        with pytest.raises(InferenceError, match="no type in common"):
            result_types("higher_order.cond", 0, *branches, [1], inputs=[flag(), f32(4)])


def test_while_loop():
    test = region(lambda build, i, x: build.call("aten.lt.Scalar", i, 3), i64(), f32(S0))
    body = region(
        lambda build, i, x: (build.call("aten.add.Tensor", i, 1), build.call("aten.relu", x)),
        i64(),
        f32(S0),
    )
    inputs = [i64(), f32(S0)]
    types, _ = result_types("higher_order.while_loop", test, body, [0, 1], [], inputs=inputs)
    assert types == inputs


def test_a_size_that_a_loop_changes_is_not_the_one_before():
    test = region(lambda build, x: build.call("aten.any", x), f32(S0))
    grow = region(lambda build, x: build.call("aten.cat", [x, x]), f32(S0))
    types, _ = result_types("higher_order.while_loop", test, grow, [0], [], inputs=[f32(S0)])
    assert types == [f32(U0)]


def test_scan_carries_and_stacks():
    step = region(
        lambda build, carry, x, w: (
            build.call("aten.add.Tensor", carry, x),
            build.call("aten.mul.Tensor", x, w),
        ),
        f32(4),
        f32(4),
        f32(4),
    )
    inputs = [f32(4), f32(S0, 4), f32(4)]
    types, _ = result_types("higher_order.scan", step, [0], [1], [2], inputs=inputs)
    assert types == [f32(4), f32(S0, 4)]


def test_map():
    body = unary("aten.sum", f32(4), f32(4))
    types, _ = result_types("higher_order.map_impl", body, [0], [1], inputs=[f32(S0, 4), f32(4)])
    assert types == [f32(S0)]


def test_arguments_that_are_none():
    body = region(lambda build, x: build.call("aten.relu", x), f32(4))
    with pytest.raises(InferenceError, match="takes 1 inputs, not 2"):
        result_types("rw.segment", [0, None], body, backend="torch", inputs=[f32(4)])


def test_ops_with_regions_and_no_rule_need_types():
    body = unary("aten.relu", f32(4))
    with pytest.raises(InferenceError, match="no rule for the types"):
        result_types("higher_order.flex_attention", body, 0, inputs=[f32(4)])
    graph, (x,) = program(f32(4))
    (y,) = Builder(graph).call("higher_order.flex_attention", body, x, types=[f32(4)])
    assert isinstance(y.type, TensorType)
