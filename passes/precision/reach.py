"""How large the numbers can be that a program itself writes down: masks of -3.4e38, say.

What comes from activations and parameters is taken to fit into any dtype: that is the bet of
computing in 16 bits. The numbers that a program states are known, and so are selections, sums and
products of them; buffers, and inputs that are masks of an attention, may hold any.
Infinities fit into every dtype and don't count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rewright.ir.attributes import Operand
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.ops import Trait
from rewright.passes.precision.floats import float_of
from rewright.passes.precision.table import Kind, row_of

ORDINARY: Final = 1.0
"""The reach of numbers of which nothing is known."""

Reach = Mapping[Value, float]
"""The largest number that a value may hold; ordinary ones where it is not mentioned."""

_MASKS: Final = {
    "rw.attention": "mask",
    "aten.scaled_dot_product_attention": "attn_mask",
}
"""The parameter of an attention that is added to the scores."""


def reach_of(graph: Graph) -> Reach:
    """The reach of the values of `graph` and of its recipes, as far as something is known."""
    known: dict[Value, float] = {}
    for constant in graph.constants.values():
        if (
            constant.kind in ("buffer", "nonpersistent", "constant")
            and float_of(constant) is not None
        ):
            known[constant] = math.inf
    if graph.has_recipes:
        _walk(graph.prepare, known)
        for constant in graph.constants.values():
            if not constant.is_source:
                known[constant] = known.get(graph.recipe(constant), ORDINARY)
    masks = _masks(graph)
    floats = (value for value in graph.inputs if float_of(value) is not None)
    known.update((value, math.inf) for value in floats if value in masks)
    _walk(graph, known)
    return known


def stated(node: Node) -> float:
    """The largest finite number among the attributes of `node` that are no sizes."""
    given = (node.attributes.get(name) for name in _NUMBERS)
    return max((_size(item) for item in given), default=0.0)


def _walk(graph: Graph, known: dict[Value, float]) -> None:
    for node in graph:
        rule = _RULES.get(".".join(node.op.name.split(".")[:2]))
        if rule is None and node.op.has(Trait.MOVEMENT):
            rule = _largest
        if rule is None:
            continue
        found = rule(node, [known.get(v, ORDINARY) for v in node.operands])
        if found > ORDINARY:
            known.update((value, found) for value in node.results)


def _masks(graph: Graph) -> set[Value]:
    """The values that are masks of attentions, or from which such are made step by step."""
    found: set[Value] = set()
    for node in reversed(graph):
        given = node.attributes.get(_MASKS.get(node.op.name, ""))
        if isinstance(given, Operand):
            found.add(node.operands[given.index])
        elif row_of(node.op).kind is Kind.FOLLOW and not found.isdisjoint(node.results):
            found.update(node.operands)
    return found


# --------------------------------------------------------------------------- op by op

_NUMBERS: Final = ("fill_value", "value", "other", "min", "max", "s")
"""Parameters that are numbers, and of the dtype of the result."""


def _size(item: Any) -> float:
    """The size of a number; 0 of one that is infinite or none."""
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    return abs(float(item)) if is_number and math.isfinite(item) else 0.0


def _largest(node: Node, operands: Iterable[float]) -> float:
    """Of what selects, adds or keeps."""
    return max([stated(node), *operands])


def _product(node: Node, operands: Iterable[float]) -> float:
    number = node.attributes.get("other")
    scale = 1.0 if isinstance(number, Operand) or number is None else _size(number)
    return math.prod(operands) * scale


def _bounded(node: Node, operands: Iterable[float]) -> float:
    bounds = [node.attributes.get(name) for name in ("min", "max")]
    if all(isinstance(bound, int | float) for bound in bounds):
        return stated(node)
    return _largest(node, operands)


def _cast(node: Node, operands: Iterable[float]) -> float:
    """Of integers nothing is known: as floats they are not lowered anyway."""
    return max(operands, default=ORDINARY) if float_of(node.operands[0]) else ORDINARY


_RULES: Final[dict[str, Callable[[Node, list[float]], float]]] = {
    **dict.fromkeys(
        (
            f"aten.{name}"
            for name in (
                "full new_full full_like scalar_tensor fill masked_fill where add sub rsub neg abs "
                "maximum minimum gather index index_select tril triu constant_pad_nd pad relu"
            ).split()
        ),
        _largest,
    ),
    "aten.mul": _product,
    "aten.clamp": _bounded,
    "aten._to_copy": _cast,
}
"""How far the results of an op reach, given the node and the reach of its operands.

All other ops give ordinary numbers: what is normalised, multiplied as matrices or activated.
"""
