"""The page of the viewer as data: what it holds of a dump, a graph and a saved program."""

import json
import re
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from threading import Thread

import pytest
import torch

import rewright
from rewright import cli
from rewright.errors import ArtifactError, InputError
from rewright.viewer.command import _handler
from rewright.viewer.data import Texts, collect
from rewright.viewer.page_html import embedded, page
from tests.viewer.pages import SHOWN, Net, dump


@pytest.fixture(scope="module")
def dumped(tmp_path_factory):
    return dump(tmp_path_factory.mktemp("dump"))


def texts_of(graph: dict, number: int) -> list[str]:
    """The lines of a text as the page puts them together, without locations."""
    runs = graph["texts"][number]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return [graph["code"][k] for first, count in pairs for k in range(first, first + count)]


def test_texts_keep_each_line_once_and_give_all_back():
    texts = Texts()
    one = "a\n  b    # m.py:1 (x)\nc\n"
    two = 'a\n  b  # m.py:1 (x)\n  s = "# no place"   # m.py:2\nc\n'
    assert [texts.add(one), texts.add(two), texts.add(one)] == [0, 1, 0]
    assert list(texts.lines(0)) == [("a", ""), ("  b", "m.py:1 (x)"), ("c", "")]
    assert list(texts.lines(1))[2] == ('  s = "# no place"', "m.py:2")
    assert len(texts.code) == 4
    assert texts.runs[0] == [0, 3]


def test_a_dump_has_each_pass_with_its_time_nodes_and_rules(dumped):
    (graph,) = collect(dumped)["graphs"]
    manifest = json.loads((dumped / "manifest.json").read_text())
    assert [p["name"] for p in graph["passes"]] == [p["name"] for p in manifest["passes"]]
    before = manifest["nodes"]
    for shown, entry in zip(graph["passes"], manifest["passes"], strict=True):
        assert shown["seconds"] == entry["seconds"] > 0
        assert (shown["nodes_before"], shown["nodes"]) == (before, entry["nodes"])
        before = entry["nodes"]
    fuse = next(p for p in graph["passes"] if p["name"] == "fuse")
    assert fuse["rules"]["torch-linear"] == 2
    made = [name for r in fuse["rewrites"] if r["rule"] == "torch-linear" for name in r["by"]]
    after = "\n".join(texts_of(graph, fuse["after"]))
    assert len(made) == 2
    assert all(f"{name} = rw.linear(" in after for name in made)


def test_texts_of_a_page_are_those_of_the_files(dumped):
    (graph,) = collect(dumped)["graphs"]
    for entry in graph["passes"]:
        if entry["changed"]:
            (file,) = dumped.glob(f"{entry['number']:03}-*.after.ir")
            lines = [re.sub(r"\s*# .*", "", line) for line in file.read_text().splitlines()]
            assert texts_of(graph, entry["after"]) == lines


def test_passes_that_changed_nothing_have_the_text_of_their_neighbours(dumped):
    (graph,) = collect(dumped)["graphs"]
    for left, right in zip(graph["passes"], graph["passes"][1:], strict=False):
        assert left["after"] is not None
        assert left["after"] == right["before"]
    assert any(p["before"] == p["after"] and not p["changed"] for p in graph["passes"])


def test_a_pass_that_was_not_dumped_has_no_text(tmp_path):
    (graph,) = collect(dump(tmp_path, "fuse"))["graphs"]
    shown = {p["name"]: p for p in graph["passes"]}
    assert shown["fuse"]["before"] != shown["fuse"]["after"]
    assert shown["cse"]["changed"] is False or shown["cse"]["before"] is None


def test_each_graph_of_a_process_is_there(tmp_path):
    for _ in range(2):
        dump(tmp_path)
    assert [g["folder"] for g in collect(tmp_path)["graphs"]] == [tmp_path.name, "graph-2"]


def test_the_reports_of_passes_are_in_the_dump(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    with pytest.warns(rewright.errors.FallbackWarning):
        rewright.compile(
            Net().eval(), (torch.ones(2, 8),), dump_ir=f"changed:{tmp_path}", target="rtx"
        )
    (graph,) = collect(tmp_path)["graphs"]
    partition = graph["reports"]["partition"]
    assert [s["backend"] for s in partition["segments"]] == ["tensorrt"]
    assert partition["left"] == []


def test_a_file_of_ir_and_a_saved_program(tmp_path):
    (tmp_path / "net.ir").write_text(SHOWN)
    (graph,) = collect(tmp_path / "net.ir")["graphs"]
    assert (graph["graph"], graph["passes"], len(graph["texts"])) == ("net", [], 1)
    program = rewright.compile(Net().eval(), (torch.ones(2, 8),))
    program.save(tmp_path / "net.rw")
    (graph,) = collect(tmp_path / "net.rw")["graphs"]
    lines = [re.sub(r"\s*# .*", "", line) for line in str(program.graph).splitlines()]
    assert texts_of(graph, 0) == lines


@pytest.mark.parametrize(
    ("name", "text", "error", "says"),
    [
        ("none", None, InputError, "no such file or folder"),
        ("empty", "", InputError, "holds no manifest.json"),
        ("old", '{"format": 0}', InputError, "another version"),
        ("cut", '{"format"', InputError, "can't be read"),
        ("odd", '{"format": 1, "passes": [{}]}', InputError, "not as one is written"),
        ("file.rw", "text", ArtifactError, "no artifact of Rewright"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, name, text, error, says):
    path = tmp_path / name
    if path.suffix:
        path.write_text(text)
    elif text is not None:
        path.mkdir()
        if text:
            (path / "manifest.json").write_text(text)
    with pytest.raises(error, match=says):
        collect(path)


def test_nothing_in_the_data_ends_the_script():
    data = {"title": "</script><script>alert(1)</script>", "graphs": ["<!--\u2028"]}
    text = embedded(data)
    assert "<" not in text and "\u2028" not in text
    assert json.loads(text) == data


def test_the_page_needs_nothing_else(dumped):
    html = page({**collect(dumped), "title": "<b>&"})
    assert html.count("</script>") == 2
    assert "<title>&lt;b&gt;&amp; – Rewright</title>" in html
    assert not re.findall(r"\{\{[A-Z]+\}\}", html)
    assert not re.findall(r"""(?:src|href)=|@import|url\(|https?://(?!www\.w3\.org)""", html)
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', html, re.DOTALL)[1])
    assert data["graphs"] == collect(dumped)["graphs"]


def test_the_command_writes_a_page_and_names_it(dumped, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert cli.main(["view", str(dumped), "--out", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "net.ir").write_text(SHOWN)
    assert cli.main(["view", str(tmp_path / "net.ir")]) == 0
    assert (tmp_path / "net.ir.html").exists()


def test_a_wrong_path_is_an_error_with_status_2(tmp_path, capsys):
    assert cli.main(["view", str(tmp_path / "none")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("rewright view: there is no such file or folder\n  where: ")
    assert "hint: compile with dump_ir=" in shown


def test_a_port_that_is_taken_or_none_is_an_error(dumped, capsys):
    assert cli.main(["view", str(dumped), "--port", "99999"]) == 2
    assert "--port 0 takes a free one" in capsys.readouterr().err


def test_a_server_makes_the_page_anew_for_each_request():
    pages = iter(["one", "two"])
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: next(pages))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert [opener.open(f"{address}/").read() for _ in range(2)] == [b"one", b"two"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            opener.open(f"{address}/etc/passwd")
        server.shutdown()
