import pytest
import sympy
import torch

from rewright.errors import InferenceError, RewrightError
from rewright.ir.attributes import Opaque, Operand, Record, RegionRef
from rewright.ir.builder import Builder, bind_operands, make_node, solvable
from rewright.ir.graph import Graph
from rewright.ir.location import Location
from rewright.ir.ops import get_op
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import ScalarType
from tests.ir.building import S0, S1, f32, i64, program


def test_values_become_operands_and_the_rest_stays_attributes():
    graph, (x, y) = program(f32(2, 3), f32(3))
    z = Builder(graph).call("aten.add.Tensor", x, y, alpha=2)
    assert z.producer.operands == (x, y)
    assert dict(z.producer.attributes) == {"self": Operand(0), "other": Operand(1), "alpha": 2}
    assert z.type == f32(2, 3)
    assert x.uses == ((z.producer, 0),)


def test_arguments_left_at_their_default_are_no_attributes():
    graph, (x, y) = program(f32(2), f32(2))
    z = Builder(graph).call("aten.add.Tensor", x, y, alpha=1)
    assert "alpha" not in z.producer.attributes


def test_values_are_found_in_lists_and_equal_wiring_has_equal_attributes():
    graph, (x, y) = program(f32(2), f32(2))
    build = Builder(graph)
    a, b = build.call("aten.cat", [x, y]), build.call("aten.cat", [x, x])
    assert a.producer.attributes == b.producer.attributes
    assert a.producer.attributes["tensors"] == (Operand(0), Operand(1))
    assert b.producer.operands == (x, x)


def test_one_result_by_nature_is_a_value_and_any_other_number_a_tuple():
    graph, (x,) = program(f32(4))
    build = Builder(graph)
    assert build.call("aten.relu", x).type == f32(4)
    assert [v.type for v in build.call("aten.split.Tensor", x, 4)] == [f32(4)]
    assert [v.type for v in build.call("aten.max.dim", x, 0)] == [f32(), i64()]


def test_ops_are_known_by_name_by_op_and_by_torch_operator():
    graph, (x,) = program(f32(4))
    build = Builder(graph)
    spellings = ("aten.relu", get_op("aten.relu"), torch.ops.aten.relu.default)
    made = [build.call(op, x) for op in spellings]
    assert {value.producer.op for value in made} == {get_op("aten.relu")}


def test_size_expressions_are_attributes_and_numbers_are_plain():
    graph, (x,) = program(f32(S0, 4))
    node = Builder(graph).call("aten.reshape", x, [4 * S0, sympy.Integer(1)]).producer
    assert node.attributes["shape"] == (4 * S0, 1)
    assert type(node.attributes["shape"][1]) is int


def test_nodes_go_where_the_builder_stands():
    graph, (x,) = program(f32(4))
    build = Builder(graph)
    first, last = build.call("aten.relu", x).producer, build.call("aten.neg", x).producer
    with build.at(last):
        middle = build.call("aten.abs", x).producer
    end = build.call("aten.cos", x).producer
    assert list(graph) == [first, middle, last, end]
    start = Builder(graph, before=first).call("aten.sin", x).producer
    assert next(iter(graph)) is start


def test_locations_and_hints():
    graph, (x,) = program(f32(4))
    here, there = Location("model.py", 4), Location("model.py", 5)
    build = Builder(graph, loc=here)
    y = build.call("aten.relu", x, hints=["y"])
    assert (y.producer.loc, y.hint) == (here, "y")
    assert build.call("aten.relu", x, loc=there).producer.loc == there


def test_given_types_are_taken_as_they_are():
    graph, (x,) = program(f32(4))
    assert Builder(graph).call("aten.relu", x, types=[f32(S1)]).type == f32(S1)


def test_graphs_become_regions_and_know_their_node():
    region, (inner,) = program(f32(4), name="body")
    region.set_outputs([Builder(region).call("aten.relu", inner)])
    graph, (x,) = program(f32(4))
    (y,) = Builder(graph).call("rw.segment", [x], region, backend="torch")
    node = y.producer
    assert (node.regions, region.parent) == ((region,), node)
    assert node.attributes["body"] == RegionRef(0)
    assert y.type == f32(4)


def test_what_only_a_run_can_tell_gets_a_new_symbol():
    graph, (x,) = program(f32(S0, 4))
    build = Builder(graph)
    where, again = build.call("aten.nonzero", x), build.call("aten.nonzero", x)
    number = build.call("aten.item", build.call("aten.sum", x))
    flagged = build.call("aten.item", build.call("aten.any", x))
    u0, u1, u2, f0 = (symbol(name) for name in ("u0", "u1", "u2", "f0"))
    assert [where.type, again.type] == [i64(u0, 2), i64(u1, 2)]
    assert number.type == ScalarType("float", f0)
    assert flagged.type == ScalarType("bool", sympy.Eq(u2, 1))
    bindings = {s: (info.binding, info.dim) for s, info in graph.symbols.items() if s != S0}
    assert bindings == {u0: (where, 0), u1: (again, 0), f0: (number, None), u2: (flagged, None)}
    assert graph.symbols[u0].ranges == (Range(0, None, 4 * 64),)


def test_an_operand_that_does_not_fit_leaves_the_graph_as_it_was():
    graph, (x, y) = program(f32(2, 3), f32(4))
    with pytest.raises(InferenceError):
        Builder(graph).call("aten.add.Tensor", x, y)
    assert (len(graph), x.uses, y.uses) == (0, (), ())


def test_wrong_arguments_are_refused_by_name():
    graph, (x,) = program(f32(4))
    with pytest.raises(RewrightError, match="no parameter 'axis'"):
        Builder(graph).call("aten.softmax.int", x, 0, axis=1)
    with pytest.raises(RewrightError, match="needs the argument 'dim'"):
        Builder(graph).call("aten.softmax.int", x)


def test_objects_that_the_ir_cant_hold_are_refused():
    graph = Graph()
    with pytest.raises(RewrightError, match=r"is a object, which the IR can't hold[\s\S]*Opaque"):
        Builder(graph).call("aten.relu", object())
    kept = Opaque(object(), "generator")
    assert bind_operands({"a": kept})[1]["a"] is kept


def test_records_hold_values_too():
    _, (x,) = program(f32(4))
    operands, attributes, _ = bind_operands({"kwargs": {"weight": x, "n": 3}})
    assert operands == (x,)
    assert attributes["kwargs"] == Record((("weight", Operand(0)), ("n", 3)))


def test_make_node_makes_a_node_that_is_in_no_graph():
    graph, (x,) = program(f32(4))
    loc = Location("a.py", 1)
    node = make_node(get_op("aten.relu"), {"self": x}, [f32(4)], loc, ["y"])
    assert not node.is_attached
    assert (node.result.hint, node.loc, len(graph)) == ("y", loc, 0)


@pytest.mark.parametrize(
    ("equation", "answer"),
    [(S0, True), (2 * S0 + 1, True), (S0 * S0, False), (S1, False), (sympy.Eq(S0, 1), True)],
)
def test_solvable(equation, answer):
    assert solvable(equation, S0) is answer
