"""Text: graphs print as people expect, and parse to the very same graphs."""

import re
import textwrap

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from rewright.errors import ParseError
from rewright.ir.attributes import Attributes, Opaque, Operand
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Node
from rewright.ir.interpreter import interpret
from rewright.ir.lexer import Tokens
from rewright.ir.literals import format_attribute, parse_attribute
from rewright.ir.location import Location
from rewright.ir.ops import get_op
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_excerpt, print_graph, print_node
from rewright.ir.types import OpaqueType, ScalarType, TensorType
from rewright.ir.verifier import verify
from tests.ir.compare import assert_same
from tests.ir.programs import Program, programs
from tests.ir.strategies import attributes, wild_graphs

random_graphs = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

BLOCK = """\
graph @block(%x: f16[s0, 128], %n: int(u0)) -> (f16[s0, 64], f16[s0, 64])
  where s0 in {1..8..32, 33..64..64} = dim(%x, 0),
        u0 in {0..} = %n
  device cuda:0, stage fused
{
  %qk = aten.linear(%x, @qk.weight) : f16[s0, 128]                      # model.py:41 (attn) by qkv
  %q, %k = aten.chunk(%qk, 2, dim=1) : f16[s0, 64], f16[s0, 64]         # model.py:42 (attn)
  %p = aten.any(%q) : bool[]                                            # model.py:43
  aten._assert_async(%p)
  %0 = higher_order.cond(%p, ^yes, ^no, [%q, 2]) : f16[s0, 64]
    region ^yes(%x: f16[s0, 64], %0: int) -> f16[s0, 64]
      where s0 in {1..32} = dim(%x, 0)
    {
      %relu = aten.relu(%x) : f16[s0, 64]                               # model.py:44
      return %relu
    }
    region ^no(%x: f16[s0, 64], %0: int) -> f16[s0, 64] {
      return %x
    }
  return %0, %k {strides=[1, s0], alias=%x |> aten.slice.Tensor(dim=1) |> aten.chunk(2)[1]}
  writeback @cache = %k
}
constants {
  parameter @q.weight : f16[64, 128]
  parameter @"k weight" : f16[64, 128] also @tied.weight, @"tied twice"
  buffer @cache : f16[s0, 64]
}
prepare {
  @qk.weight = aten.cat([@q.weight, @"k weight"]) : f16[128, 128]       # model.py:30
  @again = @qk.weight
}"""


def parse(text: str) -> Graph:
    return parse_graph(textwrap.dedent(text).strip())


# --------------------------------------------------------------------------- whole graphs


def test_block_reads_back_and_prints_the_same() -> None:
    graph = parse_graph(BLOCK)
    assert print_graph(graph) == BLOCK


def test_parts_of_the_block() -> None:
    graph = parse_graph(BLOCK)
    assert (graph.name, graph.device, graph.stage) == ("block", "cuda:0", "fused")
    assert [str(info.equation) for info in graph.symbols.values()] == ["s0", "u0"]
    linear, split, _, _, cond = graph
    assert linear.loc == Location("model.py", 41, "attn", ("qkv",))
    assert [value.hint for value in split.results] == ["q", "k"]
    assert split.attributes == Attributes({"self": Operand(0), "chunks": 2, "dim": 1})
    assert [region.name for region in cond.regions] == ["yes", "no"]
    assert all((r.device, r.stage, r.parent) == ("cuda:0", "fused", cond) for r in cond.regions)
    spec = graph.results[1]
    assert spec.alias is graph.inputs[0]
    assert [(step.op.name, step.pick) for step in spec.views] == [
        ("aten.slice.Tensor", 0),
        ("aten.chunk", 1),
    ]
    assert graph.constants["k weight"].aliases == ("tied.weight", "tied twice")
    recipe = graph.recipe(graph.constants["qk.weight"])
    assert graph.recipe(graph.constants["again"]) is recipe
    assert recipe.producer is not None
    assert recipe.producer.operands == (graph.constants["q.weight"], graph.constants["k weight"])
    assert graph.writebacks == ((graph.constants["cache"], split.results[1]),)


@random_graphs
@given(wild_graphs())
def test_any_graph_reads_back(graph: Graph) -> None:
    text = print_graph(graph)
    parsed = parse_graph(text)
    assert_same(graph, parsed)
    assert print_graph(parsed) == text


