"""Partitioning: no cycles on any graph, few segments, the user's word, and the reasons."""

from __future__ import annotations

import json

import attrs
import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.errors import PassError
from rewright.frontends.export import import_exported
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Node
from rewright.ir.interpreter import interpret
from rewright.ir.location import Location
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.partition.assignment import Overrides
from rewright.passes.partition.partition import Partition, partition
from tests.ir.building import f32, program
from tests.ir.programs import programs
from tests.zoo import ENTRIES


@attrs.frozen
class Taker:
    """A backend that takes the ops of a list, or all but those."""

    name: str = "taker"
    ops: frozenset[str] = frozenset()
    all_but: bool = True
    tells_sizes: bool = False

    def refuse(self, node: Node) -> str | None:
        return (
            f"{self.name} has no {node.op.name}"
            if (node.op.name in self.ops) is self.all_but
            else None
        )


def taker(*ops: str, name: str = "taker", all_but: bool = False) -> Taker:
    return Taker(name, frozenset(ops), all_but)


def segments(graph: Graph) -> list[Node]:
    return [node for node in graph if node.op.name == "rw.segment"]


def test_what_tells_a_size_stays_and_says_what_its_backend_says():
    graph = parse_graph(
        "graph @g(%x: f32[4]) -> i64[u0, 1]\n  where u0 in {0..4} = dim(%y, 0)\n{\n"
        "  %y = aten.nonzero(%x) : i64[u0, 1]\n  return %y\n}\n"
    )
    (left,) = partition(graph, [taker("aten.relu")]).left
    assert left.reason == "it tells a size that only a run can know: taker has no aten.nonzero"
    assert "mask" in left.advice


TOLD = """
graph @g(%x: f32[4]) -> ({types})
  where u0 in {{0..4}} = dim(%y, 0)
{{
  %y = aten.nonzero(%x) : i64[u0, 1]
  %z = aten.mul.Scalar(%y, 2) : i64[u0, 1]
  %s = aten.sum(%z) : i64[]
  %n = rw.scalar(2*u0 + 1) : int(2*u0 + 1)
  return {results}
}}
"""


@pytest.mark.parametrize(
    ("results", "types", "given"),
    [
        ("%s", "i64[]", 1),  # nobody asks for the size
        ("%s, %z", "i64[], i64[u0, 1]", 2),  # a result tells it
        ("%s, %n", "i64[], int(2*u0 + 1)", 2),  # what told it must be a result, too
        ("%n", "int(2*u0 + 1)", 1),
    ],
)
def test_a_segment_may_tell_a_size_where_its_backend_can(results: str, types: str, given: int):
    graph = parse_graph(TOLD.format(results=results, types=types))
    args = [torch.tensor([0.0, 1.0, 0.0, 3.0])]
    expected = interpret(graph, args).outputs
    able = attrs.evolve(taker(all_but=True), tells_sizes=True)
    assert partition(graph, [able]).left == ()
    verify(graph)
    (segment,) = segments(graph)
    assert len(segment.results) == given
    assert len(graph.symbols) == (0 if results == "%s" else 1)
    made = interpret(graph, args).outputs
    for ours, theirs in zip(made, expected, strict=True):
        assert type(ours) is type(theirs), "a number stays a number"
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))
    assert segment.regions[0].symbols, "the size is told inside"


def test_a_conditional_is_as_large_as_its_regions():
    """Whether a segment pays is a matter of what it computes."""
    report = _choice(["%a = aten.sin(%x) : f32[4]", "%b = aten.exp(%a) : f32[4]"])
    assert report.left == ()
    (left,) = _choice(["%b = aten.sin(%x) : f32[4]"]).left
    assert "would compute 2 nodes" in left.reason


def _choice(lines: list[str]):
    graph = parse_graph(
        "graph @g(%x: f32[4], %flag: bool[]) -> f32[4] {\n"
        "  %made = higher_order.cond(%flag, ^yes, ^no, [%x]) : f32[4]\n"
        "    region ^yes(%x: f32[4]) -> f32[4] {\n" + "\n".join(lines) + "\n return %b\n }\n"
        "    region ^no(%x: f32[4]) -> f32[4] {\n  %b = aten.cos(%x) : f32[4]\n return %b\n }\n"
        "  return %made\n}\n"
    )
    verify(graph)
    return partition(graph, [taker(all_but=True)], min_block_size=3)


