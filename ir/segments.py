"""Segments as programs of their own, as the backends that run them want them."""

from __future__ import annotations

import attrs

from rewright.ir.copying import copy_into
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.ops import SEGMENT


@attrs.frozen(eq=False)
class SegmentProgram:
    """The region of a segment as a graph with constants.

    Attributes:
        graph: takes what the segment takes without its constants, and returns what it returns.
            Constants that the program writes to are inputs: each call may find other numbers.
        inputs: which operands of the segment its inputs are, in order.
    """

    graph: Graph
    inputs: tuple[int, ...]


def segments_of(graph: Graph) -> tuple[Node, ...]:
    """The segments of a program, in order."""
    return tuple(node for node in graph if node.op is SEGMENT)


def segment_program(segment: Node) -> SegmentProgram:
    """The region of `segment` as a program: inputs that are constants outside are constants.

    A constant of the program is a source, with the data of the one outside; a prepared one has no
    data until it is bound.
    """
    (region,) = segment.regions
    made = Graph(region.name, device=region.device, stage=region.stage)
    copies: dict[Value, Value] = {}
    inputs: list[int] = []
    written = {*segment.graph.targets}
    for index, (value, outside) in enumerate(zip(region.inputs, segment.operands, strict=True)):
        if not isinstance(outside, Constant) or outside in written:
            inputs.append(index)
            copies[value] = made.add_input(value.type, value.hint)
        elif outside.name in made.constants:  # two operands, one constant
            copies[value] = made.constants[outside.name]
        else:
            kind = outside.kind if outside.is_source else "constant"
            copies[value] = made.add_constant(
                outside.name, value.type, kind=kind, data=outside.data, aliases=outside.aliases
            )
    copy_into(made, region, copies)
    made.set_outputs([copies[value] for value in region.outputs])
    for symbol, info in region.symbols.items():
        made.symbols[symbol] = SymbolInfo(info.ranges, copies[info.binding], info.dim)
    return SegmentProgram(made, tuple(inputs))