@random_graphs
@given(programs())
def test_programs_read_back_and_compute_the_same(program: Program) -> None:
    graph = program.graph
    verify(graph, retype=True)
    text = print_graph(graph)
    parsed = parse_graph(text)
    verify(parsed, retype=True)
    assert print_graph(parsed) == text
    assert_same(graph, parsed)
    for name, constant in graph.constants.items():
        parsed.constants[name].data = constant.data
    before, after = (interpret(g, program.inputs) for g in (graph, parsed))
    for a, b in zip(
        before.outputs + before.writebacks, after.outputs + after.writebacks, strict=True
    ):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_long_graphs_need_no_deep_stack() -> None:
    graph = Graph()
    value = graph.add_input(TensorType(torch.float32, (2,)), "x")
    relu = get_op("aten.relu")
    for _ in range(5000):
        node = Node(relu, (value,), Attributes({"self": Operand(0)}), (value.type,))
        value = graph.insert(node).result
    graph.set_outputs([value])
    text = print_graph(graph)
    assert text.splitlines()[5000] == "  %4999 = aten.relu(%4998) : f32[2]"
    assert print_graph(parse_graph(text)) == text


def test_locations_can_be_left_out() -> None:
    text = print_graph(parse_graph(BLOCK), locations=False)
    assert "#" not in text
    assert all(node.loc is None for node in parse_graph(text))


def test_a_long_header_has_a_line_for_each_input() -> None:
    graph = Graph()
    for number in range(4):
        graph.add_input(TensorType(torch.float32, (1024, 1024)), f"argument_{number}")
    graph.set_outputs([])
    assert print_graph(graph) == textwrap.dedent("""\
        graph @main(
          %argument_0: f32[1024, 1024],
          %argument_1: f32[1024, 1024],
          %argument_2: f32[1024, 1024],
          %argument_3: f32[1024, 1024],
        ) -> () {
          return
        }""")
    assert_same(graph, parse_graph(print_graph(graph)))


# --------------------------------------------------------------------------- names


def test_names_are_made_unique_and_stay() -> None:
    graph = Graph()
    kind = TensorType(torch.float32, ())
    for hint in ("x", "", "x", "x_1", "a.b", "7", "2d", "", "x"):
        graph.add_input(kind, hint)
    graph.set_outputs([])
    names = "%x %0 %x_1 %x_2 %a_b %1 %_2d %2 %x_3".split()
    text = print_graph(graph)
    assert re.findall(r"%\w+", text) == names
    assert print_graph(parse_graph(text)) == text


def test_numbers_of_unnamed_values_follow_their_order() -> None:
    graph = parse("""
        graph @main(%5: f32[2]) -> f32[2] {
          %3 = aten.relu(%5) : f32[2]
          return %3
        }""")
    assert "%1 = aten.relu(%0)" in print_graph(graph)


def test_regions_of_one_name_are_told_apart() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(torch.bool, ()), "x")
    regions = []
    for _ in range(2):
        regions.append(Graph("body"))
        regions[-1].set_outputs([regions[-1].add_input(x.type, "y")])
    made = Builder(graph).call("higher_order.cond", x, *regions, [x])
    graph.set_outputs(made)
    text = print_graph(graph)
    assert "(%x, ^body, ^body_1, [%x])" in text
    assert print_graph(parse_graph(text)) == text


# --------------------------------------------------------------------------- arguments


def arguments(line: str) -> str:
    """How the arguments of a line print after it was parsed."""
    graph = parse(f"""
        graph @main(%x: f32[2, 2], %y: f32[2, 2]) -> () {{
          %r = {line} : f32[2, 2]
          return
        }}""")
    verify(graph)
    return print_node(next(iter(graph))).split(" = ")[1].split(" : ")[0]


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("aten.add.Tensor(%x, %y)", "aten.add.Tensor(%x, %y)"),
        ("aten.add.Tensor(other=%y, self=%x)", "aten.add.Tensor(%x, %y)"),
        ("aten.add.Tensor(%x, alpha=2, other=%y,)", "aten.add.Tensor(%x, %y, alpha=2)"),
        ("aten.add.Tensor(%x, %y, alpha=1)", "aten.add.Tensor(%x, %y)"),
        ("aten.linear(%x, %y, None)", "aten.linear(%x, %y)"),
        ("aten.linear(%x, weight=%y, bias=%x)", "aten.linear(%x, %y, %x)"),
        ("aten.clamp.Tensor(%x, max=%y)", "aten.clamp.Tensor(%x, max=%y)"),
        ("aten.clamp.Tensor(%x, %y, %x)", "aten.clamp.Tensor(%x, %y, %x)"),
        ("aten.clamp(%x, -0.0, inf)", "aten.clamp(%x, min=-0.0, max=inf)"),
        ("aten._to_copy(%x, dtype=f16)", "aten._to_copy(%x, dtype=f16)"),
        ("aten.to.device(%x, cuda:0, f16)", "aten.to.device(%x, cuda:0, f16)"),
        ("aten.sum.dim_IntList(%x, [0, ], True)", "aten.sum.dim_IntList(%x, [0], keepdim=True)"),
        ('rw.scalar({a=1, "b c"=[True]})', 'rw.scalar({a=1, "b c"=[True]})'),
    ],
)
def test_arguments_are_read_in_any_mix(written: str, printed: str) -> None:
    assert arguments(written) == printed