# --------------------------------------------------------------------------- on any DAG


def dag(edges: list[list[int]], kinds: list[int]) -> Graph:
    """A graph of additions: node i uses nodes `edges[i]`; its kind says which op it is."""
    graph, (x,) = program(f32(4))
    build, made = Builder(graph), []
    for sources, kind in zip(edges, kinds, strict=True):
        values = [made[at] for at in sources] or [x]
        total = values[0]
        if kind < 2:
            total = build.call(("aten.relu", "aten.tanh")[kind], total)
        for other in values[1:]:
            total = build.call(("aten.add.Tensor", "aten.mul.Tensor")[kind % 2], total, other)
        made.append(total)
    graph.set_outputs([value for value in made if not value.uses] or [x])
    return graph


@st.composite
def dags(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 40))
    edges = [
        draw(st.lists(st.integers(0, at - 1), max_size=3, unique=True)) if at else []
        for at in range(count)
    ]
    return dag(edges, draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))


FIRST = taker("aten.relu", "aten.add.Tensor", name="first")
SECOND = taker("aten.tanh", name="second")


@given(dags(), st.sampled_from([[FIRST], [FIRST, SECOND]]), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_segments_never_wait_for_themselves(graph, backends, least):
    owner = {node: at for at, node in enumerate(graph)}
    flow = nx.DiGraph()
    for node, at in owner.items():
        flow.add_node(at)
        flow.add_edges_from((owner[v.producer], at) for v in node.operands if v.producer)
    names = {value.hint: at for node, at in owner.items() for value in node.results}
    assert len(names) <= len(owner)
    x = torch.randn(4)
    expected = interpret(graph, [x]).outputs
    copy = graph.copy()
    report = partition(copy, backends, min_block_size=least)
    verify(copy, retype=True)
    torch.testing.assert_close(interpret(copy, [x]).outputs, expected, rtol=0, atol=0)
    contracted = nx.DiGraph()
    for node in copy:  # the order of a graph that verifies is one proof; networkx is another
        contracted.add_node(node)
        contracted.add_edges_from((v.producer, node) for v in node.operands if v.producer)
    assert nx.is_directed_acyclic_graph(contracted)
    assert sum(s.nodes for s in report.segments) + len(report.left) == len(graph)
    assert all(segment.computing >= least for segment in report.segments)


@given(dags())
@settings(max_examples=100, deadline=None)
def test_there_are_as_few_segments_as_the_longest_chain_needs(graph):
    flow = nx.DiGraph()
    for node in graph:
        flow.add_node(node, taken=FIRST.refuse(node) is None)
        flow.add_edges_from((v.producer, node) for v in node.operands if v.producer)
    turns: dict[Node, int] = {}  # the most separate segments on any path that ends here
    for node in nx.topological_sort(flow):
        before = [
            turns[p] + (flow.nodes[node]["taken"] and not flow.nodes[p]["taken"])
            for p in flow.predecessors(node)
        ]
        turns[node] = max(before, default=int(flow.nodes[node]["taken"]))
    needed = max(turns.values(), default=0)
    partition(graph, [FIRST])
    assert len(segments(graph)) == needed


@given(programs(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_program_computes_the_same(made, least):
    graph = made.graph.copy()
    ops = sorted({node.op.name for node in graph})
    partition(graph, [taker(*ops[::2])], min_block_size=least)
    verify(graph, retype=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = interpret(made.graph, made.inputs)
        torch.manual_seed(0)
        actual = interpret(graph, made.inputs)
    torch.testing.assert_close(actual.outputs, expected.outputs, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        actual.writebacks, expected.writebacks, rtol=0, atol=0, equal_nan=True
    )


# --------------------------------------------------------------------------- what goes where

DIAMOND = """
graph @diamond(%x: f32[4, 6]) -> f32[4, 6] {
  %a = aten.relu(%x) : f32[4, 6]                  # net.py:1 (top)
  %b = aten.erf(%a) : f32[4, 6]                   # net.py:2 (mid.left)
  %c = aten.tanh(%a) : f32[4, 6]                  # net.py:3 (mid.right)
  %d = aten.add.Tensor(%b, %c) : f32[4, 6]        # net.py:4 (top)
  return %d
}
"""
ALL = Taker()


def parted(text: str, *backends: Taker, least: int = 1, **overrides: tuple[str, ...]):
    graph = parse_graph(text)
    report = partition(graph, list(backends) or [ALL], Overrides(**overrides), least)
    verify(graph, retype=True)
    return graph, report


def test_a_node_between_keeps_a_diamond_from_being_one_segment():
    graph, report = parted(DIAMOND, taker("aten.erf", all_but=True))
    assert [segment.nodes for segment in report.segments] == [2, 1]
    assert [left.op for left in report.left] == ["aten.erf"]
    assert [node.op.name for node in graph] == ["rw.segment", "aten.erf", "rw.segment"]


def test_everything_in_one_segment():
    graph, report = parted(DIAMOND)
    assert len(graph) == 1 and not report.left
    assert report.segments[0].inputs[0].bytes == 4 * 6 * 4


@pytest.mark.parametrize(
    "overrides",
    [
        {"ops": ("aten.erf",)},
        {"ops": ("aten.er*",)},
        {"modules": ("mid.left",)},
        {"modules": ("*.left",)},
        {"nodes": ("b",)},
        {"nodes": ("%b",)},
        {"nodes": ("net.py:2",)},
    ],
    ids=str,
)
def test_what_the_user_sends_to_torch(overrides):
    _, report = parted(DIAMOND, **overrides)
    (left,) = report.left
    (kind, (pattern,)) = next(iter(overrides.items()))
    assert (left.op, left.reason) == ("aten.erf", f"torch_executed_{kind} has {pattern!r}")


def test_a_module_takes_along_what_is_in_it():
    _, report = parted(DIAMOND, modules=("mid",))
    assert [left.op for left in report.left] == ["aten.erf", "aten.tanh"]


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [({"ops": ("aten.sofmax",)}, "did you mean"), ({"nodes": ("e",)}, None)],
    ids=["op", "node"],
)
def test_overrides_that_mean_nothing_are_refused(overrides, hint):
    with pytest.raises(PassError, match="is called so") as caught:
        parted(DIAMOND, **overrides)
    assert hint is None or hint in str(caught.value.hint)


def test_small_segments_are_given_back_with_the_reason():
    _, report = parted(DIAMOND, taker("aten.erf", all_but=True), least=2)
    assert [segment.nodes for segment in report.segments] == [2]
    assert report.left[-1].op == "aten.add.Tensor"
    assert report.left[-1].reason == "its segment would compute 1 node, and min_block_size is 2"
    _, report = parted(DIAMOND, least=5)
    assert not report.segments and len(report.left) == 4


FOLLOW = """
graph @follow(%x: f32[4, 6], %y: f32[6, 4]) -> f32[4, 4] {
  %a = aten.relu(%x) : f32[4, 6]
  %v = aten.permute(%y, [1, 0]) : f32[4, 6]
  %w = aten.reshape(%v, [6, 4]) : f32[6, 4]
  %b = aten.erf(%a) : f32[4, 6]
  %c = aten.matmul(%b, %w) : f32[4, 4]
  return %c
}
"""


def test_views_follow_their_users():
    _, report = parted(FOLLOW, taker("aten.erf", all_but=True))
    assert [segment.nodes for segment in report.segments] == [1, 3]
    assert [port.name for port in report.segments[1].inputs] == ["y", "b"]


LOOSE = """
graph @loose(%x: f32[s0, 6]) -> f32[s0, 6]
  where s0 in {1..4..8} = dim(%x, 0)
{
  %n = aten.full([s0, 6], 2.0, dtype=f32) : f32[s0, 6]
  %a = aten.mul.Tensor(%x, %n) : f32[s0, 6]
  %b = aten.erf(%a) : f32[s0, 6]
  %c = aten.mul.Tensor(%b, %n) : f32[s0, 6]
  return %c
}
"""


def test_fills_are_made_where_they_are_used_and_sizes_are_bound():
    graph, report = parted(LOOSE, taker("aten.erf", all_but=True))
    assert [len(s.inputs) for s in report.segments] == [1, 1]
    assert [s.nodes for s in report.segments] == [2, 2]
    assert "aten.full" not in [node.op.name for node in graph]
    x = torch.randn(3, 6)
    (out,) = interpret(graph, [x]).outputs
    torch.testing.assert_close(out, torch.erf(x * 2) * 2)


def test_a_size_that_no_input_of_a_segment_tells_goes_in_as_a_number():
    text = LOOSE.replace(
        "%c = aten.mul.Tensor(%b, %n) : f32[s0, 6]",
        "%t = aten.sum.dim_IntList(%b, [0, 1]) : f32[]\n"
        "  %u = aten.expand(%t, [s0, 6]) : f32[s0, 6]\n"
        "  %c = aten.relu(%u) : f32[s0, 6]",
    )
    graph, report = parted(text, taker("aten.erf", "aten.sum.dim_IntList", all_but=True))
    assert "int" in [port.type.split("=")[0].strip()[:3] for port in report.segments[-1].inputs]
    x = torch.randn(5, 6)
    (out,) = interpret(graph, [x]).outputs
    torch.testing.assert_close(out, torch.erf(x * 2).sum().expand(5, 6).relu())


def test_effects_and_random_numbers_keep_their_order_in_torch():
    text = """
    graph @random(%x: f32[4]) -> (f32[4], f32[4]) {
      %a = aten.relu(%x) : f32[4]
      %r = aten.rand_like(%a) : f32[4]
      %b = aten.add.Tensor(%a, %r) : f32[4]
      %q = aten.rand_like(%x) : f32[4]
      return %b, %q
    }
    """
    graph, report = parted(text)
    assert [left.op for left in report.left] == ["aten.rand_like", "aten.rand_like"]
    order = [node.results[0].hint for node in graph if node.op.name == "aten.rand_like"]
    assert order == ["r", "q"]


def test_the_pass_reports_and_may_insist():
    graph = parse_graph(DIAMOND)
    known = {"taker": taker("aten.erf", all_but=True)}
    run = Pipeline((Partition(backends=("taker",), min_block_size=1),)).run(graph, backends=known)
    assert str(run.reports["partition"]).splitlines()[-1].split() == (
        "aten.erf net.py:2 (mid.left) taker has no aten.erf".split()
    )
    plain = json.loads(json.dumps(run.reports["partition"].to_json()))
    assert plain["left"] == [
        {"op": "aten.erf", "name": "b", "where": "net.py:2 (mid.left)",
         "reason": "taker has no aten.erf", "advice": "", "is_free": False,
         "is_boundary": False}
    ]  # fmt: skip
    assert [segment["backend"] for segment in plain["segments"]] == ["taker", "taker"]
    pipeline = Pipeline.parse("partition{backends=[taker], require_full=True}")
    with pytest.raises(PassError, match=r"would stay in Torch(.|\n)*aten\.erf"):
        pipeline.run(parse_graph(DIAMOND), backends=known)
    with pytest.raises(PassError, match="no backend 'tacker'") as caught:
        Pipeline.parse("partition{backends=[tacker]}").run(parse_graph(DIAMOND), backends=known)
    assert "taker" in caught.value.hint


def test_nothing_is_partitioned_without_backends():
    graph = parse_graph(DIAMOND)
    run = Pipeline.parse("partition").run(graph)
    assert len(graph) == 4 and not run.changed


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_real_models(name):
    entry = ENTRIES[name]
    graph, _ = import_exported(entry.export(True))
    whole = graph.copy()
    ops = ("aten.gelu", "aten.max_pool2d", "aten.scaled_dot_product_attention")
    report = partition(graph, [taker(*ops, all_but=True)], min_block_size=2)
    verify(graph, retype=True)
    assert report.segments and all(isinstance(left.where, Location | None) for left in report.left)
    args, kwargs = entry.inputs()
    given = [*args, *kwargs.values()]
    torch.testing.assert_close(
        interpret(graph, given).outputs, interpret(whole, given).outputs, rtol=0, atol=0
    )
