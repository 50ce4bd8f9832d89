"""The graph: a list of nodes that survives change, and uses that are exact."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.errors import VerificationError
from rewright.ir.attributes import Attributes, Operand, Record
from rewright.ir.graph import Graph, Node, ResultSpec, Use, Value
from rewright.ir.location import Location
from rewright.ir.ops import get_op
from rewright.ir.types import ScalarType, TensorType

F32 = TensorType(torch.float32, (2, 2))


def relu(value: Value, hint: str = "") -> Node:
    """A node that is in no graph yet."""
    return Node(
        get_op("aten.relu"),
        (value,),
        Attributes({"self": Operand(0)}),
        (value.type,),
        hints=(hint,),
    )


def add(a: Value, b: Value) -> Node:
    attributes = Attributes({"self": Operand(0), "other": Operand(1)})
    return Node(get_op("aten.add.Tensor"), (a, b), attributes, (a.type,))


def chain(length: int) -> tuple[Graph, list[Node]]:
    """``x -> relu -> relu ...``, whose last result is returned."""
    graph = Graph()
    value = graph.add_input(F32, "x")
    nodes = []
    for _ in range(length):
        nodes.append(graph.insert(relu(value)))
        value = nodes[-1].result
    graph.set_outputs([value])
    return graph, nodes


# --------------------------------------------------------------------------- the list


def test_nodes_are_in_order_both_ways() -> None:
    graph, (a, b, c) = chain(3)
    between = graph.insert(relu(a.result), before=b)
    assert [*graph] == [a, between, b, c]
    assert [*reversed(graph)] == [c, b, between, a]
    assert len(graph) == 4
    assert [graph.positions()[node] for node in (a, between, b, c)] == [0, 1, 2, 3]


def test_an_empty_graph() -> None:
    graph = Graph()
    assert [*graph] == [*reversed(graph)] == [*graph.walk()] == []
    assert (len(graph), graph.outputs, graph.writebacks) == (0, (), ())
    assert graph.terminator.is_terminator
    assert not graph.has_recipes


def test_moving_a_node() -> None:
    graph, (a, b, c) = chain(3)
    c.move_before(a)
    assert [*graph] == [c, a, b]
    c.move_before(c)
    assert [*graph] == [c, a, b]
    c.move_before(graph.terminator)
    assert [*graph] == [a, b, c]
    assert len(graph) == 3
    _, (other,) = chain(1)
    with pytest.raises(VerificationError, match=r"aten\.relu is not a node of @main"):
        c.move_before(other)


def test_a_node_is_in_one_graph_once() -> None:
    graph, (a,) = chain(1)
    _, (other,) = chain(1)
    with pytest.raises(VerificationError, match="is in a graph already"):
        graph.insert(a)
    with pytest.raises(VerificationError, match=r"aten\.relu is not a node of @main"):
        graph.insert(relu(a.result), before=other)
    assert [*graph] == [a]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_list_is_a_list(seed: int) -> None:
    """Random inserts, moves and erasures do what they do to Python's list."""
    choose = random.Random(seed)
    graph = Graph()
    x = graph.add_input(F32)
    model: list[Node] = []
    for _ in range(40):
        action = choose.choice(["insert", "insert", "move", "erase"])
        if action == "insert" or not model:
            at = choose.randint(0, len(model))
            node = graph.insert(relu(x), before=model[at] if at < len(model) else None)
            model.insert(at, node)
        elif action == "move":
            node = model.pop(choose.randrange(len(model)))
            at = choose.randint(0, len(model))
            node.move_before(model[at] if at < len(model) else graph.terminator)
            model.insert(at, node)
        else:
            model.pop(choose.randrange(len(model))).erase()
        assert [*graph] == model
        assert [*reversed(graph)] == model[::-1]
        assert len(graph) == len(model)
    assert {use.node for use in x.uses} == set(model)


# --------------------------------------------------------------------------- iteration and change


