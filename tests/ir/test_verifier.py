"""Each check by a graph that is broken in one place: what it says, and where."""

import pytest
import torch
from hypothesis import given, settings

from rewright.errors import VerificationError
from rewright.ir.attributes import Attributes, Operand, RegionRef
from rewright.ir.builder import Builder, make_node
from rewright.ir.graph import Graph, Node, ResultSpec, SymbolInfo, Use
from rewright.ir.location import Location
from rewright.ir.ops import get_op
from rewright.ir.param_kinds import accepts
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import NoneType, ScalarType
from rewright.ir.verifier import effect_order, find_faults, verify
from tests.ir.building import S0, S1, f32, flag, i64, program
from tests.ir.programs import programs


def chain(*ops, type_=None):
    """``x -> op -> op ...``, returned."""
    graph, (x,) = program(type_ or f32(4))
    build = Builder(graph, loc=Location("model.py", 41, "attn"))
    for op in ops:
        x = build.call(op, x)
    graph.set_outputs([x])
    return graph


def cond(true_op="aten.relu", false_op="aten.neg"):
    graph, (pred, x) = program(flag(), f32(S0, 4))
    branches = []
    for name, op in (("yes", true_op), ("no", false_op)):
        branch, (value,) = program(f32(S0, 4), name=name)
        branch.set_outputs([Builder(branch).call(op, value)])
        branches.append(branch)
    (y,) = Builder(graph).call("higher_order.cond", pred, *branches, [x])
    graph.set_outputs([y])
    return graph, branches


def folded():
    graph, (x,) = program(f32(2, 4))
    w = graph.add_constant("w", f32(3, 4), data=torch.zeros(3, 4))
    double = Builder(graph.prepare).call("aten.mul.Tensor", w, 2.0)
    ready = graph.add_prepared("w2", double)
    graph.set_outputs([Builder(graph).call("rw.linear", x, ready)])
    return graph


def faults(graph, check=None, **how):
    """The messages of the faults found, which are all of one check."""
    found = find_faults(graph, **how)
    if check is not None:
        assert {fault.check for fault in found} == {check}
    return [fault.message for fault in found]


def the_fault(graph, check, **how):
    (message,) = faults(graph, check, **how)
    return message


@pytest.mark.parametrize("make", [chain, folded, lambda: cond()[0], lambda: chain("aten.relu")])
def test_well_formed_graphs_have_no_faults(make):
    verify(make(), retype=True)


@settings(max_examples=25, deadline=None)
@given(programs())
def test_any_program_that_the_builder_makes_has_no_faults(made):
    verify(made.graph, retype=True)


# ---- structure


def test_links():
    graph = chain("aten.relu", "aten.neg")
    first, second = graph
    second._prev = graph.terminator
    assert the_fault(graph, "links") == "the list of nodes is broken after aten.relu"
    second._prev = first
    graph._length = 7
    assert the_fault(graph, "links") == "the graph has 2 nodes, but counts 7"
    graph._length = 2
    first._graph = Graph()
    assert "broken after rw.return" in the_fault(graph, "links")


def test_links_that_run_in_a_circle_are_found():
    graph = chain("aten.relu", "aten.neg")
    first, second = graph
    second._next, first._prev = first, second
    with pytest.raises(VerificationError, match="the list of nodes is broken"):
        verify(graph)


def test_uses_both_ways():
    graph = chain("aten.relu", "aten.neg")
    x, (relu, neg) = graph.inputs[0], graph
    del relu.result._uses[Use(neg, 0)]
    assert the_fault(graph, "uses") == "operand 0 doesn't know that it is used here"
    relu.result._uses[Use(neg, 0)] = None
    x._uses[Use(neg, 0)] = None
    assert the_fault(graph, "uses") == "%x0 claims to be operand 0, and isn't"
    del x._uses[Use(neg, 0)]
    make_node(get_op("aten.abs"), {"self": x}, [f32(4)])
    assert the_fault(graph, "uses") == "%x0 is used by a aten.abs that is in no graph"


