"""Equal graphs under other names have one canonical text; different ones never do."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import attrs
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rewright.errors import UnsupportedError, VerificationError
from rewright.ir.attributes import Attributes, Opaque, Operand, RegionRef, leaves
from rewright.ir.canonical import canonical
from rewright.ir.graph import Graph, Node, ResultSpec
from rewright.ir.location import Location
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.sizes import Range, free_symbols
from rewright.ir.types import TensorType, type_symbols
from tests.ir import strategies

# --------------------------------------------------------------------------- names don't matter

BASE = """\
graph @block(%x: f32[s0, 8], %y: f32[s0, 8]) -> f32[s0, 8]
  where s0 in {1..4..32} = dim(%x, 0)
{
  %a = rw.linear(%x, @w) : f32[s0, 8]
  %b = aten.add.Tensor(%a, %y, alpha=2) : f32[s0, 8]
  %c = aten.mul.Tensor(%b, @v) : f32[s0, 8]
  return %c
  writeback @v = %b
}
constants {
  parameter @p : f32[8, 8]
  buffer @v : f32[s0, 8]
}
prepare {
  @w = aten.mul.Tensor(@p, 2.0) : f32[8, 8]
}
"""

CHANGES = {
    "wiring": ("rw.linear(%x, @w)", "rw.linear(%y, @w)"),
    "order of operands": ("(%a, %y, alpha", "(%y, %a, alpha"),
    "which constant": ("(%b, @v)", "(%b, %b)"),
    "op": ("mul.Tensor(%b", "sub.Tensor(%b"),
    "attribute": ("alpha=2", "alpha=3"),
    "class of an attribute": ("alpha=2", "alpha=2.0"),
    "no attribute": (", alpha=2", ""),
    "dtype": ("%x: f32[s0, 8]", "%x: f16[s0, 8]"),
    "dtype of a result": ("alpha=2) : f32", "alpha=2) : f64"),
    "dtype of a constant": ("@p : f32", "@p : f16"),
    "shape of a constant": ("@p : f32[8, 8]", "@p : f32[8, 1]"),
    "least size": ("1..4..32", "2..4..32"),
    "typical size": ("1..4..32", "1..5..32"),
    "largest size": ("1..4..32", "1..4..33"),
    "profiles": ("1..4..32", "1..4..32, 1..4..32"),
    "what gives a symbol": ("= dim(%x, 0)", "= dim(%y, 0)"),
    "output": ("return %c", "return %b"),
    "outputs": (
        *("return %c", "return %c, %c"),
        *("-> f32[s0, 8]\n  where", "-> (f32[s0, 8], f32[s0, 8])\n  where"),
    ),
    "what is written back": ("@v = %b", "@v = %c"),
    "where to": ("writeback @v", "writeback %y"),
    "no write-back": ("  writeback @v = %b\n", ""),
    "recipe": ("(@p, 2.0)", "(@p, 2.5)"),
    "wiring of a recipe": ("(@p, 2.0)", "(@p, @p)"),
    "strides": ("return %c", "return %c {strides=[1, 8]}"),
    "alias": ("return %c", "return %c {alias=%x}"),
    "views": ("return %c", "return %c {alias=%x |> aten.alias()}"),
    "device": ("dim(%x, 0)\n", "dim(%x, 0)\n  device cuda:0\n"),
    "stage": ("dim(%x, 0)\n", "dim(%x, 0)\n  stage fused\n"),
}

RENAMINGS = {
    "values": (r"%(\w+)", r"%other_\1"),
    "constants": (r"@(\w+)", r"@layers.\1"),
    "symbols": (r"\bs0\b", "s77"),
    "kinds of sources": ("parameter|buffer", "constant"),
    "aliases": (r"(@p : .*)", r"\1 also @tied"),
    "locations": (r"(%[abc] = .*)", r"\1  # model.py:7 (layers.0) by fold"),
}


def _text(text: str) -> str:
    return canonical(parse_graph(text)).text


def test_every_change_gives_another_text() -> None:
    found = {"base": _text(BASE)}
    for name, parts in CHANGES.items():
        text = BASE
        for old, new in zip(parts[::2], parts[1::2], strict=True):
            assert old in text, name
            text = text.replace(old, new)
        found[name] = _text(text)
    for one, other in combinations(found, 2):
        assert found[one] != found[other], (one, other)


@pytest.mark.parametrize("name", RENAMINGS)
def test_no_name_changes_it(name: str) -> None:
    renamed = re.sub(*RENAMINGS[name], BASE)
    assert renamed != BASE
    assert _text(renamed) == _text(BASE)


def test_what_nothing_uses_does_not_matter() -> None:
    more = BASE.replace("constants {", "constants {\n  parameter @unused : f32[9]").replace(
        "prepare {", "prepare {\n  @other = aten.neg(@unused) : f32[9]"
    )
    assert _text(more) == _text(BASE)


def test_order_of_declarations_does_not_matter() -> None:
    lines = ["  parameter @p : f32[8, 8]\n", "  buffer @v : f32[s0, 8]\n"]
    assert _text(BASE.replace("".join(lines), "".join(lines[::-1]))) == _text(BASE)


def test_swapped_symbols_are_told_apart() -> None:
    """Renaming must not make one symbol of two."""
    two = (
        "graph @g(%x: f32[s0, s1], %y: f32[s0, s1]) -> f32[s0, s1]\n"
        "  where s0 in {1..4} = dim(%x, 0),\n        s1 in {1..4} = dim(%x, 1)\n"
        "{\n  return %x\n}\n"
    )
    swapped = two.replace("%y: f32[s0, s1]", "%y: f32[s1, s0]")
    renamed = two.replace("s0", "s9").replace("s1", "s0").replace("s9", "s1")
    assert _text(two) != _text(swapped)
    assert _text(two) == _text(renamed)


def test_constants_stand_in_the_order_of_their_numbers() -> None:
    form = canonical(parse_graph(BASE))
    assert [c.name for c in form.constants] == ["w", "v", "p"]
    assert [c.name for c in form.given] == ["v", "p"]
    bare = canonical(parse_graph(BASE), recipes=False)
    assert [c.name for c in bare.given] == ["w", "v"]
    assert "2.0" not in bare.text


def test_constants_of_equal_type_keep_their_order() -> None:
    text = (
        "graph @g() -> f32[2]\n{\n  %a = aten.sub.Tensor(@p, @q) : f32[2]\n  return %a\n}\n"
        "constants {\n  parameter @p : f32[2]\n  parameter @q : f32[2]\n}\n"
    )
    swapped = parse_graph(text.replace("(@p, @q)", "(@q, @p)"))
    assert [c.name for c in canonical(parse_graph(text)).given] == ["p", "q"]
    assert [c.name for c in canonical(swapped).given] == ["q", "p"]


def test_objects_are_refused() -> None:
    graph = parse_graph("graph @g(%x: f32[2]) -> f32[2]\n{\n  return %x\n}\n")
    node = Node(
        strategies.ANYTHING,
        graph.inputs,
        Attributes({"arg0": Operand(0), "arg1": (Opaque(object(), "object"),)}),
        [],
        loc=Location("model.py", 3),
    )
    graph.insert(node)
    with pytest.raises(UnsupportedError, match="Opaque") as error:
        canonical(graph)
    assert error.value.where == "model.py:3"


def test_a_value_of_another_graph_is_refused() -> None:
    graph, other = (Graph("g") for _ in range(2))
    graph.set_outputs([other.add_input(TensorType(torch.float32, (2,)))])
    with pytest.raises(VerificationError, match="before it is there"):
        canonical(graph)


# --------------------------------------------------------------------------- random graphs


def _renamed(graph: Graph) -> Graph:
    """A copy of which nothing is called as before, and every node comes from elsewhere."""
    new = graph.copy()
    new.name = "renamed"
    _rename_block(new)
    if new.has_recipes:
        _rename_block(new.prepare)
        new.prepare.prepared_names[:] = [f"new.{name}" for name in new.prepare.prepared_names]
    for constant in new.constants.values():
        constant.name = f"new.{constant.name}"
        constant.aliases = ()
    new.constants = {constant.name: constant for constant in new.constants.values()}
    return new


def _rename_block(graph: Graph) -> None:
    for value in graph.inputs:
        value.hint = "renamed"
    for node in graph:
        node.loc = Location("elsewhere.py", 9)
        for value in node.results:
            value.hint = "renamed"
        for region in node.regions:
            region.name = "renamed"
            _rename_block(region)


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(strategies.wild_graphs())
def test_random_graphs_under_other_names(graph: Graph) -> None:
    text = canonical(graph).text
    assert canonical(_renamed(graph)).text == text
    assert canonical(parse_graph(print_graph(graph))).text == text


def _key(graph: Graph) -> Any:
    """Text and constants: of two sources that differ in contents alone, the text is the same."""
    form = canonical(graph)
    return form.text, [c.name for c in form.given]


def _mutate_type(draw: Any, graph: Graph) -> None:
    values = [*graph.inputs, *(value for node in graph.walk() for value in node.results)]
    assume(values)
    value = draw(st.sampled_from(values))
    new = draw(strategies.types().filter(lambda t: not type_symbols(t)))
    assume(new != value.type)
    value.type = new


def _mutate_wiring(draw: Any, graph: Graph) -> None:
    nodes = [node for node in (*graph, graph.terminator) if node.operands]
    assume(nodes)
    node = draw(st.sampled_from(nodes))
    index = draw(st.integers(0, len(node.operands) - 1))
    before = [*graph.inputs, *graph.constants.values()]
    for earlier in graph:
        if earlier is node:
            break
        before += earlier.results
    old, new = node.operands[index], draw(st.sampled_from(before))
    assume(new is not old)
    assume(not (old in _prepared(graph) and new in _prepared(graph)))  # these may be equal
    node.set_operand(index, new)


def _prepared(graph: Graph) -> list[Any]:
    return [c for c in graph.constants.values() if not c.is_source]


def _mutate_attribute(draw: Any, graph: Graph) -> None:
    plain = [
        (node, name)
        for node in graph.walk()
        for name, item in node.attributes.items()
        if not any(isinstance(leaf, Operand | RegionRef) for leaf in leaves(item))
    ]
    assume(plain)
    node, name = draw(st.sampled_from(plain))
    new = draw(strategies.attributes().filter(lambda a: not free_symbols(leaves(a))))
    changed = Attributes({**node.attributes, name: new})
    assume(changed != node.attributes)
    node.attributes = changed


def _mutate_range(draw: Any, graph: Graph) -> None:
    assume(graph.symbols)
    symbol = draw(st.sampled_from([*graph.symbols]))
    info = graph.symbols[symbol]
    new = draw(st.builds(Range, st.just(1), st.none() | st.just(3), st.integers(3, 99)))
    assume((new,) != info.ranges)
    graph.symbols[symbol] = attrs.evolve(info, ranges=(new,))


def _mutate_ending(draw: Any, graph: Graph) -> None:
    assume(graph.outputs)
    specs = list(graph.results)
    at = draw(st.integers(0, len(specs) - 1))
    specs[at] = ResultSpec(strides=draw(st.tuples(st.integers(0, 9))))
    assume(specs[at] != graph.results[at])
    graph.results = tuple(specs)


MUTATIONS = (_mutate_type, _mutate_wiring, _mutate_attribute, _mutate_range, _mutate_ending)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.removeprefix("_mutate_"))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_random_graphs_with_one_change(mutate: Any, data: st.DataObject) -> None:
    graph = data.draw(strategies.wild_graphs())
    changed = graph.copy()
    mutate(data.draw, changed)
    assert _key(changed) != _key(graph), print_graph(changed)
