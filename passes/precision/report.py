"""What ran in what, as data: each node with its dtype, and the reason where it is not the one.

precision fp16: 34 nodes in f16, 6 in f32, 2 casts, 5 without floating-point numbers
weights: 17 cast when the program is prepared
  f16   14  rw.linear
  f32    2  aten.softmax.int    a softmax adds exponentials
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import attrs

from rewright.ir.graph import Graph, Node
from rewright.ir.location import Location
from rewright.ir.types import DTYPE_NAMES
from rewright.passes.precision.assignment import Decisions
from rewright.passes.precision.floats import PRECISIONS, floats_of, is_float_cast

if TYPE_CHECKING:
    from rich.console import Group

CAST: Final = "cast"
"""What a node that only changes the dtype counts as."""

OTHER: Final = "-"
"""What a node without floating-point numbers counts as."""


@attrs.frozen
class NodePrecision:
    """A node.

    Attributes:
        op: its op.
        name: of its first result.
        where: the user's source line and module.
        dtype: what it computes in: ``f16``, ``f32+f16`` where it takes and gives several, ``cast``
            or ``-`` (see :data:`CAST` and :data:`OTHER`).
        reason: why that is not the dtype that was asked for; empty where it is.
    """

    op: str
    name: str
    where: Location | None
    dtype: str
    reason: str = ""


@attrs.frozen
class PrecisionReport:
    """What ran in what.

    Attributes:
        precision: what was asked for: ``fp16``, ``bf16`` or ``fp32``.
        nodes: every node of the graph, in order.
        weights: how many constants are cast when the program is prepared.
    """

    precision: str
    nodes: tuple[NodePrecision, ...] = ()
    weights: int = 0

    @property
    def totals(self) -> dict[str, int]:
        """How many nodes compute in each dtype, the most frequent first; casts and others last."""
        counts = Counter(node.dtype for node in self.nodes)
        order = sorted(counts, key=lambda kind: (kind in (CAST, OTHER), -counts[kind], kind))
        return {kind: counts[kind] for kind in order}

    @property
    def kept(self) -> tuple[NodePrecision, ...]:
        """The nodes that compute in another dtype than was asked for, with their reasons."""
        return tuple(node for node in self.nodes if node.reason)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            **attrs.asdict(self, value_serializer=_plain),
            "totals": self.totals,
        }

    def __rich__(self) -> Group:
        """The report as a table in a terminal."""
        from rich.console import Group  # a third of a second, of every compile
        from rich.table import Table

        table = Table(box=None)
        table.add_column("dtype")
        table.add_column("nodes", justify="right")
        table.add_column("op")
        table.add_column("why")
        for dtype, count, op, reason in self._rows():
            table.add_row(dtype, str(count), op, reason)
        return Group(self._headline(), table)

    def __str__(self) -> str:
        """The same, without colors."""
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=160, color_system=None, soft_wrap=True).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())

    def _headline(self) -> str:
        words = {CAST: "casts", OTHER: "without floating-point numbers"}
        parts = [f"{n} {words.get(kind, f'in {kind}')}" for kind, n in self.totals.items()]
        counted = f"{len(self.nodes)} nodes: {', '.join(parts)}" if parts else "no nodes"
        return f"precision {self.precision}, {counted}; {self.weights} weights cast beforehand"

    def _rows(self) -> Iterable[tuple[str, int, str, str]]:
        """For each dtype, op and reason, how often."""
        counts = Counter((n.dtype, n.op, n.reason) for n in self.nodes if n.dtype != OTHER)
        order = [*self.totals]
        for key in sorted(counts, key=lambda key: (order.index(key[0]), -counts[key], key)):
            dtype, op, reason = key
            yield dtype, counts[key], op, reason


def _plain(_: Any, __: Any, value: Any) -> Any:
    return str(value) if isinstance(value, Location) else value


def report_of(graph: Graph, precision: str, decisions: Decisions, weights: int) -> PrecisionReport:
    """What to say of a graph that has its dtypes.

    Args:
        graph: after the pass.
        precision: what was asked for.
        decisions: what was decided of the nodes that were there before.
        weights: how many constants are cast when the program is prepared.
    """
    wanted = DTYPE_NAMES[PRECISIONS[precision]]
    nodes = []
    for node in graph:
        dtype = _dtype(node)
        decision = decisions.get(node)
        reason = decision.reason if decision is not None else ""
        name = next((v.hint for v in node.results if v.hint), "")
        why = reason if dtype not in (wanted, CAST, OTHER) else ""
        nodes.append(NodePrecision(node.op.name, name, node.loc, dtype, why))
    return PrecisionReport(precision, tuple(nodes), weights)


def _dtype(node: Node) -> str:
    if is_float_cast(node):
        return CAST
    results = floats_of(node.results) or floats_of(node.operands)
    found = results | floats_of(node.operands)
    return "+".join(sorted((DTYPE_NAMES[d] for d in found), key=_width)) or OTHER


def _width(name: str) -> tuple[int, str]:
    return -int("".join(c for c in name[1:] if c.isdigit())[:2] or 0), name
