import gc
import weakref

import pytest
import torch

from rewright.errors import InputError, RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret, prepare_constants
from rewright.ir.ops import functional_form
from rewright.ir.sizes import symbol
from rewright.ir.types import ScalarType, TensorType
from rewright.ir.verifier import verify
from tests.ir.building import S0, S1, f32, flag, i64, program
from tests.ir.test_region_types import region, unary


def returning(graph, *values, **how):
    graph.set_outputs(values, **how)
    verify(graph, retype=True)
    return graph


def outputs(graph, *inputs, **how):
    return interpret(graph, inputs, **how).outputs


def test_ops_run_in_order_by_what_torch_says_they_are():
    graph, (x, y) = program(f32(S0, 4), f32(4))
    build = Builder(graph)
    product = build.call("aten.mul.Tensor", x, y)
    low, high = build.call("aten.split.Tensor", product, 2, 1)
    returning(graph, build.call("aten.cat", [high, low], 1), build.call("rw.rms_norm", x))
    a, b = torch.randn(3, 4), torch.randn(4)
    first, second = outputs(graph, a, b)
    assert torch.equal(first, torch.cat([(a * b)[:, 2:], (a * b)[:, :2]], 1))
    torch.testing.assert_close(second, torch.nn.functional.rms_norm(a, (4,), eps=1e-6))