def test_operands_come_before_their_use():
    graph = chain("aten.relu", "aten.neg")
    relu, neg = graph
    neg.move_before(relu)
    found = find_faults(graph)
    assert [(f.check, f.node) for f in found] == [("definitions", neg)]
    assert "is used before it is made" in found[0].message


def test_operands_of_an_erased_node_or_another_graph():
    graph, other = chain("aten.relu", "aten.neg"), chain("aten.abs")
    relu, neg = graph
    neg.set_operand(0, other.inputs[0])
    assert "operand 0 (%x0) belongs to another graph" in faults(graph, "definitions")
    neg.set_operand(0, graph.inputs[0])
    graph.erase([relu])
    neg.set_operand(0, relu.result)
    assert "erased" in the_fault(graph, "definitions")


def test_regions_see_only_their_inputs():
    graph, (yes, _) = cond()
    (relu,) = yes
    relu.set_operand(0, graph.inputs[1])
    assert "a region sees only its inputs" in the_fault(graph, "definitions")
    weight = graph.add_constant("w", f32(S0, 4))
    relu.set_operand(0, weight)
    assert "is a constant: regions take them as inputs" in the_fault(graph, "definitions")


def test_constants_of_another_graph():
    graph, other = chain("aten.relu"), Graph()
    (relu,) = graph
    relu.set_operand(0, other.add_constant("w", f32(4)))
    assert "(@w) is no constant of this graph" in the_fault(graph, "definitions")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"self": Operand(1)}, "attributes mention operands [1], of 1"),
        ({"self": 1.0}, "attributes mention operands [], of 1"),
        ({"self": (Operand(0), Operand(0))}, "attributes mention operands [0, 0], of 1"),
        ({"self": Operand(0), "x": RegionRef(0)}, "attributes mention regions [0], of 0"),
    ],
)
def test_slots(attributes, message):
    graph = chain("aten.relu")
    next(iter(graph)).attributes = Attributes(attributes)
    assert message in faults(graph, "slots")


# ---- calls


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("aten.relu", {"input": Operand(0)}, "aten.relu has no parameter 'input'"),
        ("aten.softmax.int", {"self": Operand(0)}, "the argument 'dim' is missing"),
        ("aten.softmax.int", {"self": Operand(0), "dim": "x"}, "the argument 'dim' is no int"),
        ("aten.sum.dim_IntList", {"self": Operand(0), "dim": (1.5,)}, "'dim' is no Optional"),
        ("aten.relu", {"self": (Operand(0),)}, "the argument 'self' is no Tensor"),
        ("aten.softmax.int", {"dim": 0, "self": Operand(0)}, "not in the order of"),
        ("rw.layer_norm", {"input": Operand(0), "eps": "tiny"}, "'eps' is no float"),
    ],
)
def test_arguments(op, attributes, message):
    graph, (x,) = program(f32(4))
    graph.insert(Node(get_op(op), (x,), Attributes(attributes), [f32(4)]))
    assert message in the_fault(graph, "arguments")


def test_the_number_of_results():
    graph, (x,) = program(f32(4))
    node = make_node(get_op("aten.relu"), {"self": x}, [f32(4), f32(4)])
    graph.insert(node)
    assert the_fault(graph, "results") == "2 results, where the op has 1"
    graph.erase([node])
    node = make_node(get_op("aten.relu"), {"self": x}, [f32(4)])
    graph.insert(node)
    node.results[0].index = 3
    assert the_fault(graph, "results") == "result 0 doesn't know that it is one"


def test_negative_sizes():
    graph = chain("aten.relu")
    next(iter(graph)).result.type = f32(-1)
    assert "has the type f32[-1]" in the_fault(graph, "types")


# ---- sizes


def test_symbols_are_bound_by_what_mentions_them():
    graph, (x,) = program(f32(S0, S1))
    graph.symbols[S1] = SymbolInfo((Range(1, None, 4),), x, 0)
    assert faults(graph, "symbols")[0] == "s1 is bound by %x0, which doesn't mention it"


