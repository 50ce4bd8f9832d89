"""Short ways to write graphs and rules in tests."""

from rewright.ir.graph import Graph, Node
from rewright.ir.parser import parse_graph
from rewright.passes import Rule, explain


def graph(body: str, inputs: str = "%x: f32[4, 4]", constants: str = "") -> Graph:
    """A graph from the lines of its body; its outputs are what `return` says.

    Args:
        body: nodes, and ``return %y : f32[...]``.
        inputs: typed inputs.
        constants: typed sources, ``@w : f32[4]``, separated by semicolons.
    """
    lines = [line.strip() for line in body.strip().splitlines()]
    returned, _, types = lines[-1].partition(" : ")
    types = f"({types})" if "], " in types else types
    text = f"graph @test({inputs}) -> {types} {{\n"
    text += "".join(f"  {line}\n" for line in [*lines[:-1], returned]) + "}\n"
    if constants:
        sources = "".join(f"  parameter {item.strip()}\n" for item in constants.split(";"))
        text += f"constants {{\n{sources}}}\n"
    return parse_graph(text)


def ops(of: Graph) -> list[str]:
    """The names of the ops of a graph, in order."""
    return [node.op.name for node in of]


def only(of: Graph, op: str) -> Node:
    """The only node of an op."""
    (found,) = [node for node in of if node.op.name == op]
    return found


def refusal(of: Graph, rule: type[Rule], node: Node | None = None) -> str:
    """Why a rule does not fire at its only candidate (or at `node`)."""
    (line,) = explain(of, rule, node)
    return line.partition(": ")[2]