def test_a_symbol_that_is_spelled_like_a_dtype_has_brackets() -> None:
    line = "%r = rw.scalar([u8, (u8), u8 + 1, f16, (f16)]) : none"
    node = next(iter(parse(f"graph @main() -> () {{\n{line}\nreturn\n}}")))
    assert print_node(node) == line
    items = node.attributes["value"]
    assert items[0] is torch.uint8
    assert str(items[1]) == "u8"
    assert items[3] is torch.float16


@given(attributes())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_attribute_reads_back(value: object) -> None:
    text = format_attribute(value)
    assert "\n" not in text
    tokens = Tokens(text)
    assert Attributes({"": parse_attribute(tokens)}) == Attributes({"": value})
    assert tokens.next.kind == "end"


def test_a_type_may_span_lines() -> None:
    graph = parse("graph @main(%a: f32[2,\n3], %b: f32[2,\n4], %c: f32[2, 4]) -> () { return }")
    assert [str(value.type) for value in graph.inputs] == ["f32[2, 3]", "f32[2, 4]", "f32[2, 4]"]


def test_types_that_are_no_tensors_read_back() -> None:
    text = (
        "graph @main(%a: none, %b: int, %c: float(nan), %d: bool(s0 == 4), %e: object<str list>, "
    )
    graph = parse(f"{text}%f: c64[] on cuda:1) -> () {{ return }}")
    assert graph.inputs[2].type == ScalarType("float", float("nan"))
    assert graph.inputs[4].type == OpaqueType("str list")
    assert graph.inputs[5].type == TensorType(torch.complex64, (), "cuda:1")
    assert_same(graph, parse_graph(print_graph(graph)))


# --------------------------------------------------------------------------- nodes


def test_print_node_names_values_as_the_graph_does() -> None:
    nodes = list(parse_graph(BLOCK))
    line = "%qk = aten.linear(%x, @qk.weight) : f16[s0, 128]"
    assert print_node(nodes[0]) == line
    assert print_node(nodes[0], location=True) == f"{line}  # {nodes[0].loc}"
    assert print_node(nodes[4]) == "%0 = higher_order.cond(%p, ^yes, ^no, [%q, 2]) : f16[s0, 64]"
    assert "aten.relu" in print_node(nodes[4], regions=True)
    assert print_node(nodes[0].graph.terminator).startswith("return %0, %k {strides=[1, s0]")


def test_excerpt_points_at_the_node() -> None:
    nodes = list(parse_graph(BLOCK))
    assert print_excerpt(nodes[3], around=1) == textwrap.dedent("""\
           %p = aten.any(%q) : bool[]  # model.py:43
        -> aten._assert_async(%p)
           %0 = higher_order.cond(%p, ^yes, ^no, [%q, 2]) : f16[s0, 64]""")
    assert print_excerpt(nodes[0].graph.terminator, around=0).startswith("-> return %0, %k")


def test_broken_graphs_print() -> None:
    graph, other = parse_graph(BLOCK), parse_graph(BLOCK)
    foreign = next(iter(other)).result
    split = list(graph)[1]
    split.set_operand(0, foreign)
    assert "aten.chunk(%<qk>, 2, dim=1)" in print_graph(graph)
    graph.results = ()
    assert print_node(graph.terminator).startswith("return %0, %k\n")
    graph.targets = (graph.inputs[0],) * 9
    assert print_node(graph.terminator).count("writeback") == 3
    detached = Node(get_op("aten.relu"), (foreign,), Attributes({"self": Operand(0)}), ())
    assert print_node(detached) == "aten.relu(%<qk>)"
    detached.attributes = Attributes({"self": Operand(3)})
    assert print_node(detached) == "aten.relu(<Operand(index=3)>)"


def test_opaque_attributes_print_but_do_not_parse() -> None:
    graph = Graph()
    Builder(graph).call("rw.scalar", Opaque(object(), 'it "is'), types=[OpaqueType("object")])
    graph.set_outputs([])
    text = print_graph(graph)
    assert '%0 = rw.scalar(<it "is>) : object<object>' in text
    with pytest.raises(ParseError, match="stands for a Python object, which has no text"):
        parse_graph(text)