def test_symbols_are_bound_in_their_own_graph():
    graph, _ = program(f32(S0))
    _, (y,) = program(f32(S0))
    graph.symbols[S0] = SymbolInfo((Range(),), y, 0)
    assert "isn't in this graph" in faults(graph)[0]


def test_equations_that_cant_be_solved():
    graph, (x,) = program(f32(S0 * S0, 2))
    graph.symbols[S0] = SymbolInfo((Range(),), x, 0)
    assert the_fault(graph, "symbols") == "the equations of s0 can't be solved"


def test_equations_solved_one_after_the_other():
    graph, (x, y) = program(f32(2 * S0 + 1), f32(S0 + S1))
    graph.symbols.clear()
    graph.symbols[S1] = SymbolInfo((Range(),), y, 0)
    graph.symbols[S0] = SymbolInfo((Range(),), x, 0)
    verify(graph)
    graph.symbols[S0] = SymbolInfo((Range(),), y, 0)
    assert the_fault(graph, "symbols") == "the equations of s1, s0 can't be solved"


def test_symbols_that_nothing_gives():
    graph = chain("aten.relu", type_=f32(S0))
    (relu,) = graph
    relu.result.type = f32(S1)
    assert "mentions s1, which nothing gives" in the_fault(graph, "sizes")
    relu.result.type = f32(S0)
    del graph.symbols[S0]
    messages = faults(graph, "sizes")
    assert messages[0] == "the input %x0 mentions s0, which no input gives"


def test_symbols_are_known_only_after_the_node_that_makes_them():
    graph, (x,) = program(f32(S0))
    build = Builder(graph)
    where = build.call("aten.nonzero", x)
    made = build.call("aten.full", [symbol("u0")], 1.0)
    graph.set_outputs([where, made])
    verify(graph)
    made.producer.move_before(where.producer)
    messages = faults(graph, "sizes")
    assert messages[0] == "an attribute mentions u0, which nothing before it gives"


def test_specs_mention_known_symbols_only():
    graph = chain("aten.relu", type_=f32(S0))
    graph.results = (ResultSpec(strides=(S1,)),)
    assert "the spec of output 0 mentions s1" in the_fault(graph, "sizes")


# ---- regions


def test_regions_know_their_node_and_fit_its_arguments():
    graph, (yes, _) = cond()
    yes.parent = None
    assert the_fault(graph, "regions") == "region 0 belongs to another node"
    graph, (yes, _) = cond()
    yes.add_input(f32())
    assert "takes 2 inputs, not 1" in the_fault(graph, "regions")


def test_branches_return_one_type():
    graph, (yes, _) = cond()
    yes.set_outputs([Builder(yes).call("aten.eq.Scalar", yes.inputs[0], 0)])
    assert "bool[s0, 4] or f32[s0, 4]" in the_fault(graph, "regions")


def test_regions_have_no_constants():
    graph, (yes, _) = cond()
    yes.add_constant("w", f32(4))
    assert "constants or write-backs of its own" in the_fault(graph, "regions")


def test_faults_inside_regions_are_found_where_they_are():
    graph, (_, no) = cond()
    (neg,) = no
    neg.attributes = Attributes({"self": Operand(5)})
    (fault,) = find_faults(graph)
    assert (fault.graph, fault.node) == (no, neg)


# ---- constants


def test_data_of_another_type():
    graph = folded()
    graph.constants["w"].data = torch.zeros(4, 3)
    assert the_fault(graph, "constants") == "@w has the type f32[3, 4], but its data is f32[4, 3]"


def test_recipes_of_another_type():
    graph = folded()
    graph.recipe(graph.constants["w2"]).type = f32(4, 3)
    assert the_fault(graph, "constants") == "@w2 has the type f32[3, 4], its recipe f32[4, 3]"