def test_iteration_survives_the_erasure_of_what_it_stands_at() -> None:
    graph = Graph()
    x = graph.add_input(F32)
    nodes = [graph.insert(relu(x)) for _ in range(6)]
    seen = []
    for node in graph:
        seen.append(node)
        node.erase()
    assert seen == nodes
    assert [*graph] == []


@pytest.mark.parametrize("doomed", [(1,), (1, 2), (0, 1, 2), (2, 1, 0), (3, 2, 1, 0), (0, 2, 1)])
def test_iteration_survives_the_erasure_of_what_comes(doomed: tuple[int, ...]) -> None:
    graph = Graph()
    x = graph.add_input(F32)
    nodes = [graph.insert(relu(x)) for _ in range(5)]
    seen = []
    for node in graph:
        if node is nodes[0]:
            for number in doomed:
                graph.erase([nodes[number]])
        seen.append(node)
    assert seen == [nodes[0]] + [n for i, n in enumerate(nodes) if i > 0 and i not in doomed]


def test_reversed_iteration_survives_erasure() -> None:
    graph = Graph()
    x = graph.add_input(F32)
    nodes = [graph.insert(relu(x)) for _ in range(5)]
    seen = []
    for node in reversed(graph):
        if node is nodes[4]:
            graph.erase([nodes[4], nodes[3], nodes[1]])
        seen.append(node)
    assert seen == [nodes[4], nodes[2], nodes[0]]


def test_iteration_meets_what_is_inserted_after_it_stands() -> None:
    graph, (a, b) = chain(2)
    seen = []
    for node in graph:
        if node is a:
            before, after = relu(a.result), relu(a.result)
            graph.insert(before, before=a)
            graph.insert(after, before=b)
        seen.append(node)
    assert seen == [a, after, b]


def test_walk_visits_regions_after_their_node() -> None:
    graph, (a, b) = chain(2)
    inner, (c,) = chain(1)
    outer_region, (d,) = chain(1)
    nested = Node(get_op("rw.scalar"), (), Attributes({"value": 1}), (), regions=[inner])
    outer_region.insert(nested)
    node = Node(get_op("rw.scalar"), (), Attributes({"value": 1}), (), regions=[outer_region])
    graph.insert(node, before=b)
    assert [*graph.walk()] == [a, node, d, nested, c, b]


# --------------------------------------------------------------------------- uses


def test_uses_are_places_in_order() -> None:
    graph = Graph()
    x, y = graph.add_input(F32), graph.add_input(F32)
    square = graph.insert(add(x, x))
    total = graph.insert(add(y, x))
    assert x.uses == (Use(square, 0), Use(square, 1), Use(total, 1))
    assert x.users == (square, total)
    assert (x.unique_user, y.unique_user, square.result.unique_user) == (None, total, None)
    assert (x.has_one_use, y.has_one_use) == (False, True)
    assert not x.is_output


def test_setting_an_operand_moves_its_use() -> None:
    graph = Graph()
    x, y = graph.add_input(F32), graph.add_input(F32)
    node = graph.insert(add(x, x))
    node.set_operand(1, y)
    assert node.operands == (x, y)
    assert (x.uses, y.uses) == ((Use(node, 0),), (Use(node, 1),))
    node.set_operands([y, y])
    assert (x.uses, y.uses) == ((), (Use(node, 0), Use(node, 1)))
    with pytest.raises(AttributeError, match=r"set_operand\(index, value\)"):
        node.operands = (x, x)


def test_replacing_all_uses() -> None:
    graph, (a, b, c) = chain(3)
    x = graph.inputs[0]
    a.result.replace_all_uses(x)
    assert b.operands == (x,)
    assert a.result.uses == ()
    c.result.replace_all_uses(c.result)
    assert graph.outputs == (c.result,)
    c.result.replace_all_uses(x)
    assert graph.outputs == (x,)
    assert x.is_output


