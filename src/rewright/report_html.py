"""The report of a program as a page: one file, no scripts, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from rewright.artifact.parts import rows
from rewright.passes.partition.report import LeftOut, PartitionReport, Port, SegmentReport
from rewright.report import Report, grouped, places, port_size
from rewright.store import format_size

if TYPE_CHECKING:
    from rewright.report import EngineReport

__all__ = ["body", "page"]

_STYLE: Final = """
.rewright { color-scheme: light dark;
  --ink: light-dark(#1c2024, #e8eaed); --soft: light-dark(#5f6770, #9aa3ad);
  --line: light-dark(#d9dee3, #363c43); --card: light-dark(#ffffff, #1d2125);
  --engine: light-dark(#2f6f4f, #6fc395); --torch: light-dark(#b4561f, #e59a66);
  --tint: light-dark(#eef5f1, #20302a);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
.rewright h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
.rewright h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
.rewright p { margin: .25rem 0; }
.rewright .soft { color: var(--soft); }
.rewright code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.rewright dl { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; margin: 1rem 0; }
.rewright dt { color: var(--soft); font-size: .82rem; }
.rewright dd { margin: 0; font-variant-numeric: tabular-nums; }
.rewright .share { display: flex; height: 12px; border-radius: 6px; overflow: hidden; gap: 2px;
  margin: 1rem 0 .4rem; }
.rewright .share i { background: var(--engine); }
.rewright .share i.torch { background: var(--torch); }
.rewright .key { display: inline-block; width: .75em; height: .75em; border-radius: 3px;
  margin-right: .4em; background: var(--engine); }
.rewright .key.torch { background: var(--torch); margin-left: 1.2em; }
.rewright .scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
.rewright table { border-collapse: collapse; width: 100%; min-width: 44rem; }
.rewright th, .rewright td { text-align: left; vertical-align: top; padding: .45rem .8rem;
  border-top: 1px solid var(--line); }
.rewright tr:first-child > * { border-top: 0; }
.rewright th { color: var(--soft); font-weight: 500; font-size: .82rem; white-space: nowrap; }
.rewright td.number, .rewright th.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.rewright td .name, .rewright td .soft.size { white-space: nowrap; }
.rewright td ul { margin: 0; padding: 0; list-style: none; }
.rewright td .advice { color: var(--engine); }
.rewright td .advice::before { content: "\\2192\\00a0"; }
.rewright details > summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
"""

_PAGE_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 0; background: light-dark(#f5f6f7, #14171a); }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
"""


def page(report: Report) -> str:
    """The report as a whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.name)}</title>\n<style>{_PAGE_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body(report)}\n</main>\n</body>\n</html>\n"
    )


def body(report: Report) -> str:
    """The report as a part of a page, with its style."""
    parts = [f"<style>{_STYLE}</style>", '<div class="rewright">', *_head(report)]
    if report.partition is not None:
        parts += _share(report.partition)
        parts += _segments(report, report.partition)
        parts += _left(report.partition)
    return "\n".join([*parts, "</div>"])


def _head(report: Report) -> Iterable[str]:
    yield f"<h1>{escape(report.name)}</h1>"
    facts = {
        "runs on": report.device,
        **dict(rows(report.parts)),
        "sizes that vary": ", ".join(report.symbols) or "none",
        "Torch runs its part by": report.torch_backend,
    }
    if report.cuda_graphs is not None:
        facts["CUDA graphs"] = report.cuda_graphs
    shown = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    yield f"<dl>{''.join(shown)}</dl>"


def _share(partition: PartitionReport) -> Iterable[str]:
    """How many nodes are in segments, as a bar and in words."""
    held = sum(segment.nodes for segment in partition.segments)
    bars = [f'<i style="flex: {s.nodes}" title="{escape(s.name)}"></i>' for s in partition.segments]
    if partition.left:
        bars.append(f'<i class="torch" style="flex: {len(partition.left)}" title="Torch"></i>')
    yield f'<div class="share">{"".join(bars)}</div>'
    yield (
        f'<p class="soft"><span class="key"></span>{held:,} nodes in '
        f"{_count(len(partition.segments), 'segment')}"
        f'<span class="key torch"></span>{_count(len(partition.left), "node")} in Torch</p>'
    )


def _segments(report: Report, partition: PartitionReport) -> Iterable[str]:
    if not partition.segments:
        return
    yield "<h2>Segments</h2>"
    head = ("segment", "#nodes", "constants", "goes in", "comes out", "engine")
    rows = [_segment(segment, report.engine(segment.name)) for segment in partition.segments]
    yield _table(head, rows)


def _segment(segment: SegmentReport, engine: EngineReport | None) -> Sequence[str]:
    return (
        f'<code class="name">{escape(segment.name)}</code><br>'
        f'<span class="soft">{escape(segment.backend)}</span>',
        _nodes(segment),
        f"{format_size(segment.constant_bytes)}<br>"
        f'<span class="soft">{_count(segment.constants, "tensor").replace(" ", "&nbsp;")}</span>',
        _ports(segment.inputs),
        _ports(segment.outputs),
        _engine(engine),
    )


def _nodes(segment: SegmentReport) -> str:
    if segment.computing == segment.nodes:
        return f"{segment.nodes:,}"
    return f'{segment.nodes:,}<br><span class="soft">{segment.computing:,}&nbsp;compute</span>'


def _engine(engine: EngineReport | None) -> str:
    if engine is None:
        return '<span class="soft">none</span>'
    if not engine.library:
        return '<span class="soft">built with the first call</span>'
    about = [f"{engine.layers:,} layers", f"{engine.seconds:.1f} s", escape(engine.library)]
    if engine.profiles > 1:
        about.append(f"{engine.profiles} profiles")
    if engine.can_be_refitted:
        about.append("weights can be changed")
    said = f'{format_size(engine.bytes)}<br><span class="soft">{" · ".join(about)}</span>'
    if engine.log:
        lines = "".join(f"<li><code>{escape(line)}</code></li>" for line in engine.log)
        said += f"<details><summary>build log</summary><ul>{lines}</ul></details>"
    return said


def _ports(ports: Sequence[Port]) -> str:
    return (
        f"<ul>{''.join(map(_port, ports))}</ul>" if ports else '<span class="soft">nothing</span>'
    )


def _port(port: Port) -> str:
    size = port_size(port)
    return (
        f"<li><code>{escape(port.name)}: {escape(port.type)}</code> "
        f'<span class="soft size">{size}</span></li>'
    )


def _left(partition: PartitionReport) -> Iterable[str]:
    if not partition.left:
        return
    yield "<h2>What stays in Torch</h2>"
    rows = [_left_row(key, nodes) for key, nodes in grouped(partition.left).items()]
    yield _table(("node", "where", "why, and what to change"), rows)


def _left_row(key: tuple[str, str, str], nodes: list[LeftOut]) -> Sequence[str]:
    op, reason, advice = key
    names = ", ".join(node.name for node in nodes[:4] if node.name)
    more = f", and {len(nodes) - 4} more" if len(nodes) > 4 else ""
    count = f" &times; {len(nodes)}" if len(nodes) > 1 else ""
    where = "<br>".join(f"<code>{escape(place)}</code>" for place in places(nodes).splitlines())
    return (
        f'<code>{escape(op)}</code>{count}<br><span class="soft"><code>{escape(names)}</code>'
        f"{more}</span>",
        where or '<span class="soft">not known</span>',
        escape(reason) + (f'<br><span class="advice">{escape(advice)}</span>' if advice else ""),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns whose heading begins with # are numbers."""
    kinds = [' class="number"' if name.startswith("#") else "" for name in head]
    top = "".join(
        f"<th{kind}>{escape(name.lstrip('#'))}</th>" for name, kind in zip(head, kinds, strict=True)
    )
    lines = [
        "<tr>" + "".join(f"<td{k}>{c}</td>" for c, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    ]
    return f'<div class="scroll"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
