"""What a program says of itself: as text, as tables, as data and as a page."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import attrs
import pytest
import torch
from rich.console import Console
from torch import nn

import rewright
from rewright.artifact import parts
from rewright.artifact.parts import Part
from rewright.passes.partition.advice import ADVICE, advice_on
from rewright.passes.partition.partition import partition
from rewright.passes.partition.report import LeftOut, PartitionReport
from rewright.report import EngineReport, Report, port_size
from tests.passes.partition.test_partition import DIAMOND, parse_graph, taker

PARTS = {name: Part(0, 0) for name in parts.PARTS} | {
    "weights": Part(3, 4096), "prepared": Part(1, 2048), "graph": Part(7, 10),
}  # fmt: skip


def report(partitioned: PartitionReport | None = None, **changes: object) -> Report:
    made = Report(
        "main", "cuda", PARTS, ("s0 in {1..8}",), "eager", partition=partitioned,
    )  # fmt: skip
    return attrs.evolve(made, **changes)


@pytest.fixture
def parted() -> PartitionReport:
    return partition(parse_graph(DIAMOND), [taker("aten.erf", all_but=True, name="<fast>")])


def page(of: Report) -> tuple[str, list[tuple[str, dict[str, str | None]]]]:
    """The page of a report, and its tags; every tag is closed."""
    tags: list[tuple[str, dict[str, str | None]]] = []
    open_: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(given)))
            if tag not in ("meta", "br"):
                open_.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

    text = of.to_html()
    Reader().feed(text)
    assert not open_
    return text, tags


def test_the_text_of_a_program():
    net, x = nn.Linear(4, 2).eval(), torch.randn(3, 4)
    made = rewright.compile(net, (x,)).report()
    assert isinstance(made, Report)
    assert str(made) == repr(made)
    assert "program main on cpu" in made and "backend    torch (eager)" in made
    assert "no such text" not in made
    shown = io.StringIO()
    made.show(shown)
    assert shown.getvalue() == f"{made}\n", "plain where nobody looks"
    assert json.loads(json.dumps(made.to_json()))["torch_backend"] == "eager"


def test_a_terminal_gets_tables(parted):
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    engine = EngineReport("<fast>_0", "tensorrt_rtx 1.7.1", 12, 3 << 20, 1.5)
    console.print(report(parted, engines=(engine,)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[" in shown
    assert "3.0 MiB" in shown and "<fast>_0" in shown
    assert "<fast> has no aten.erf" in shown
    assert "net.py:2 (mid.left)" in shown


def test_a_page_needs_nothing_else(parted):
    engine = EngineReport(
        "<fast>_0", "tensorrt_rtx 1.7.1", 12, 3 << 20, 1.5, 2, True, ("a <warning>",)
    )
    text, tags = page(report(parted, engines=(engine,), cuda_graphs="2 captured"))
    assert not [given for _, given in tags if {"src", "href"} & given.keys()]
    assert not {"script", "link", "img"} & {tag for tag, _ in tags}
    assert "http" not in text and "@import" not in text
    assert "light-dark(" in text
    for part in ("&lt;fast&gt;_0", "3.0 MiB", "2 profiles", "weights can be changed",
                 "a &lt;warning&gt;", "2 captured", "net.py:2 (mid.left)", "<title>main",
                 "96 B"):  # fmt: skip
        assert part in text, part
    assert "<fast>" not in text and "<warning>" not in text, "names are text"


def test_a_page_of_torch_alone():
    text, _ = page(report())
    assert "Segments" not in text and "stays in Torch" not in text
    assert report().to_json()["partition"] is None
    assert "<html" not in report()._repr_html_()


def test_a_page_without_segments():
    none = partition(parse_graph(DIAMOND), [taker("aten.cos")])
    text, _ = page(report(none))
    assert "0 nodes in 0 segments" in text and "What stays in Torch" in text


def test_an_engine_that_is_not_there_yet(parted):
    later = report(parted, engines=(EngineReport("<fast>_0"),))
    assert "not built yet" in later
    assert "built with the first call" in later.to_html()


def test_nodes_with_one_reason_are_one_row():
    left = tuple(
        LeftOut("aten.erf", f"e{n}", None, "taker has no aten.erf", "do this") for n in range(6)
    )
    text, _ = page(report(PartitionReport(6, (), left)))
    assert text.count("taker has no aten.erf") == 1
    assert "&times; 6" in text and "and 2 more" in text


def test_sizes_that_vary_have_the_bytes_of_the_largest():
    graph = parse_graph(
        "graph @g(%x: f32[s0, 4], %y: f32[s1]) -> (f32[s0, 4], f32[s1])\n"
        "  where s0 in {1..8, 20..30} = dim(%x, 0), s1 in {1..} = dim(%y, 0)\n{\n"
        "  %a = aten.relu(%x) : f32[s0, 4]\n  %b = aten.relu(%y) : f32[s1]\n  return %a, %b\n}\n"
    )
    (segment,) = partition(graph, [taker("aten.relu")]).segments
    assert [(p.bytes, p.most) for p in segment.inputs] == [(None, 30 * 16), (None, None)]
    assert [port_size(port) for port in segment.outputs] == ["up to 480 B", "any size"]


# --------------------------------------------------------------------------- what to change

REASONS = [
    ("aten.relu", "torch_executed_ops has 'aten.relu'", "take 'aten.relu' out"),
    ("aten.relu", "its segment would compute 2 nodes, and min_block_size is 3", "to 2"),
    ("aten.reshape", "its segment would compute 0 nodes, and min_block_size is 1", "to gain"),
    ("aten.relu", "the size s0 has no maximum: give one by ...", "give s0 a maximum"),
    ("aten.nonzero", "its size depends on values, which TensorRT for RTX can't build", "mask"),
    ("aten.relu", "the size u0 depends on values, which tensorrt_rtx 1.7.1 can't build", "mask"),
    ("aten.nonzero", "it tells a size that only a run can know", "mask"),
    ("aten.rand", "TensorRT's random numbers are not torch's", "outside of the model"),
    ("aten.rand", "aten.rand has an effect or draws random numbers, in an order that is kept",
     "outside of the model"),
    ("aten._assert_scalar", "aten._assert_scalar has an effect or draws random numbers", ""),
    ("aten.abs", "TensorRT has no complex numbers", "real and imaginary"),
    ("aten.abs", "TensorRT has no c64", "real and imaginary"),
    ("aten.add", "TensorRT has no u8", "int32 for small integers"),
    ("aten.sort", "it needs: a fixed size of at most 3840", "give it a fixed size of at most 3840"),
    ("aten.add", "self is i16, and may be f32, f16", "cast self"),
    ("rw.conv", "weight must be a constant", "make weight a parameter"),
    ("aten.mean", "dim varies from call to call", "dynamic_shapes"),
    ("aten.mean", "self has 9 dimensions, and may have 1 to 8", "reshape"),
    ("rw.rope", "tensorrt 10.3.0 has no add_rotary_embedding", "newer version than tensorrt 10.3"),
    ("my.op", "my.op has no converter to TensorRT", "@converts"),
    ("aten.relu", "it works on cpu", "move it"),
    ("aten.relu_backward", "it computes a gradient, and programs here are for inference", "alone"),
    ("aten.relu", "nothing that anyone has thought of", ""),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reason", "part"), REASONS)
def test_what_to_change(op, reason, part):
    found = advice_on(op, reason)
    assert part in found
    assert bool(part) == bool(found)


def test_advice_is_complete_sentences_without_gaps():
    assert all("{" not in advice_on(op, reason) for op, reason, _ in REASONS)
    assert len({pattern for pattern, _ in ADVICE}) == len(ADVICE)