def test_what_a_value_is() -> None:
    graph, (a,) = chain(1)
    weight = graph.add_constant("w", F32)
    x = graph.inputs[0]
    assert (x.is_input, x.is_constant, x.producer) == (True, False, None)
    assert (weight.is_input, weight.is_constant, weight.producer) == (False, True, None)
    assert (a.result.is_input, a.result.is_constant, a.result.producer) == (False, False, a)
    assert {value.graph for value in (x, weight, a.result)} == {graph}
    assert a.result.is_output
    assert weight.is_source


# --------------------------------------------------------------------------- erasing


def test_erasing_drops_uses() -> None:
    graph, (a, b) = chain(2)
    graph.set_outputs([a.result])
    b.erase()
    assert a.result.uses == (Use(graph.terminator, 0),)
    assert not b.is_attached
    with pytest.raises(VerificationError, match=r"this aten\.relu was erased"):
        b.erase()


def test_erasing_takes_all_or_none() -> None:
    graph, (a, b, c) = chain(3)
    b.loc = Location("model.py", 3)
    version = graph.version
    with pytest.raises(
        VerificationError, match=r"can't erase aten\.relu: aten\.relu uses"
    ) as caught:
        graph.erase([a, b])
    assert caught.value.where == "model.py:3"
    assert [*graph] == [a, b, c]
    assert graph.version == version
    with pytest.raises(VerificationError, match=r"rw\.return uses its result"):
        c.erase()
    graph.set_outputs([graph.inputs[0]])
    graph.erase([a, b, c])
    assert len(graph) == 0
    assert graph.inputs[0].uses == (Use(graph.terminator, 0),)


def test_only_nodes_of_the_graph_can_be_erased() -> None:
    graph, (a,) = chain(1)
    _, (other,) = chain(1)
    graph.set_outputs([])
    for node in (other, graph.terminator):
        with pytest.raises(VerificationError, match="can't be erased from @main"):
            graph.erase([a, node])
    assert [*graph] == [a]


# --------------------------------------------------------------------------- versions, analyses


def count(graph: Graph) -> int:
    count.calls += 1  # type: ignore[attr-defined]
    return len(graph)


def test_every_change_counts() -> None:
    graph, (a, b) = chain(2)
    changes = {
        "insert": lambda: graph.insert(relu(a.result)),
        "move": lambda: b.move_before(graph.terminator),
        "operand": lambda: b.set_operand(0, graph.inputs[0]),
        "operands": lambda: b.set_operands([a.result]),
        "replace": lambda: a.result.replace_all_uses(graph.inputs[0]),
        "type": lambda: setattr(b.result, "type", ScalarType("int")),
        "input": lambda: graph.add_input(F32),
        "constant": lambda: graph.add_constant("w", F32),
        "outputs": lambda: graph.set_outputs([]),
        "erase": b.erase,
        "remove constant": lambda: graph.remove_constant(graph.constants["w"]),
        "recipe": lambda: graph.prepare.insert(relu(graph.add_constant("v", F32))),
    }
    for name, change in changes.items():
        version = graph.version
        change()
        assert graph.version > version, name


def test_what_changes_nothing_does_not_count() -> None:
    graph, (a, b) = chain(2)
    version = graph.version
    b.set_operand(0, a.result)
    b.result.type = TensorType(torch.float32, (2, 2))
    b.move_before(b)
    assert graph.version == version


def test_changes_in_regions_and_recipes_count_outside() -> None:
    graph = Graph()
    region, (inner,) = chain(1)
    graph.insert(Node(get_op("rw.scalar"), (), Attributes({"value": 1}), (), regions=[region]))
    version = graph.version
    region.insert(relu(inner.result))
    assert graph.version > version

    empty = Graph()  # a graph without nodes has length 0, and is to be told all the same
    weight = empty.add_constant("w", F32)
    recipes = empty.prepare
    version = empty.version
    recipes.insert(relu(weight))
    assert empty.version > version


