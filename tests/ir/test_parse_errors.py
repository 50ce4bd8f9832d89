"""Errors in IR text: what is wrong, at which line and column, and what to do."""

import textwrap

import pytest

from rewright.errors import ParseError
from rewright.ir.parser import parse_graph

# A text with a § where the error is, its message (or the start of it), and the hint.
GRAPHS = {
    "no graph": ("§function @f", "expected 'graph', found 'function'", None),
    "nothing": ("§", "expected 'graph', found the end of the text", None),
    "no name": ("graph §main", "expected the graph's name (@name), found 'main'", None),
    "after the end": (
        "graph @f() -> () { return } §graph",
        "expected the end of the text, found 'graph'",
        None,
    ),
    "not closed": (
        "graph @f() -> () {\n  return§",
        "expected '}' to close the block that opens at 1:18, found the end of the text",
        None,
    ),
    "no return": (
        "graph @f() -> () {\n§}",
        "expected 'return', to end the block that opens at 1:18, found '}'",
        None,
    ),
    "constants not closed": (
        "graph @f() -> () { return }\nconstants {§",
        "expected '}', to close the block that opens at 2:11, found the end of the text",
        None,
    ),
    "input without type": (
        "graph @f(%x§) -> () { return }",
        "expected ':' and the type of the input, found ')'",
        None,
    ),
    "input twice": (
        "graph @f(%x: int, §%x: int) -> () { return }",
        "%x is defined twice",
        "first on line 1",
    ),
    "list not closed": (
        "graph @f(%x: int §%y: int) -> () { return }",
        "expected ')' or ',' in the list that opens at 1:9, found '%y'",
        None,
    ),
    "dtype": (
        "graph @f(%x: §f17[2]) -> () { return }",
        "there is no dtype 'f17'",
        "did you mean f16?",
    ),
    "type": (
        "graph @f(%x: §nine) -> () { return }",
        "there is no type 'nine'",
        "did you mean none?",
    ),
    "shape": (
        "graph @f(%x: f16§) -> () { return }",
        "expected '[' and a shape after f16, found ')'",
        None,
    ),
    "size": (
        "graph @f(%x: f16[§batch]) -> () { return }",
        "'batch' is no symbol: symbols are s0, u0, f0 ...",
        None,
    ),
    "function": (
        "graph @f(%x: f16[§Flor(s0)]) -> () { return }",
        "there is no function 'Flor' of sizes",
        "did you mean 'floor'?",
    ),
    "range": (
        "graph @f(%x: f16[s0])\n-> () where s0 in {§9..3} = dim(%x, 0) { return }",
        "a range needs min <= opt <= max, not 9..3",
        None,
    ),
    "one number": (
        "graph @f(%x: f16[s0])\n-> () where s0 in {§9} = dim(%x, 0) { return }",
        "a range reads min..max or min..opt..max",
        None,
    ),
    "other size": (
        "graph @f(%x: f16[2*s0])\n-> () where §s0 in {1..} = dim(%x, 0) { return }",
        "s0 is given by s0, but there the type of %x says 2*s0",
        None,
    ),
    "symbol twice": (
        "graph @f(%x: f16[s0])\n-> () where s0 in {1..} = dim(%x, 0), §s0 in {1..} = dim(%x, 0)"
        "{ return }",
        "s0 is given twice",
        None,
    ),
    "returned types": (
        "graph @f(%x: int) -> float {\n  §return %x\n}",
        "int is returned, but the header says float",
        None,
    ),
    "constant": (
        "graph @f() -> f16[2] { return §@weigth }\nconstants { parameter @weight : f16[2] }",
        "there is no constant @weigth",
        "did you mean @weight?",
    ),
    "constant twice": (
        "graph @f() -> () { return }\nconstants { buffer @a : int\n buffer §@a : int }",
        "there are two constants called @a",
        None,
    ),
    "kind": (
        "graph @f() -> () { return }\nconstants { §param @a : int }",
        "there is no kind of constant 'param'",
        "did you mean 'parameter'?",
    ),
    "string": (
        'graph @f() -> () { return }\nconstants { buffer §@"a : int }',
        "expected a constant (@name), found '@'",
        None,
    ),
    "write-back": (
        "graph @f() -> () {\n  %y = aten.ones([2]) : f32[2]\n  return\n  writeback §%y = %y\n}",
        "only inputs and constants can be written back",
        None,
    ),
    "recipe too late": (
        "graph @f() -> () { return }\nprepare {\n  %0 = aten.t(§@b) : f16[2]\n"
        "  @b = aten.ones([2]) : f16[2]\n}",
        "@b is used before its recipe",
        "the recipe is on line 4",
    ),
}

