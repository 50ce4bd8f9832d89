"""What partitioning did, as data: segments, and the nodes that stay in torch with their reasons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.location import Location
from rewright.ir.ops import SCALAR
from rewright.ir.sizes import bounds
from rewright.ir.types import TensorType
from rewright.passes.partition.advice import advice_on
from rewright.passes.partition.assignment import is_free, tensor_bytes
from rewright.passes.partition.doubles import double_reason
from rewright.store import format_size


@attrs.frozen
class Port:
    """A tensor or number that goes into a segment or comes out of it.

    Attributes:
        name: as the graph calls it.
        type: as text: ``f16[s0, 768]``.
        bytes: of the tensor; None where its size is symbolic.
        most: bytes where all sizes are the largest; None where one has no end.
    """

    name: str
    type: str
    bytes: int | None
    most: int | None = None

    @classmethod
    def of(cls, value: Value, graph: Graph) -> Port:
        """The port for a value of `graph`."""
        held = tensor_bytes([value])
        name = value.hint or str(value.index)
        return cls(name, str(value.type), held, _most(value, graph) if held is None else held)


def _most(value: Value, graph: Graph) -> int | None:
    """The bytes of a tensor where all sizes are the largest; None where one has no end."""
    if not isinstance(value.type, TensorType):
        return None
    ranges = {symbol: info.ranges for symbol, info in graph.symbols.items()}
    count = value.type.dtype.itemsize
    for dim in value.type.shape:
        end = dim if isinstance(dim, int) else bounds(dim, ranges).upper
        if not math.isfinite(end):
            return None
        count *= int(end)
    return count


@attrs.frozen
class SegmentReport:
    """A segment.

    Attributes:
        name: of its region.
        backend: what runs it.
        nodes: in it.
        computing: of these, how many compute something.
        inputs: what goes in, without constants.
        outputs: what comes out.
        constants: how many weights and prepared tensors it uses.
        constant_bytes: their bytes.
    """

    name: str
    backend: str
    nodes: int
    computing: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    constants: int
    constant_bytes: int

    @classmethod
    def of(cls, segment: Node, graph: Graph) -> SegmentReport:
        """What there is to say of a ``rw.segment`` node of `graph`."""
        (region,) = segment.regions
        constants = [v for v in segment.operands if isinstance(v, Constant)]
        return cls(
            region.name,
            segment.attributes["backend"],
            len(region),
            sum(not is_free(node) for node in region),
            tuple(Port.of(v, graph) for v in segment.operands if not isinstance(v, Constant)),
            tuple(Port.of(v, graph) for v in segment.results),
            len(constants),
            tensor_bytes(constants) or 0,
        )


@attrs.frozen
class LeftOut:
    """A node that stays in torch.

    Attributes:
        op: its op.
        name: of its first result.
        where: the user's source line and module.
        reason: why.
        advice: what to change to get it in; empty where nothing is known.
        is_free: whether it computes nothing: a view, a number.
        is_boundary: whether it only casts an input, or what the program gives: no setting changes
            that, and the program is fully compiled with it.
    """

    op: str
    name: str
    where: Location | None
    reason: str
    advice: str = ""
    is_free: bool = False
    is_boundary: bool = False

    @classmethod
    def of(cls, node: Node, reason: str) -> LeftOut:
        """A node, with its reason."""
        name = next((v.hint for v in node.results if v.hint), "")
        double = double_reason(node)
        return cls(
            node.op.name,
            name,
            node.loc,
            reason,
            advice_on(node.op.name, reason),
            is_free(node),
            double is not None and double.is_boundary and double.text == reason,
        )


@attrs.frozen
class PartitionReport:
    """What partitioning did.

    Attributes:
        nodes: how many the graph had.
        segments: what backends run.
        left: what torch runs, with the reason.
    """

    nodes: int
    segments: tuple[SegmentReport, ...] = ()
    left: tuple[LeftOut, ...] = ()

    def __str__(self) -> str:
        """A few lines, as in

        2 segments of tensorrt hold 210 of 212 nodes
        1 of 212 nodes stays in Torch
          aten.nonzero    model.py:97 (router)    TensorRT-RTX can't build data-dependent sizes
        """
        lines = [_headline(self.segments, self.nodes)]
        lines += [f"  {_segment_line(segment)}" for segment in self.segments]
        if self.left:
            verb = "stays" if len(self.left) == 1 else "stay"
            lines.append(f"{len(self.left)} of {self.nodes} nodes {verb} in Torch")
            lines += _columns([(n.op, str(n.where or ""), n.reason) for n in self.left])
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return attrs.asdict(self, value_serializer=_plain)


def _plain(_: Any, __: Any, value: Any) -> Any:
    return str(value) if isinstance(value, Location) else value


def _headline(segments: Sequence[SegmentReport], nodes: int) -> str:
    if not segments:
        return f"no segments; all {nodes} nodes run in Torch"
    counts = Counter(segment.backend for segment in segments)
    held = sum(segment.nodes for segment in segments)
    kinds = ", ".join(f"{n} of {backend}" for backend, n in counts.items())
    return f"segments: {kinds}; they hold {held} of {nodes} nodes"


def _segment_line(segment: SegmentReport) -> str:
    ports = " -> ".join(
        ", ".join(port.type for port in side) or "()" for side in (segment.inputs, segment.outputs)
    )
    held = f"{segment.constants} constants, {format_size(segment.constant_bytes)}"
    return f"{segment.name}: {segment.nodes} nodes, {held}; {ports}"


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for op, where, reason in rows:
        yield f"  {op:{widths[0]}}  {where:{widths[1]}}  {reason}".rstrip()


def report_of(graph: Graph, nodes: int, reasons: dict[Node, str]) -> PartitionReport:
    """What to say of a partitioned graph.

    Args:
        graph: after partitioning.
        nodes: how many it had before.
        reasons: why nodes are with torch.
    """
    segments = tuple(
        SegmentReport.of(node, graph) for node in graph if node.op.name == "rw.segment"
    )
    left = tuple(
        LeftOut.of(node, reasons[node])
        for node in graph
        if node in reasons and node.op is not SCALAR
    )
    return PartitionReport(nodes, segments, left)