def test_an_analysis_is_remembered_until_a_change() -> None:
    graph, (a, _) = chain(2)
    count.calls = 0  # type: ignore[attr-defined]
    assert [graph.analysis(count), graph.analysis(count)] == [2, 2]
    assert count.calls == 1  # type: ignore[attr-defined]
    graph.insert(relu(a.result))
    assert graph.analysis(count) == 3
    assert count.calls == 2  # type: ignore[attr-defined]


# --------------------------------------------------------------------------- arguments


def test_arguments_by_name() -> None:
    graph = Graph()
    x, y = graph.add_input(F32), graph.add_input(F32)
    node = graph.insert(add(x, y))
    assert node.arguments() == {"self": x, "other": y}
    assert node.arg("other") is y
    assert node.arg("alpha") == 1
    with pytest.raises(KeyError, match="has no parameter 'beta'"):
        node.arg("beta")
    cat = Node(
        get_op("aten.cat"),
        (x, y),
        Attributes({"tensors": (Operand(0), Operand(1)), "dim": 1}),
        (F32,),
    )
    assert cat.arg("tensors") == (x, y)


def test_the_only_result() -> None:
    graph, (a,) = chain(1)
    assert a.result is a.results[0]
    with pytest.raises(VerificationError, match=r"rw\.return has 0 results, one was expected"):
        _ = graph.terminator.result


def test_attributes_tell_numbers_of_different_kinds_apart() -> None:
    kinds = [1, 1.0, True, 0, 0.0, -0.0, False, None, "1", 1 + 0j, (1,), Record((("a", 1),))]
    made = [Attributes({"x": kind}) for kind in kinds]
    assert len(set(made)) == len(kinds)
    nan = float("nan")
    assert Attributes({"x": nan}) == Attributes({"x": float("nan")})
    assert hash(Attributes({"x": nan})) == hash(Attributes({"x": float("nan")}))
    assert Attributes({"a": 1, "b": 2}) != Attributes({"b": 2, "a": 1})


# --------------------------------------------------------------------------- ends and constants


def test_outputs_and_write_backs_share_the_terminator() -> None:
    graph, (a, b) = chain(2)
    x = graph.inputs[0]
    graph.set_outputs([b.result, x], writebacks=[(x, a.result)])
    assert graph.outputs == (b.result, x)
    assert graph.writebacks == ((x, a.result),)
    assert graph.results == (ResultSpec(), ResultSpec())
    assert graph.terminator.operands == (b.result, x, a.result)
    a.result.replace_all_uses(x)
    assert graph.writebacks == ((x, x),)
    with pytest.raises(VerificationError, match="1 outputs, but 2 specs"):
        graph.set_outputs([x], results=[ResultSpec(), ResultSpec()])


def test_constants_and_recipes() -> None:
    graph = Graph()
    weight = graph.add_constant("w", F32, kind="buffer")
    node = graph.prepare.insert(relu(weight))
    first = graph.add_prepared("p", node.result)
    second = graph.add_prepared("q", weight)
    assert [*graph.constants] == ["w", "p", "q"]
    assert (first.kind, first.is_source, first.type) == ("prepared", False, F32)
    assert (graph.recipe(first), graph.recipe(second)) == (node.result, weight)
    assert graph.has_recipes
    with pytest.raises(VerificationError, match="there are two constants called @w"):
        graph.add_constant("w", F32)
    with pytest.raises(VerificationError, match="the recipe of @r is not in the prepare graph"):
        graph.add_prepared("r", graph.add_input(F32))
    with pytest.raises(VerificationError, match="@w is still used"):
        graph.remove_constant(weight)
    graph.remove_constant(first)
    assert [*graph.constants] == ["w", "q"]
    assert graph.recipe(second) is weight
    graph.remove_constant(second)
    node.erase()
    graph.remove_constant(weight)
    assert not graph.constants
    assert not graph.has_recipes
