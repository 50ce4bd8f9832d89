"""Memory that a graph states of what comes from outside: prepared constants and inputs.

Inductor is told of it, and what is elsewhere is brought there before: constants once, an input
where a caller has it otherwise.
"""

from __future__ import annotations

from rewright.ir.graph import Graph, Node


def layouts_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The strides of the prepared constants whose recipe ends in a layout, by name."""
    if not graph.has_recipes:
        return {}
    recipes = graph.prepare
    found = {
        name: stated(value.producer)
        for name, value in zip(recipes.prepared_names, recipes.outputs, strict=True)
    }
    return {name: strides for name, strides in found.items() if strides is not None}


def stated(node: Node | None) -> tuple[int, ...] | None:
    """The strides that `node` states, where it is a layout and they are numbers."""
    if node is None or node.op.name != "rw.layout":
        return None
    strides = node.attributes["strides"]
    return tuple(strides) if all(isinstance(stride, int) for stride in strides) else None


def entered(graph: Graph) -> dict[int, tuple[int, ...]]:
    """The strides of inputs that nobody reads but in one layout; those layouts are taken out."""
    found = {}
    for number, value in enumerate(graph.inputs):
        layouts = {stated(user) for user in value.users}
        if len(layouts) != 1 or (strides := layouts.pop()) is None:
            continue
        found[number] = strides
        for user in value.users:
            user.result.replace_all_uses(value)
    return found