# The same for lines in the body of a graph with an input %x.
LINES = {
    "operator": (
        "%y = §aten.reluu(%x) : f32[2]",
        "there is no operator aten.reluu",
        "did you mean aten.relu?",
    ),
    "ours": (
        "%y = §rw.linar(%x) : f32[2]",
        "there is no operator rw.linar",
        "did you mean rw.linear?",
    ),
    "library": (
        "%y = §absentlib.op(%x) : f32[2]",
        "there is no operator absentlib.op",
        "import the library that registers absentlib.op first",
    ),
    "too few results": (
        "%y = §aten.max.dim(%x, 0) : f32[]",
        "aten.max.dim has 2 results, 1 are named here",
        None,
    ),
    "too few types": (
        "%y, %z = §aten.max.dim(%x, 0) : f32[]",
        "2 results named, but 1 types stated",
        None,
    ),
    "no type": (
        "%y = aten.relu(%x)§",
        "expected ':' and the type of what aten.relu gives, found the end of the line",
        None,
    ),
    "no such value": ("%y = aten.relu(§%xx) : f32[2]", "%xx is not defined", "did you mean %x?"),
    "value too early": (
        "%y = aten.relu(§%z) : f32[2]\n%z = aten.relu(%x) : f32[2]",
        "%z is not defined",
        "it is defined after its use, on line 3",
    ),
    "result too early": (
        "%y = aten.relu(§%b) : f32[2]\n%a, %b = aten.max.dim(%x, 0) : f32[], i64[]",
        "%b is not defined",
        "it is defined after its use, on line 3",
    ),
    "value twice": (
        "%y = aten.relu(%x) : f32[2]\n§%y = aten.relu(%x) : f32[2]",
        "%y is defined twice",
        "first on line 2",
    ),
    "missing argument": (
        "%y = §aten.add.Tensor(%x) : f32[2]",
        "aten.add.Tensor needs the argument 'other'",
        None,
    ),
    "argument twice": (
        "%y = aten.relu(self=%x, §self=%x) : f32[2]",
        "the argument 'self' is given twice",
        None,
    ),
    "by place after name": (
        "%y = aten.add.Tensor(self=%x, §%x) : f32[2]",
        "an argument by position follows one by name",
        None,
    ),
    "word": (
        "%y = aten.to.dtype(%x, §float16) : f32[2]",
        "'float16' is no dtype, layout, memory format, device or size symbol",
        "torch.float16 is written f16",
    ),
    "not a location": (
        "%y = aten.relu(%x) : f32[2]  §# CHECK: relu",
        "this is not a location",
        "a location reads `# file.py:41 (module.path) by rule`; other comments stand on lines of "
        "their own",
    ),
    "two on a line": (
        "%y = aten.relu(%x) : f32[2] §%z = aten.relu(%y) : f32[2]",
        "expected the end of the line, found '%z'",
        None,
    ),
    "character": ("%y = aten.relu(%x §$ 1) : f32[2]", "expected ')' or ','", None),
    "open string": (
        '%y = aten.relu(%x, §"a) : f32[2]',
        "this string is not closed on its line",
        None,
    ),
    "no region": (
        "%y = higher_order.cond(%x, §^a, ^b, []) : f32[2]",
        "no region ^a follows this node",
        None,
    ),
    "spare region": (
        "%y = §higher_order.map_impl(^a, [], []) : f32[2]\n"
        "region ^a() -> () { return }\nregion ^b() -> () { return }",
        "the region ^b is no argument of this node",
        None,
    ),
    "region twice": (
        "%y = higher_order.cond(%x, ^a, §^a, []) : f32[2]\nregion ^a() -> () { return }",
        "the region ^a is an argument twice",
        None,
    ),
    "outer value": (
        "%y = higher_order.map_impl(^a, [], []) : f32[2]\nregion ^a() -> f32[2] { return §%x }",
        "%x is not defined",
        "a region sees nothing of the graph around it: make %x an input",
    ),
}
CASES = GRAPHS | {
    name: (f"graph @f(%x: f32[2]) -> () {{\n{lines}\nreturn\n}}", message, hint)
    for name, (lines, message, hint) in LINES.items()
}


@pytest.mark.parametrize("name", CASES)
def test_errors_say_what_where_and_what_to_do(name: str) -> None:
    marked, message, hint = CASES[name]
    text = marked.replace("§", "")
    before = marked.split("§")[0].split("\n")
    with pytest.raises(ParseError) as caught:
        parse_graph(text, filename="case.ir")
    error = caught.value
    assert error.message.startswith(message)
    assert error.hint == hint
    assert (error.line, error.column) == (len(before), len(before[-1]) + 1)
    assert error.where == f"case.ir:{error.line}:{error.column}"
    assert error.source == text.split("\n")[len(before) - 1]


def test_an_error_shows_its_line_with_a_caret() -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(
            "graph @f(%x: f32[2]) -> () {\n  %y = aten.reluu(%x) : f32[2]\n}", filename="a.ir"
        )
    assert str(caught.value) == textwrap.dedent("""\
        there is no operator aten.reluu
          where: a.ir:2:8
                 2 |   %y = aten.reluu(%x) : f32[2]
                   |        ^
          hint: did you mean aten.relu?""")