def test_sizes_are_numbers_when_it_runs():
    graph, (x, n) = program(f32(2 * S0, 4), ScalarType("int", S1))
    build = Builder(graph)
    returning(
        graph,
        build.call("aten.reshape", x, [S0, 8]),
        build.call("aten.full", [S1 // 2 + 1], 3.0),
        build.call("rw.scalar", S0 * S1),
        n,
    )
    a, b, c, d = outputs(graph, torch.arange(24.0).reshape(6, 4), 7)
    assert (a.shape, b.shape, c, d) == ((3, 8), (4,), 21, 7)


def test_numbers_that_only_a_run_tells():
    graph, (x,) = program(f32(S0))
    build = Builder(graph)
    where = build.call("aten.nonzero", x)
    total = build.call("aten.item", build.call("aten.sum", x))
    some = build.call("aten.item", build.call("aten.any", x))
    u0, u1, f0 = symbol("u0"), symbol("u1"), symbol("f0")
    returning(
        graph,
        build.call("aten.full", [u0, 2], f0),
        build.call("rw.scalar", u0 + 10 * u1),
        total,
        some,
        where,
    )
    full, number, total, some, where = outputs(graph, torch.tensor([0.0, 2.0, 3.0]))
    assert torch.equal(full, torch.full((2, 2), 5.0))
    assert (number, total, some) == (12, 5.0, True)
    assert where.tolist() == [[1], [2]]


def test_constants_are_prepared_first():
    graph, (x,) = program(f32(2, 4))
    w = graph.add_constant("w", f32(3, 4), data=torch.randn(3, 4), aliases=["tied"])
    unused = graph.add_constant("unused", f32(3))
    build = Builder(graph.prepare)
    both = graph.add_prepared("both", build.call("aten.cat", [w, build.call("aten.neg", w)]))
    returning(graph, Builder(graph).call("rw.linear", x, both), w)
    a = torch.randn(2, 4)
    linear = torch.nn.functional.linear
    result, same = outputs(graph, a)
    torch.testing.assert_close(result, linear(a, torch.cat([w.data, -w.data])))
    assert same is w.data
    known = prepare_constants(graph)
    assert known.keys() == {"w", "both"}
    other = torch.randn(3, 4)
    for name in ("w", "tied"):
        result, _ = outputs(graph, a, constants={name: other})
        torch.testing.assert_close(result, linear(a, torch.cat([other, -other])))
    result, _ = outputs(graph, a, constants={"both": torch.zeros(6, 4)})
    assert torch.equal(result, torch.zeros(2, 6))
    w.data = None
    with pytest.raises(InputError, match="@w has no data") as caught:
        outputs(graph, a)
    assert caught.value.name == "w"
    assert unused.data is None


def test_write_backs_are_returned_and_nothing_is_written():
    graph, (x,) = program(f32(4))
    state = graph.add_constant("state", f32(4), kind="buffer", data=torch.zeros(4))
    new = Builder(graph).call("aten.add.Tensor", state, x)
    returning(graph, new, writebacks=[(state, new), (x, state)])
    a = torch.ones(4)
    result = interpret(graph, [a])
    assert torch.equal(result.outputs[0], torch.ones(4))
    assert [t.tolist() for t in result.writebacks] == [[1.0] * 4, [0.0] * 4]
    assert a.tolist() == [1.0] * 4
    assert state.data.tolist() == [0.0] * 4


def test_pure_forms_of_mutating_ops_leave_their_operands_alone():
    graph, (x, i, v) = program(f32(4), i64(2), f32(2))
    form = functional_form(torch.ops.aten.index_put_.default)
    (new,) = Builder(graph).call(form, x, [i], v)
    returning(graph, new)
    a = torch.zeros(4)
    (result,) = outputs(graph, a, torch.tensor([1, 3]), torch.tensor([5.0, 6.0]))
    assert result.tolist() == [0, 5, 0, 6]
    assert a.tolist() == [0, 0, 0, 0]


def test_pure_forms_that_mutate_a_list():
    graph, (x, y) = program(f32(2), f32(2))
    form = functional_form(torch.ops.aten._foreach_add_.Scalar)
    values = Builder(graph).call(form, [x, y], 1.0)
    returning(graph, *values)
    a, b = torch.zeros(2), torch.ones(2)
    assert [t.tolist() for t in outputs(graph, a, b)] == [[1, 1], [2, 2]]
    assert (a.tolist(), b.tolist()) == ([0, 0], [1, 1])


# ---- regions


def conditional():
    graph, (pred, x) = program(flag(), f32(S0, 4))
    branches = [
        unary("aten.relu", f32(S0, 4)),
        region(lambda build, x: build.call("aten.full", [S0, 4], 9.0), f32(S0, 4)),
    ]
    (y,) = Builder(graph).call("higher_order.cond", pred, *branches, [x])
    return returning(graph, y)


def test_cond():
    a = torch.randn(3, 4)
    assert torch.equal(outputs(conditional(), torch.tensor(True), a)[0], a.relu())
    assert torch.equal(outputs(conditional(), torch.tensor(False), a)[0], torch.full((3, 4), 9.0))


def test_cond_with_sizes_as_operands():
    graph, (pred, x) = program(flag(), f32(S0))
    fill = region(
        lambda build, x, n: build.call("aten.full", [S1], 1.0), f32(S0), ScalarType("int", S1)
    )
    keep = region(lambda build, x, n: x, f32(S0), ScalarType("int", S1))
    (y,) = Builder(graph).call("higher_order.cond", pred, fill, keep, [x, S0])
    graph.set_outputs([y])
    assert torch.equal(outputs(graph, torch.tensor(True), torch.zeros(3))[0], torch.ones(3))


def test_while_loop():
    test = region(lambda build, i, x: build.call("aten.lt.Scalar", i, 3), i64(), f32(S0))
    body = region(
        lambda build, i, x: (
            build.call("aten.add.Tensor", i, 1),
            build.call("aten.mul.Tensor", x, 2.0),
        ),
        i64(),
        f32(S0),
    )
    graph, (i, x) = program(i64(), f32(S0))
    returning(graph, *Builder(graph).call("higher_order.while_loop", test, body, [i, x], []))
    count, result = outputs(graph, torch.tensor(0), torch.ones(5))
    assert (count.item(), result.tolist()) == (3, [8.0] * 5)


def test_scan():
    step = region(
        lambda build, carry, x: (
            build.call("aten.add.Tensor", carry, x),
            build.call("aten.mul.Tensor", carry, x),
        ),
        f32(2),
        f32(2),
    )
    graph, (init, xs) = program(f32(2), f32(S0, 2))
    returning(graph, *Builder(graph).call("higher_order.scan", step, [init], [xs], []))
    carry, ys = outputs(graph, torch.ones(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert carry.tolist() == [5.0, 7.0]
    assert ys.tolist() == [[1.0, 2.0], [6.0, 12.0]]


def test_map():
    body = region(lambda build, x, w: build.call("aten.mul.Tensor", x, w), f32(2), f32(2))
    graph, (xs, w) = program(f32(S0, 2), f32(2))
    returning(graph, *Builder(graph).call("higher_order.map_impl", body, [xs], [w]))
    (result,) = outputs(graph, torch.ones(3, 2), torch.tensor([2.0, 3.0]))
    assert result.tolist() == [[2.0, 3.0]] * 3


def test_segments():
    body = region(
        lambda build, x, n: (build.call("aten.neg", x), build.call("rw.scalar", S1)),
        f32(S0),
        ScalarType("int", S1),
    )
    graph, (x,) = program(f32(S0))
    returning(graph, *Builder(graph).call("rw.segment", [x, 2 * S0], body, backend="torch"))
    negative, number = outputs(graph, torch.ones(3))
    assert (negative.tolist(), number) == ([-1.0] * 3, 6)


# ---- what is kept, what is seen


def test_values_are_dropped_after_their_last_use():
    graph, (x,) = program(f32(4))
    build = Builder(graph)
    y = build.call("aten.neg", x)
    z = build.call("aten.exp", y)
    returning(graph, build.call("aten.abs", z), build.call("aten.cos", x))
    alive, refs = {}, {}

    def observe(node, results):
        refs[node.op.name] = weakref.ref(results[0])
        del results
        gc.collect()
        alive[node.op.name] = {name for name, ref in refs.items() if ref() is not None}

    interpret(graph, [torch.ones(4)], observe=observe)
    # What is being observed is alive itself.
    assert alive["aten.exp"] - {"aten.exp"} == set()
    assert alive["aten.abs"] - {"aten.abs"} == set()


def test_observers_see_every_node_those_in_regions_too():
    seen = []
    graph = conditional()
    outputs(
        graph,
        torch.tensor(True),
        torch.zeros(1, 4),
        observe=lambda node, results: seen.append((node.op.name, len(results))),
    )
    assert seen == [("aten.relu", 1), ("higher_order.cond", 1)]


def test_gradients_are_off():
    graph, (x,) = program(f32(4))
    returning(graph, Builder(graph).call("aten.neg", x))
    (result,) = outputs(graph, torch.ones(4, requires_grad=True))
    assert not result.requires_grad


def test_a_wrong_number_of_results_names_the_node():
    graph, (x,) = program(f32(4))
    values = Builder(graph).call("aten.split.Tensor", x, 2, types=[f32(2)] * 3)
    graph.set_outputs(values)
    with pytest.raises(RewrightError, match=r"aten.split.Tensor gave 2 results, not 3"):
        outputs(graph, torch.ones(4))


def test_wrong_inputs_are_refused_before_anything_runs():
    graph, (x,) = program(f32(4))
    returning(graph, Builder(graph).call("aten.neg", x))
    ran = []
    with pytest.raises(InputError):
        interpret(graph, [torch.ones(5)], observe=lambda *_: ran.append(1))
    assert not ran


def test_an_empty_graph():
    assert interpret(Graph(), []).outputs == ()


def test_results_of_several_devices_are_as_torch_gives_them():
    graph, (x,) = program(TensorType(torch.float32, (2,), "meta"))
    returning(graph, Builder(graph).call("aten.neg", x))
    (result,) = outputs(graph, torch.ones(2, device="meta"))
    assert result.device.type == "meta"
