"""Copies are the same graph made of other nodes and values."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from rewright.errors import VerificationError
from rewright.ir.builder import Builder
from rewright.ir.copying import copy_graph, copy_into, copy_with_map
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from tests.ir.compare import all_values, assert_same
from tests.ir.programs import Program, programs
from tests.ir.strategies import wild_graphs
from tests.ir.test_text import BLOCK

random_graphs = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@random_graphs
@given(wild_graphs())
def test_a_copy_is_the_same(graph: Graph) -> None:
    text = print_graph(graph)
    copy, copies = copy_with_map(graph)
    assert_same(graph, copy, data=True)
    assert print_graph(copy) == text
    assert print_graph(graph) == text
    assert copies.keys() == set(all_values(graph))
    assert set(copies.values()) == set(all_values(copy))
    assert not copies.keys() & set(copies.values())


@random_graphs
@given(programs())
def test_a_copy_is_well_formed_and_shares_tensors(program: Program) -> None:
    copy = program.graph.copy()
    verify(copy)
    for name, constant in program.graph.constants.items():
        assert copy.constants[name].data is constant.data


def test_a_copy_changes_by_itself() -> None:
    graph = parse_graph(BLOCK)
    copy = copy_graph(graph)
    region = [*copy][-1].regions[0]
    region.set_outputs(region.inputs[:1])
    region.erase(region)
    copy.set_outputs([])
    copy.erase(copy)
    assert print_graph(graph) == BLOCK
    assert "aten" not in print_graph(copy).split("prepare")[0]


def test_all_of_a_copy_belongs_to_it() -> None:
    graph = parse_graph(BLOCK)
    copy, copies = copy_with_map(graph)
    assert copy.symbols.keys() == graph.symbols.keys()
    assert all(info.binding.graph is copy for info in copy.symbols.values())
    assert copy.results[1].alias is copies[graph.inputs[0]] is copy.inputs[0]
    assert copy.targets == (copy.constants["cache"],)
    recipe = copy.recipe(copy.constants["qk.weight"])
    assert recipe.graph is copy.prepare
    assert recipe.producer is not None
    assert recipe.producer.operands[0] is copy.constants["q.weight"]
    assert all(node.graph is copy for node in copy)
    assert [*copy][-1].regions[0].parent is [*copy][-1]


def test_nodes_are_copied_into_another_graph() -> None:
    source = parse_graph(BLOCK)
    target = Graph("target")
    x = target.add_input(source.inputs[0].type, "input")
    weight = target.add_constant("w", source.constants["qk.weight"].type)
    end = Builder(target).call("aten.relu", x).producer
    copies = {source.inputs[0]: x, source.constants["qk.weight"]: weight}
    made = copy_into(target, [*source][:2], copies, before=end)
    assert [*target] == [*made, end]
    assert [node.loc for node in made] == [node.loc for node in [*source][:2]]
    assert print_graph(target, locations=False).splitlines()[1:3] == [
        "  %qk = aten.linear(%input, @w) : f16[s0, 128]",
        "  %q, %k = aten.chunk(%qk, 2, dim=1) : f16[s0, 64], f16[s0, 64]",
    ]
    assert copies[[*source][1].results[1]] is made[1].results[1]


def test_nodes_are_copied_within_their_graph() -> None:
    graph = parse_graph(BLOCK)
    linear = next(iter(graph))
    (again,) = copy_into(graph, [linear], {})
    assert again is not linear
    assert again.operands == linear.operands
    assert again.graph is graph


def test_a_value_without_a_copy_is_an_error() -> None:
    source = parse_graph(BLOCK)
    split = [*source][1]
    with pytest.raises(VerificationError, match=r"aten\.chunk uses <Value qk: f16") as caught:
        copy_into(Graph(), [split], {})
    assert caught.value.where == "model.py:42 (attn)"
    with pytest.raises(VerificationError, match="which belongs to another graph"):
        copy_graph(source.prepare)


def test_a_size_must_be_given_in_its_graph() -> None:
    graph, other = parse_graph(BLOCK), parse_graph(BLOCK)
    graph.symbols = dict(other.symbols)
    with pytest.raises(VerificationError, match="s0 is given by a value that is not in its graph"):
        copy_graph(graph)


def test_long_graphs_need_no_deep_stack() -> None:
    graph = Graph()
    value = graph.add_input(TensorType(torch.float32, (2,)))
    build = Builder(graph)
    for _ in range(3000):
        value = build.call("aten.relu", value)
    graph.set_outputs([value])
    assert len(copy_graph(graph)) == 3000
