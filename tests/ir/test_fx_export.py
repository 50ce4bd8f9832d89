import copy

import pytest
import torch
from hypothesis import given, settings
from torch._inductor import standalone_compile
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._sympy.functions import (
    CeilDiv,
    FloorDiv,
    Max,
    Min,
    Mod,
    ModularIndexing,
    Where,
)

from rewright.errors import InputError
from rewright.ir.attributes import Opaque
from rewright.ir.builder import Builder
from rewright.ir.fx_export import constant_inputs, size_inputs, to_fx
from rewright.ir.interpreter import interpret, prepare_constants
from rewright.ir.location import Location
from rewright.ir.ops import functional_form
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import ScalarType
from tests.ir.building import S0, S1, f32, flag, i64, program
from tests.ir.programs import programs
from tests.ir.test_region_types import region, unary


def targets(module):
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def placeholders(module):
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def same(module, graph, *inputs):
    """`module` gives what the interpreter does; returns that."""
    reference = interpret(graph, inputs)
    expected = [*reference.outputs, *reference.writebacks]
    result = module(*inputs)
    assert len(result) == len(expected)
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    return expected


def mlp():
    """A small program: sizes, constants, a recipe, ops of ours, a write-back."""
    torch.manual_seed(0)
    graph, (x,) = program(f32(S0, 3, 4), s0=Range(2, 6, 64))
    w = graph.add_constant("up.weight", f32(8, 4), data=torch.randn(8, 4))
    b = graph.add_constant("up.bias", f32(8), data=torch.randn(8))
    count = graph.add_constant("count", f32(), kind="buffer", data=torch.zeros(()))
    ready = graph.add_prepared("ready", Builder(graph.prepare).call("aten.mul.Tensor", w, 0.5))
    build = Builder(graph, loc=Location("model.py", 41, "layers.3.mlp"))
    hidden = build.call("rw.linear", x, ready, b)
    gate, up = build.call("aten.split.Tensor", hidden, 4, 2)
    y = build.call("rw.rms_norm", build.call("rw.gated", gate, up))
    flat = build.call("aten.reshape", y, [S0 * 3, 4])
    new = build.call("aten.add.Tensor", count, 1.0)
    graph.set_outputs([flat, build.call("rw.scalar", 2 * S0)], writebacks=[(count, new)])
    return graph


def test_the_module_computes_what_the_graph_does():
    graph = mlp()
    module = to_fx(graph)
    for size in (2, 5):
        same(module, graph, torch.randn(size, 3, 4))
    assert torch.ops.aten.split.Tensor in targets(module)
    module.graph.lint()


def test_sources_are_held_not_copied_and_recipes_are_part_of_the_module():
    graph = mlp()
    module = to_fx(graph)
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert held.keys() == {"up.weight", "up.bias", "count"}
    for name, tensor in held.items():
        assert tensor.data_ptr() == graph.constants[name].data.data_ptr()
        assert not tensor.requires_grad
    assert torch.ops.aten.mul.Tensor in targets(module)
    graph.constants["up.weight"].data.add_(1.0)  # is seen: nothing was computed ahead
    same(module, graph, torch.randn(2, 3, 4))


def test_constants_as_inputs():
    graph = mlp()
    module = to_fx(graph, constants="inputs")
    assert [c.name for c in constant_inputs(graph)] == ["up.bias", "count", "ready"]
    assert [n.target for n in placeholders(module)] == ["x0", "up_bias", "count", "ready"]
    assert not list(module.named_parameters()) + list(module.named_buffers())
    x, known = torch.randn(3, 3, 4), prepare_constants(graph)
    reference = interpret(graph, [x])
    result = module(x, *(known[c.name] for c in constant_inputs(graph)))
    torch.testing.assert_close(result[0], reference.outputs[0])


def test_a_source_without_data_can_only_be_an_input():
    graph = mlp()
    graph.constants["up.bias"].data = None
    with pytest.raises(InputError, match=r"@up\.bias has no data"):
        to_fx(graph)
    to_fx(graph, constants="inputs")


