"""What a program is made of: its parts, what runs each, and what to change to get more in.

``print(program.report())`` is plain text; ``program.report().show()`` a table where standard
output is a terminal; ``to_json()`` plain data; ``to_html()`` a page that needs nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from rewright.artifact.parts import Part, rows
from rewright.passes.partition.report import LeftOut, PartitionReport, Port
from rewright.store import format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rewright.backends.tensorrt.segment import Segment
    from rewright.program import CompiledProgram

__all__ = ["EngineReport", "Report", "report_of"]


@attrs.frozen
class EngineReport:
    """The engine of a segment.

    Attributes:
        segment: the segment's name.
        library: what it was built with; empty before it is built.
        layers: of its network.
        bytes: of the engine.
        seconds: that the build took.
        profiles: how many optimization profiles it has; 0 where no size varies.
        can_be_refitted: whether its weights can be changed without another build.
        log: what TensorRT complained of during the build.
    """

    segment: str
    library: str = ""
    layers: int = 0
    bytes: int = 0
    seconds: float = 0.0
    profiles: int = 0
    can_be_refitted: bool = False
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, segment: Segment) -> EngineReport:
        """What there is to say of a segment's engine."""
        engine = segment.engine
        if engine is None:
            return cls(segment.name)
        return cls(
            segment.name, engine.library, engine.layers, len(engine.data), engine.seconds,
            engine.profiles, bool(engine.form), engine.log,
        )  # fmt: skip

    def __str__(self) -> str:
        if not self.library:
            return f"{self.segment}: not built yet, its weights come with the first call"
        return (
            f"{self.segment}: {self.layers} layers, {format_size(self.bytes)}, "
            f"built by {self.library} in {self.seconds:.1f} s"
        )


@attrs.frozen(repr=False)
class Report:
    """What a program is made of.

    Attributes:
        name: the program's.
        device: where it runs.
        parts: how much there is of each of :data:`~rewright.artifact.parts.PARTS`, which says what
            they are; ``rewright inspect`` has the same of a saved program.
        symbols: the sizes that vary, with their ranges, as text.
        torch_backend: what runs what stays in Torch.
        cuda_graphs: what became of the calls where they are to be captured; None where not.
        engines: those of its segments.
        partition: which backend runs what, and why the rest stays in Torch; None where all of
            it runs in Torch.
    """

    name: str
    device: str
    parts: Mapping[str, Part]
    symbols: tuple[str, ...]
    torch_backend: str
    cuda_graphs: str | None = None
    engines: tuple[EngineReport, ...] = ()
    partition: PartitionReport | None = None

    def __str__(self) -> str:
        """A few lines of plain text."""
        return "\n".join(
            [
                f"program {self.name} on {self.device}",
                *(f"  {label:<10} {text}" for label, text in rows(self.parts)),
                f"  symbols    {', '.join(self.symbols) or 'none'}",
                f"  backend    torch ({self.torch_backend})",
                *([f"  cuda graphs {self.cuda_graphs}"] if self.cuda_graphs is not None else []),
                *(f"  engine     {engine}" for engine in self.engines),
                *([str(self.partition)] if self.partition is not None else []),
            ]
        )

    __repr__ = __str__

    def __contains__(self, text: str) -> bool:
        """Whether the plain text has `text`."""
        return text in str(self)

    def engine(self, segment: str) -> EngineReport | None:
        """The engine of the segment called so; None where it has none."""
        return next((each for each in self.engines if each.segment == segment), None)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        own = attrs.asdict(self, filter=lambda field, _: field.name != "partition")
        return own | {"partition": self.partition.to_json() if self.partition else None}

    def to_html(self) -> str:
        """The report as a page: light and dark, with no scripts, and nothing from the network."""
        from rewright.report_html import page

        return page(self)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        from rewright.report_html import body

        return body(self)

    def show(self, file: TextIO | None = None) -> None:
        """Prints the report: as tables where `file` is a terminal, else as plain text.

        Args:
            file: standard output by default.
        """
        from rich.console import Console

        stream = sys.stdout if file is None else file
        console = Console(file=stream)
        if console.is_terminal:
            console.print(self)
        else:
            print(self, file=stream)

    def __rich__(self) -> RenderableType:
        """The report as tables, for rich."""
        from rich.console import Group
        from rich.text import Text

        head = str(attrs.evolve(self, engines=(), partition=None))
        parts: list[RenderableType] = [Text(head)]
        if self.partition is not None:
            parts += [Text(), *_segments(self, self.partition), *_left(self.partition)]
        return Group(*parts)


