"""Dumps: what is shown, the folder and its manifest, and that its files can be read again."""

import json
from io import StringIO

import pytest
import torch

from rewright.errors import PassError, SettingsError
from rewright.ir.files import load_graph
from rewright.passes.instruments import dump
from rewright.passes.instruments.dump import Dump, DumpSpec
from rewright.passes.instruments.samples import Samples, find_samples
from rewright.passes.manager import Pipeline, Repeat
from rewright.passes.registry import get_pass
from tests.passes import planted
from tests.passes.graphs import graph

BODY = """
    %a = aten.abs(%x) : f32[4, 4]            # m.py:1 (net)
    %b = aten.relu(%a) : f32[4, 4]           # m.py:2 (net)
    %c = aten.mul.Tensor(%b, @w) : f32[4, 4] # m.py:3
    return %c : f32[4, 4]
"""
STEPS = Pipeline([get_pass("cse")(), planted.PlantedUnary(), get_pass("dce")()])


def example():
    of = graph(BODY, constants="@w : f32[4]")
    of.constants["w"].data = torch.arange(4.0)
    return of


def run(what, steps=STEPS, **options):
    steps.run(example(), instruments=[Dump(DumpSpec.parse(what), **options)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestSpec:
    @pytest.mark.parametrize(
        ("text", "what", "folder"),
        [
            ("all", "all", None),
            ("changed:out", "changed", "out"),
            ("cse, fuse:a:b", ("cse", "fuse"), "a:b"),
        ],
    )
    def test_parts(self, text, what, folder):
        spec = DumpSpec.parse(text)
        assert (spec.what, spec.folder and str(spec.folder)) == (what, folder)

    @pytest.mark.parametrize("text", ["/tmp/dump", ":dir", "cse,,dce", ""])
    def test_nonsense(self, text):
        with pytest.raises(SettingsError, match="does not say what to dump") as caught:
            DumpSpec.parse(text, source="REWRIGHT_DUMP")
        assert caught.value.setting == "REWRIGHT_DUMP"

    def test_an_unknown_pass(self, tmp_path):
        with pytest.raises(SettingsError, match="no pass 'csee' to dump") as caught:
            run(f"csee:{tmp_path}")
        assert caught.value.hint == "did you mean 'cse'?"


class TestStandardError:
    def test_changed(self, capsys):
        run("changed")
        shown = capsys.readouterr()
        assert shown.out == ""
        titles = [line for line in shown.err.splitlines() if line.startswith("# -----")]
        assert titles == [
            "# ----- @test before cse,planted-unary,dce",
            "# ----- @test after 002 planted-unary: changed",
        ]
        assert "aten.leaky_relu" in shown.err

    def test_all_and_named(self):
        out = StringIO()
        run("all", out=out)
        assert out.getvalue().count("# ----- @test after") == 3
        out = StringIO()
        run("cse,dce", out=out)
        assert "@test after 001 cse: unchanged\ngraph @test(" in out.getvalue()
        assert out.getvalue().count("# ----- @test after") == 2


class TestFolder:
    def test_changed(self, tmp_path):
        run(f"changed:{tmp_path}/a/b")
        assert names(tmp_path / "a/b") == [
            "002-planted-unary.after.ir",
            "002-planted-unary.before.ir",
            "002-planted-unary.diff",
            "manifest.json",
            "weights.safetensors",
        ]

    def test_all(self, tmp_path):
        run(f"all:{tmp_path}")
        found = names(tmp_path)
        assert {"001-cse.before.ir", "001-cse.after.ir", "003-dce.after.ir"} <= {*found}
        assert [name for name in found if name.endswith(".diff")] == ["002-planted-unary.diff"]

    def test_diff(self, tmp_path):
        run(f"changed:{tmp_path}")
        lines = (tmp_path / "002-planted-unary.diff").read_text().splitlines()
        assert lines[:2] == ["--- 002-planted-unary.before.ir", "+++ 002-planted-unary.after.ir"]
        removed = [line for line in lines[2:] if line.startswith("-")]
        assert [line.split("=")[1].split("(")[0].strip() for line in removed] == [
            "aten.abs",
            "aten.relu",
        ]

    def test_files_are_read_again_with_weights_and_inputs(self, tmp_path):
        samples = Samples((torch.ones(4, 4),), origin="mine")
        run(f"changed:{tmp_path}", samples=samples)
        path = tmp_path / "002-planted-unary.before.ir"
        again = load_graph(path)
        assert str(again) == str(example())
        assert torch.equal(again.constants["w"].data, torch.arange(4.0))
        found = find_samples(path, again)
        assert torch.equal(found.inputs[0], torch.ones(4, 4))
        assert found.origin == "mine"

    def test_manifest(self, tmp_path):
        steps = Pipeline([Repeat([planted.PlantedUnary()], max=2), get_pass("dce")()])
        run(f"changed:{tmp_path}", steps)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert manifest["format"] == dump.FORMAT
        assert manifest["graph"] == "test"
        assert manifest["pipeline"] == "repeat{max=2}(planted-unary),dce"
        assert manifest["seconds"] > 0
        assert manifest["instruments"]["dump"] > 0
        first, second, third = manifest["passes"]
        assert first["groups"] == ["repeat{max=2}(planted-unary)"]
        assert first["rules"] == {"abs-by-max": 1, "leaky-relu": 1}
        assert first["nodes"] == 4
        assert first["files"]["diff"] == "001-planted-unary.diff"
        assert first["rewrites"][1] == {
            "rule": "leaky-relu",
            "replaced": "aten.relu",
            "by": ["%b"],
            "where": "m.py:2 (net) by leaky-relu",
        }
        assert (second["changed"], second["files"]) == (False, {})
        assert (third["name"], third["groups"]) == ("dce", [])
        assert {*manifest["files"]} == {*names(tmp_path)} - {"manifest.json"}

    def test_a_failing_pass_is_shown(self, tmp_path):
        steps = Pipeline([planted.PlantedUnary(), planted.PlantedBreak(), planted.PlantedCrash()])
        of = graph("%y = aten.tanh(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError):
            steps.run(of, instruments=[Dump(DumpSpec.parse(f"changed:{tmp_path}"))])
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert [entry["failure"] is None for entry in manifest["passes"]] == [True, True, False]
        assert "no table for aten.tanh" in manifest["passes"][2]["failure"]
        assert manifest["passes"][2]["files"]["before"] == "003-planted-crash.before.ir"

    def test_further_graphs_get_folders_of_their_own(self, tmp_path):
        for _ in range(3):
            run(f"changed:{tmp_path}")
        assert {"graph-2", "graph-3"} <= {*names(tmp_path)}
        assert "manifest.json" in names(tmp_path / "graph-3")

    def test_an_older_dump_is_replaced_and_other_files_stay(self, tmp_path, monkeypatch):
        (tmp_path / "notes.txt").write_text("mine")
        run(f"all:{tmp_path}")
        run(f"all:{tmp_path}")
        monkeypatch.setattr(dump, "_PROCESS", "another")
        run(f"changed:{tmp_path}")
        assert "001-cse.before.ir" not in names(tmp_path)
        assert "graph-2" not in names(tmp_path)
        assert {"notes.txt", "002-planted-unary.diff"} <= {*names(tmp_path)}

    def test_big_weights_are_left_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dump, "_MOST_BYTES", 8)
        run(f"changed:{tmp_path}")
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert manifest["weights"] is None
        assert manifest["weights_left_out"] == "more than 8 bytes"

    def test_a_folder_that_can_t_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingsError, match="can't be written") as caught:
            run(f"changed:{tmp_path}/file")
        assert caught.value.setting == "dump_ir"