def test_sizes_as_inputs():
    graph, (x,) = program(f32(2 * S0 + 1))
    graph.set_outputs([Builder(graph).call("aten.full", [S0], 2.0), x])
    assert size_inputs(graph) == (S0,)
    module = to_fx(graph, sizes="inputs")
    assert [n.target for n in placeholders(module)] == ["s0", "x0"]
    assert torch.ops.aten.sym_size.int not in targets(module)
    assert module(3, torch.ones(7))[0].tolist() == [2.0] * 3
    same(to_fx(graph), graph, torch.ones(7))


def test_every_node_says_its_fake_value_and_where_it_comes_from():
    module = to_fx(mlp())
    modes = set()
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        for value in torch.utils._pytree.tree_leaves(node.meta["val"]):
            if isinstance(value, FakeTensor):
                modes.add(value.fake_mode)
    assert len(modes) == 1
    (x,) = placeholders(module)
    assert x.meta["val"].shape[1:] == (3, 4)
    assert x.meta["val"].shape[0].node.hint == 6
    assert len({id(n.meta["val"]) for n in module.graph.nodes if "val" in n.meta}) > 8
    linear = next(n for n in module.graph.nodes if getattr(n.target, "__name__", "") == "linear")
    assert linear.meta["stack_trace"] == '  File "model.py", line 41, in forward\n'
    assert list(linear.meta["nn_module_stack"]) == ["layers.3.mlp"]
    assert tuple(linear.meta["val"].shape)[1:] == (3, 8)


@settings(max_examples=25, deadline=None)
@given(programs())
def test_any_program_computes_the_same_as_fx(made):
    graph, inputs = made.graph, made.inputs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = interpret(graph, inputs)
        torch.manual_seed(0)
        result = to_fx(graph)(*inputs)
    expected = [*reference.outputs, *reference.writebacks]
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_inputs_of_any_names():
    graph, inputs = program(*[f32(2)] * 5)
    for value, name in zip(inputs, ("self", "torch", "a.b", "a_b", "0"), strict=True):
        value.hint = name
    total = Builder(graph).call("aten.cat", inputs)
    graph.set_outputs([total])
    same(to_fx(graph), graph, *(torch.randn(2) for _ in inputs))


# ---- sizes


@pytest.mark.parametrize(
    "expr",
    [
        S0 + 3,
        S0 - S1,
        2 * S0 * S1,
        S0**2,
        -S0,
        S0 // 2,
        (S0 + 1) // S1,
        S0 % 3,
        S0 * S1 / 2,
        Max(S0, S1, 5),
        Min(S0 + 1, S1),
        FloorDiv(S0, 2),
        CeilDiv(S0 + 1, S1),
        Mod(S0, S1),
        ModularIndexing(S0, 2, S1),
        Where(S0 > S1, S0, 7),
    ],
    ids=str,
)
def test_size_arithmetic(expr):
    graph, (x,) = program(f32(S0, S1))
    graph.set_outputs([Builder(graph).call("rw.scalar", expr), x])
    for shape in ((6, 4), (3, 8)):
        same(to_fx(graph), graph, torch.ones(shape))


def test_sizes_that_only_a_run_tells():
    graph, (x,) = program(f32(S0))
    build = Builder(graph)
    where = build.call("aten.nonzero", x)
    total = build.call("aten.item", build.call("aten.sum", x))
    u0, f0 = symbol("u0"), symbol("f0")
    graph.set_outputs([build.call("aten.full", [u0 + 1], f0), total, where])
    same(to_fx(graph), graph, torch.tensor([0.0, 2.0, 3.0]))


# ---- regions and pure forms


def test_cond_takes_its_branches_as_submodules():
    graph, (pred, x) = program(flag(), f32(S0, 4))
    branches = [
        unary("aten.relu", f32(S0, 4)),
        region(lambda build, x: build.call("aten.full", [S0, 4], 9.0), f32(S0, 4)),
    ]
    (y,) = Builder(graph).call("higher_order.cond", pred, *branches, [x])
    graph.set_outputs([y])
    module = to_fx(graph)
    assert [name for name, _ in module.named_children()] == ["region_0", "region_1"]
    for value in (True, False):
        same(module, graph, torch.tensor(value), torch.randn(3, 4))


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
    graph.set_outputs(Builder(graph).call("higher_order.while_loop", test, body, [i, x], []))
    same(to_fx(graph), graph, torch.tensor(0), torch.ones(5))