def _segments(report: Report, partition: PartitionReport) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    headline = Text(str(attrs.evolve(partition, left=())).partition("\n")[0], style="bold")
    if not partition.segments:
        return [headline]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, kind in (("segment", "left"), ("backend", "left"), ("nodes", "right"),
                       ("constants", "right"), ("engine", "right"), ("in", "left"),
                       ("out", "left")):  # fmt: skip
        table.add_column(name, justify=kind, overflow="fold")  # type: ignore[arg-type]
    for segment in partition.segments:
        engine = report.engine(segment.name)
        held = format_size(engine.bytes) if engine and engine.library else "-"
        table.add_row(
            segment.name, segment.backend, str(segment.nodes), format_size(segment.constant_bytes),
            held, _ports(segment.inputs), _ports(segment.outputs),
        )  # fmt: skip
    return [headline, table]


def _ports(ports: tuple[Port, ...]) -> RenderableType:
    from rich.text import Text

    return Text("\n".join(f"{port.type}{_bytes(port)}" for port in ports) or "-")


def _bytes(port: Port) -> str:
    return f"  {port_size(port)}" if port.most is not None else ""


def port_size(port: Port) -> str:
    """The bytes of a port as people read them."""
    if port.bytes is not None:
        return format_size(port.bytes)
    return f"up to {format_size(port.most)}" if port.most is not None else "any size"


def _left(partition: PartitionReport) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if not partition.left:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("node", "where", "why it stays, and what to change"):
        table.add_column(name, overflow="fold")
    for (op, reason, advice), nodes in grouped(partition.left).items():
        count = f" x {len(nodes)}" if len(nodes) > 1 else ""
        why = Text(reason)
        if advice:
            why.append(f"\n{advice}", style="green")
        table.add_row(Text(f"{op}{count}"), Text(places(nodes)), why)
    verb = "stays" if len(partition.left) == 1 else "stay"
    said = f"{len(partition.left)} of {partition.nodes} nodes {verb} in Torch"
    return [Text(), Text(said, style="bold"), table]


def grouped(left: tuple[LeftOut, ...]) -> dict[tuple[str, str, str], list[LeftOut]]:
    """Nodes with the same op, reason and advice, in order of their first."""
    found: dict[tuple[str, str, str], list[LeftOut]] = {}
    for node in left:
        found.setdefault((node.op, node.reason, node.advice), []).append(node)
    return found


def places(nodes: list[LeftOut], most: int = 3) -> str:
    """Where nodes come from, each place once; the number of those that are left out."""
    known = [*dict.fromkeys(str(node.where) for node in nodes if node.where)]
    more = [f"and {len(known) - most} more"] if len(known) > most else []
    return "\n".join([*known[:most], *more])


def report_of(program: CompiledProgram) -> Report:
    """The report of a program."""
    graph = program.graph
    return Report(
        name=graph.name,
        device=str(graph.device),
        parts=program._parts(),
        symbols=tuple(
            f"{symbol} in {{{' | '.join(map(str, info.ranges))}}}"
            for symbol, info in graph.symbols.items()
        ),
        torch_backend=program.settings.torch_backend,
        cuda_graphs=None if program.cuda_graphs is None else str(program.cuda_graphs),
        engines=tuple(EngineReport.of(segment) for segment in program.segments),
        partition=program.partition,
    )
