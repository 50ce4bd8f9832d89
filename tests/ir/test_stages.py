import itertools

import pytest

from rewright.errors import VerificationError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.ops import get_op
from rewright.ir.stages import KEPT, STAGES, check_stage, is_composite
from rewright.ir.types import ScalarType, TensorType
from tests.ir.building import f32, flag, program


def violations(op, *args, stage="imported"):
    """What is wrong with a graph of one node, whose operands are given by their types."""
    graph = Graph()

    def put(item):
        if isinstance(item, list):
            return [put(part) for part in item]
        return graph.add_input(item) if isinstance(item, TensorType) else item

    Builder(graph).call(op, *map(put, args))
    return [str(violation) for violation in check_stage(graph, stage)]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (("aten.view", f32(4), [2, 2]), "aten.reshape says the same"),
        (("aten._unsafe_view", f32(4), [2, 2]), "aten.reshape says the same"),
        (("aten.flatten.using_ints", f32(2, 2)), "aten.reshape says the same"),
        (("aten.detach", f32(4)), "its operand says the same"),
        (("aten.clone", f32(4)), "its operand says the same"),
        (("aten.contiguous", f32(4)), "its operand says the same"),
        (("aten.lift_fresh_copy", f32(4)), "its operand says the same"),
        (("aten.add_.Tensor", f32(4), f32(4)), "mutates an argument"),
        (("aten.copy_", f32(4), f32(4)), "mutates an argument"),
        (("aten.dropout", f32(4), 0.5, True), "this is training"),
        (
            ("aten.batch_norm", f32(2, 4), None, None, f32(4), f32(4), True, 0.1, 1e-5, False),
            "this is training",
        ),
    ],
    ids=lambda item: item[0] if isinstance(item, tuple) else "",
)
def test_what_import_leaves_out(call, why):
    (found,) = violations(*call)
    assert found.startswith(f"{call[0]} may not appear: it ")
    assert why in found


@pytest.mark.parametrize(
    "call",
    [
        ("aten.reshape", f32(4), [2, 2]),
        ("aten.dropout", f32(4), 0.5, False),
        ("aten.batch_norm", f32(2, 4), None, None, f32(4), f32(4), False, 0.1, 1e-5, False),
        ("aten.batch_norm", f32(2, 4), None, None, None, None, True, 0.1, 1e-5, False),
        ("rw.functional.aten.add_.Tensor", f32(4), f32(4)),
        ("rw.linear", f32(2, 4), f32(3, 4)),
        ("rw.scalar", 3),
        ("aten.linear", f32(2, 4), f32(3, 4)),
        ("aten.einsum", "ij->ji", [f32(2, 2)]),
    ],
    ids=lambda call: call[0],
)
def test_what_may_stay_after_import(call):
    assert violations(*call) == []


def test_sizes_are_not_asked_of_tensors():
    graph, (x,) = program(f32(4))
    Builder(graph).call("aten.sym_size.int", x, 0, types=[ScalarType("int", 4)])
    (found,) = check_stage(graph, "imported")
    assert "sizes are expressions in attributes" in found.reason
    assert found.node is next(iter(graph))


def test_modes_and_functionalised_mutations_are_not_left_around_a_subgraph():
    for name, why in {
        "higher_order.wrap_with_set_grad_enabled": "sets a mode",
        "higher_order.auto_functionalized_v2": "write-backs say the same",
    }.items():
        graph, (x,) = program(f32(4))
        Builder(graph).call(name, x, types=[f32(4)])
        (found,) = check_stage(graph, "imported")
        assert why in found.reason


def test_composite_ops_are_gone_after_decomposition_but_for_those_kept():
    assert violations("aten.linear", f32(2, 4), f32(3, 4), stage="decomposed") == []
    assert violations("aten.addmm", f32(3), f32(2, 4), f32(4, 3), stage="decomposed") == []
    (found,) = violations("aten.square", f32(4), stage="decomposed")
    assert "made of simpler ops" in found
    assert violations("aten.square", f32(4), stage="imported") == []


def test_fused_graphs_use_our_words():
    (found,) = violations("aten.linear", f32(2, 4), f32(3, 4), stage="fused")
    assert found == "aten.linear may not appear: it is rw.linear in other words"
    how = (None, [1], [0], [1], False, [0], 1)
    (found,) = violations("aten.convolution", f32(1, 4, 5), f32(3, 4, 1), *how, stage="fused")
    assert "rw.conv" in found
    assert violations("rw.linear", f32(2, 4), f32(3, 4), stage="fused") == []


def _segment(inner):
    """A graph with a segment around what `inner` builds from one value."""
    region, (x,) = program(f32(4), name="body")
    region.set_outputs([inner(Builder(region), x)])
    graph, (y,) = program(f32(4))
    Builder(graph).call("rw.segment", [y], region, backend="torch")
    return graph


def test_the_body_of_a_segment_has_its_own_form():
    graph = _segment(lambda build, x: build.call("aten.square", x))
    (found,) = check_stage(graph, "decomposed")
    assert found.node.op.name == "aten.square"
    assert check_stage(graph, "imported") == []
    assert check_stage(_segment(lambda build, x: build.call("aten.relu", x)), "fused") == []


def test_segments_do_not_nest():
    deepest, (z,) = program(f32(4), name="deepest")
    deepest.set_outputs([z])
    graph = _segment(lambda build, x: build.call("rw.segment", [x], deepest, backend="torch")[0])
    (found,) = check_stage(graph, "fused")
    assert "don't nest" in found.reason


def test_recipes_and_regions_are_held_to_the_form_too():
    graph, (x,) = program(f32(4))
    weight = graph.add_constant("w", f32(2, 2))
    flat = Builder(graph.prepare).call("aten.view", weight, [4])
    graph.add_prepared("flat", flat)
    assert [v.node.op.name for v in check_stage(graph, "imported")] == ["aten.view"]

    branches = []
    for op in ("aten.relu", "aten.clone"):
        branch, (value,) = program(f32(4), name=op)
        branch.set_outputs([Builder(branch).call(op, value)])
        branches.append(branch)
    graph, (x,) = program(f32(4))
    pred = graph.add_input(flag())
    Builder(graph).call("higher_order.cond", pred, *branches, [x])
    assert [v.node.op.name for v in check_stage(graph, "imported")] == ["aten.clone"]


def test_each_stage_forbids_what_the_one_before_did():
    names = list(STAGES)
    assert names == ["imported", "decomposed", "fused", "segment"]
    for before, after in itertools.pairwise(names):
        assert set(STAGES[before]) <= set(STAGES[after])


def test_a_new_graph_is_imported():
    assert Graph().stage in STAGES


def test_unknown_stages_are_refused_with_the_nearest_known():
    with pytest.raises(VerificationError, match=r"no stage 'decompose'[\s\S]*'decomposed'"):
        check_stage(Graph(), "decompose")


@pytest.mark.parametrize("name", sorted(KEPT))
def test_what_is_kept_is_a_composite_op_of_torch(name):
    assert is_composite(get_op(name))