def test_prepared_constants_have_a_recipe_each():
    graph = folded()
    graph.prepare.prepared_names[0] = "other"
    messages = faults(graph, "constants")
    assert "@w2 is prepared, but has no recipe" in messages
    assert "there is a recipe for @other, which is no constant" in messages


def test_names_are_unique():
    graph = folded()
    graph.constants["w"].aliases = ("w2",)
    assert the_fault(graph, "constants") == "two constants are called @w2"
    graph.constants["w"].aliases = ()
    graph.constants["v"] = graph.constants["w"]
    assert "the constant @w is entered as @v" in faults(graph, "constants")


def test_recipes_are_made_from_sources():
    graph = folded()
    (mul,) = graph.prepare
    mul.set_operand(0, graph.constants["w2"])
    assert "recipes are made from sources only" in the_fault(graph, "definitions")
    mul.set_operand(0, graph.inputs[0])
    assert "belongs to another graph" in faults(graph)[0]


def test_recipes_give_the_same_whenever_they_run():
    graph = folded()
    Builder(graph.prepare).call("aten.rand", [3])
    assert the_fault(graph, "recipes") == "a recipe can't be random"


# ---- ends


def test_outputs_alias_earlier_ones():
    graph = chain("aten.relu")
    graph.results = (ResultSpec(alias=0),)
    assert "output 0 aliases output 0, which is no earlier one" in faults(graph, "outputs")
    graph.results = (ResultSpec(alias=next(iter(graph)).result),)
    assert "no input or constant" in the_fault(graph, "outputs")
    graph.results = (ResultSpec(alias=graph.inputs[0]),)
    verify(graph)
    graph.results = ()
    assert the_fault(graph, "outputs") == "1 outputs, but 0 specs"


def test_write_backs_fit_what_they_are_written_to():
    graph, (x, y) = program(f32(4), f32(5))
    z = Builder(graph).call("aten.relu", x)
    graph.set_outputs([], writebacks=[(x, z)])
    verify(graph)
    graph.set_outputs([], writebacks=[(y, z)])
    assert the_fault(graph, "outputs") == "%x1 is f32[5], but f32[4] is written to it"
    graph.set_outputs([], writebacks=[(x, z), (x, z)])
    assert the_fault(graph, "outputs") == "a value is written back to twice"
    graph.set_outputs([], writebacks=[(z, z)])
    assert "no input or source" in the_fault(graph, "outputs")


def test_the_return_returns_its_operands_in_order():
    graph, (x, y) = program(f32(4), f32(4))
    graph.set_outputs([x, y])
    graph.terminator.attributes = Attributes({"values": (Operand(1), Operand(0))})
    assert "slots" in {fault.check for fault in find_faults(graph)}


# ---- stages, types, effects


def test_the_stage_that_the_graph_says_or_another():
    graph = chain("aten.square")
    verify(graph)
    assert "aten.square may not appear" in the_fault(graph, "stage", stage="decomposed")
    graph.stage = "decomposed"
    assert "aten.square may not appear" in the_fault(graph, "stage")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (f32(S0, 5), "result 0 is stated as f32[s0, 5], and is f32[s0, 4]"),
        (i64(S0, 4), "result 0 is stated as i64[s0, 4], and is f32[s0, 4]"),
        (f32(S0), "result 0 is stated as f32[s0], and is f32[s0, 4]"),
        (f32(S0 + 1, 4), "result 0 is stated as f32[s0 + 1, 4], and is f32[s0, 4]"),
        (NoneType(), "result 0 is stated as none, and is f32[s0, 4]"),
        (ScalarType("int", 3), "result 0 is stated as int(3), and is f32[s0, 4]"),
    ],
)
def test_types_that_are_provably_wrong(stated, message):
    graph = chain("aten.relu", type_=f32(S0, 4))
    next(iter(graph)).result.type = stated
    graph.set_outputs(graph.outputs)
    assert the_fault(graph, "retype", retype=True) == message
    assert faults(graph) == []