def test_segments_stand_inline():
    body = region(
        lambda build, x, n: build.call("aten.full", [S1], 2.0), f32(S0), ScalarType("int", S1)
    )
    graph, (x,) = program(f32(S0))
    graph.set_outputs(
        Builder(graph).call("rw.segment", [x, 2 * S0], body, backend="torch"),
    )
    module = to_fx(graph)
    assert torch.ops.aten.full.default in targets(module)
    same(module, graph, torch.ones(3))


def test_pure_forms_of_mutating_ops():
    graph, (x, i, v) = program(f32(4), i64(2), f32(2))
    form = functional_form(torch.ops.aten.index_put_.default)
    graph.set_outputs(Builder(graph).call(form, x, [i], v))
    given = torch.zeros(4)
    same(to_fx(graph), graph, given, torch.tensor([1, 3]), torch.tensor([5.0, 6.0]))
    assert given.tolist() == [0.0] * 4


def test_lists_among_the_results():
    graph, (x, y) = program(f32(2), f32(2))
    form = functional_form(torch.ops.aten._foreach_add_.Scalar)
    graph.set_outputs(Builder(graph).call(form, [x, y], 1.0))
    same(to_fx(graph), graph, torch.zeros(2), torch.ones(2))


def test_objects_are_attributes_of_the_module():
    generator = torch.Generator()
    graph, _ = program()
    kept = Opaque(generator, "generator")
    graph.set_outputs([Builder(graph).call("aten.rand.generator", [3], generator=kept)])
    module = to_fx(graph)
    assert module.object_0 is generator
    results = []
    for run in (lambda: interpret(graph, []).outputs, module):
        generator.manual_seed(3)
        results += run()
    assert torch.equal(*results)


def test_modules_can_be_copied():
    graph = mlp()
    same(copy.deepcopy(to_fx(graph)), graph, torch.randn(3, 3, 4))


# ---- Inductor


def compiled(graph, *inputs, **how):
    """`graph` by Inductor, for the sizes of `inputs` or, without any, for all."""
    module = to_fx(graph, **how)
    examples = inputs or [node.meta["val"] for node in placeholders(module)]
    return standalone_compile(module, list(examples), dynamic_shapes="from_graph")


def check_compiled(run, graph, *inputs, lead=()):
    reference = interpret(graph, inputs)
    for ours, theirs in zip(
        run(*lead, *inputs), (*reference.outputs, *reference.writebacks), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_inductor_for_one_size():
    graph = mlp()
    x = torch.randn(6, 3, 4)
    check_compiled(compiled(graph, x), graph, x)


@pytest.mark.slow
def test_inductor_for_all_sizes():
    graph = mlp()
    run = compiled(graph)
    for size in (2, 5, 9):
        check_compiled(run, graph, torch.randn(size, 3, 4))


@pytest.mark.slow
def test_inductor_with_sizes_behind_an_equation():
    graph, (x,) = program(f32(2 * S0 + 1))
    build = Builder(graph)
    first = build.call("aten.slice.Tensor", x, 0, 0, S0)
    graph.set_outputs([build.call("aten.mul.Tensor", first, 3.0)])
    run = compiled(graph, sizes="inputs")
    for size in (2, 5):
        check_compiled(run, graph, torch.randn(2 * size + 1), lead=(size,))


@pytest.mark.slow
def test_inductor_with_sizes_that_only_a_run_tells_and_a_branch():
    graph, (x, pred) = program(f32(S0), flag())
    build = Builder(graph)
    where = build.call("aten.nonzero", x)
    branches = [unary("aten.relu", f32(S0)), unary("aten.neg", f32(S0))]
    (y,) = build.call("higher_order.cond", pred, *branches, [x])
    graph.set_outputs([build.call("aten.mul.Tensor", where, 2), y])
    run = compiled(graph)
    for value in (True, False):
        check_compiled(run, graph, torch.tensor([0.0, 2.0, -3.0, 0.0]), torch.tensor(value))