def test_types_that_may_be_right_are_no_fault():
    graph, (x, _) = program(f32(S0, 4), f32(S1))
    y = Builder(graph).call("aten.relu", x)
    graph.set_outputs([y])
    y.type = f32(S1, 4)
    verify(graph, retype=True)
    z = Builder(graph).call("aten.add.Tensor", x, y, types=[f32(S0, 4)])  # if s0 == s1
    graph.set_outputs([z])
    verify(graph, retype=True)


def test_operands_that_never_fit_their_op():
    graph, (x, y) = program(f32(2, 3), f32(2, 3))
    Builder(graph).call("aten.mm", x, y, types=[f32(2, 3)])
    assert "has no type" in the_fault(graph, "retype", retype=True)


def test_effects_keep_their_order():
    graph = chain("aten.relu", "aten.bernoulli", "aten.rand_like")
    before = effect_order(graph)
    assert before[:2] == ("aten.bernoulli", "aten.rand_like")
    verify(graph, effects=before)
    _, bernoulli, rand = graph
    rand.set_operand(0, graph.inputs[0])
    rand.move_before(bernoulli)
    graph.set_outputs([bernoulli.result])
    with pytest.raises(VerificationError, match=r"was aten\.bernoulli, and is aten\.rand_like"):
        verify(graph, effects=before)
    graph.erase([rand])
    with pytest.raises(VerificationError, match=r"number 1 was aten\.rand_like"):
        verify(graph, effects=before)


# ---- the error


def test_the_error_shows_the_lines_around_the_fault():
    graph = chain(*["aten.relu"] * 20)
    at = list(graph)[10]
    at.attributes = Attributes({"self": Operand(0), "other": 1})
    with pytest.raises(VerificationError) as caught:
        verify(graph)
    error = caught.value
    assert str(error.where) == "model.py:41 (attn)"
    assert error.op == "aten.relu"
    assert error.message == "@main is not well formed: aten.relu has no parameter 'other'"
    lines = error.excerpt.splitlines()
    assert lines[0] == "arguments: aten.relu has no parameter 'other'"
    marked = [line.startswith("->") for line in lines[1:]]
    assert marked == [False] * 5 + [True] + [False] * 5


def test_many_faults_are_counted_and_the_first_ones_shown():
    graph = chain(*["aten.relu"] * 6)
    for node in graph:
        node.attributes = Attributes({"self": Operand(0), "other": 1})
    with pytest.raises(VerificationError) as caught:
        verify(graph)
    assert caught.value.message.endswith("; and 3 more")
    assert caught.value.excerpt.count("->") == 3


# ---- kinds of parameters


@pytest.mark.parametrize(
    ("kind", "yes", "no"),
    [
        ("Tensor", [Operand(0), Operand(1), 2.0], [None, "x", (Operand(0),)]),
        ("Optional[Tensor]", [Operand(0), Operand(2), None], ["x"]),
        ("Tensor | None", [Operand(0), None], ["x"]),
        ("List[Tensor]", [(Operand(0), Operand(0)), ()], [None, ("x",)]),
        ("List[Optional[Tensor]]", [(Operand(0), None)], [("x",)]),
        ("int", [3, S0, torch.float32, Operand(1)], ["x", 1.5, None, Operand(0)]),
        ("Optional[List[int]]", [None, (1, S0), 3], [(1.5,), "x"]),
        ("Sequence[int]", [(1, S0)], [("x",), None]),
        ("float", [1.5, 2], ["x", Operand(0)]),
        ("number", [1.5, 2, 1j, Operand(0)], ["x", None]),
        ("bool", [True], ["x", 1.5]),
        ("str", ["x"], [1, None]),
        ("Optional[Device]", [None, torch.device("cpu")], [1]),
        ("Any", [None, "x", (1, 2)], []),
    ],
)
def test_kinds_of_parameters(kind, yes, no):
    graph = Graph()
    operands = [graph.add_input(t) for t in (f32(4), ScalarType("int", 3), NoneType())]
    assert [item for item in yes if not accepts(kind, item, operands)] == []
    assert [item for item in no if accepts(kind, item, operands)] == []
