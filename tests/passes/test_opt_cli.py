"""The commands `rewright opt` and `rewright passes`."""

import json
import os
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch

from rewright import cli
from rewright.ir.files import dump_graph, load_graph
from rewright.passes import registry
from rewright.passes.instruments.samples import Samples, save_samples
from rewright.passes.registry import get_pass
from tests.passes.graphs import graph

ROOT = Path(__file__).resolve().parents[2]
PLANTED = str(Path(__file__).with_name("planted.py"))
BODY = """
    %a = aten.abs(%x) : f32[4, 4]   # m.py:1
    %b = aten.relu(%a) : f32[4, 4]  # m.py:2
    %c = aten.sub.Tensor(%b, @w) : f32[4, 4]
    %d = aten.relu(%c) : f32[4, 4]  # m.py:4
    %e = aten.tanh(%d) : f32[4, 4]
    return %d : f32[4, 4]
"""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Files that are loaded register passes: forgotten after the test."""
    get_pass("dce")
    known = {n: p for n, p in registry._passes.items() if not n.startswith("planted")}
    monkeypatch.setattr(registry, "_passes", known)


@pytest.fixture
def file(tmp_path):
    of = graph(BODY, constants="@w : f32[4]")
    of.constants["w"].data = torch.full((4,), 0.5)
    return dump_graph(of, tmp_path / "net.ir")


def run(*arguments, status=0):
    assert cli.main(["opt", *map(str, arguments)]) == status


class TestOpt:
    def test_help_is_light(self, fresh_python):
        code = (
            "import sys; from rewright.opt import parser; parser().format_help();"
            "print([name for name in ('torch', 'sympy', 'numpy') if name in sys.modules])"
        )
        assert fresh_python(code) == "[]"

    def test_no_passes_print_the_graph(self, file, capsys):
        run(file)
        assert capsys.readouterr().out == file.read_text()

    def test_output(self, file, tmp_path, capsys):
        run(file, "--passes", "dce", "-o", tmp_path / "out.ir")
        assert capsys.readouterr().out == ""
        assert len(load_graph(tmp_path / "out.ir")) == 4

    def test_standard_input(self, file, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdin", StringIO(file.read_text()))
        run("-", "--passes", "dce")
        assert "aten.tanh" not in capsys.readouterr().out

    def test_default_is_the_pipeline_of_a_compile(self, file, capsys):
        run(file, "--passes", "default,verify", "--dump", "all")
        assert "after 003 fuse" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["/nowhere.ir"], "the graph can't be read"),
            (["{file}", "--passes", "dc"], "there is no pass 'dc'"),
            (["{file}", "--only", "leaky"], "no pass of the pipeline has a rule 'leaky'"),
            (["{file}", "--dump", "/x"], "does not say what to dump"),
            (["{file}", "--bisect-limit", "x"], "is no limit for bisecting"),
            (["{file}", "--explain", "x"], "there is no rule 'x' to explain"),
            (["{file}", "--load", "/nowhere.py"], "is no Python file that can be loaded"),
            (["{file}", "--samples", "/nowhere"], "the inputs can't be read"),
            (["{file}", "-o", "/nowhere/out.ir"], "the graph can't be written"),
        ],
    )
    def test_mistakes(self, file, capsys, arguments, message):
        run(*(argument.format(file=file) for argument in arguments), status=2)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"rewright opt: {message}" in shown.err or message in shown.err
        assert "Traceback" not in shown.err

    def test_passes_of_a_file(self, file, capsys):
        run(file, "--load", PLANTED, "--passes", "planted-unary")
        assert capsys.readouterr().out.count("aten.leaky_relu") == 2

    def test_only(self, file, capsys):
        run(file, "--load", PLANTED, "--passes", "planted-unary,dce", "--only", "abs-by-max")
        out = capsys.readouterr().out
        assert "aten.maximum" in out
        assert "aten.leaky_relu" not in out

    def test_bisect_limit(self, file, capsys):
        run(file, "--load", PLANTED, "--passes", "planted-unary", "--bisect-limit", "1.2")
        assert capsys.readouterr().out.count("aten.leaky_relu") == 1

    def test_explain(self, file, capsys):
        run(file, "--load", PLANTED, "--passes", "planted-unary", "--explain", "leaky-relu")
        assert "rule leaky-relu fired 2 times in 001 planted-unary" in capsys.readouterr().err

    def test_a_target_has_backends(self, file, capsys):
        pytest.importorskip("tensorrt_rtx")
        parts = "partition{backends=[tensorrt],min_block_size=1,torch_ops=[aten.tanh]}"
        run(file, "--passes", parts, "--target", "rtx")
        shown = capsys.readouterr()
        assert shown.out.count("rw.segment") == 1
        assert "segments: 1 of tensorrt; they hold 4 of 5 nodes" in shown.err
        assert "torch_executed_ops has 'aten.tanh'" in shown.err

    def test_default_is_the_pipeline_of_the_target(self, file, capsys):
        pytest.importorskip("tensorrt_rtx")
        run(file, "--passes", "default", "--target", "rtx", "--dump", "all")
        assert "decompose" in capsys.readouterr().err

    def test_no_backend_without_a_target(self, file, capsys):
        run(file, "--passes", "partition{backends=[tensorrt]}", status=1)
        assert "--target rtx" in capsys.readouterr().err

    def test_the_replay_of_a_failure_names_the_target(self, file, capsys, tmp_path):
        pytest.importorskip("tensorrt_rtx")
        parts = "partition{backends=[tensorrt],require_full=True,torch_ops=[aten.tanh]}"
        run(file, "--passes", parts, "--target", "rtx", "--reproducer", tmp_path / "r", status=1)
        (replay,) = [line for line in capsys.readouterr().err.splitlines() if "replay:" in line]
        assert "--target rtx" in replay

    def test_timing_and_verify(self, file, capsys):
        run(file, "--passes", "cse,dce", "--timing", "--verify-each")
        err = capsys.readouterr().err
        assert "timing of @test" in err
        assert "ms        verifyeach" in err

    def test_dump(self, file, tmp_path, capsys):
        run(file, "--passes", "cse,dce", "--dump", f"changed:{tmp_path}/dump")
        manifest = json.loads((tmp_path / "dump/manifest.json").read_text())
        assert manifest["pipeline"] == "cse,dce"
        run(tmp_path / "dump/002-dce.before.ir", "--passes", "dce", "--numerics")

    def test_numerics(self, file, tmp_path, capsys):
        wrong = ["--load", PLANTED, "--passes", "cse,planted-unary", "--numerics"]
        run(file, *wrong, "--reproducer", tmp_path / "r", status=1)
        err = capsys.readouterr().err
        assert "numbers moved in pass planted-unary, rule leaky-relu" in err
        assert "where: m.py:4" in err
        assert "after: cse" in err
        assert f"replay: rewright opt {tmp_path}/r/002-planted-unary.failed.ir" in err
        run(file, *wrong, "--tolerance", "0.9")

    def test_numerics_on_the_inputs_beside_the_file(self, file, tmp_path, capsys):
        """Where no number is below zero, the wrong rule is right."""
        wrong = ["--load", PLANTED, "--passes", "planted-unary", "--numerics"]
        samples = Samples((torch.full((4, 4), 9.0),))
        save_samples(samples, tmp_path / "mine.safetensors")
        run(file, *wrong, "--samples", tmp_path / "mine.safetensors")
        (tmp_path / "mine.safetensors").rename(tmp_path / "net.samples.safetensors")
        run(file, *wrong)

    def test_the_environment_holds_too(self, file, capsys, monkeypatch):
        monkeypatch.setenv("REWRIGHT_DUMP", "all")
        monkeypatch.setenv("REWRIGHT_VERIFY", "1")
        run(file, "--passes", "cse", "--timing")
        err = capsys.readouterr().err
        assert "after 001 cse" in err
        assert "verifyeach" in err


class TestReproducer:
    def test_a_crash_is_replayed(self, file, tmp_path, capsys):
        """The command that a failure leaves shows the same failure, in a new process."""
        arguments = ["--load", PLANTED, "--passes", "cse,planted-crash{depth=3}"]
        run(file, *arguments, "--reproducer", tmp_path / "r", status=1)
        err = capsys.readouterr().err
        message = (
            "pass planted-crash{depth=3} failed: KeyError: 'no table for aten.tanh at depth 3'"
        )
        assert message in err
        (line,) = [row for row in err.splitlines() if row.startswith("  replay: ")]
        words = shlex.split(line.removeprefix("  replay: "))
        assert words[:2] == ["rewright", "opt"]
        done = subprocess.run(
            [sys.executable, "-m", "rewright", *words[1:], "--reproducer", str(tmp_path / "again")],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert message in done.stderr

    def test_what_is_written(self, file, tmp_path, capsys):
        arguments = ["--load", PLANTED, "--passes", "dce,planted-break", "--verify-each"]
        run(file, *arguments, "--reproducer", tmp_path / "r", status=1)
        names = sorted(path.name for path in (tmp_path / "r").iterdir())
        stem = "002-planted-break.failed"
        assert names == [f"{stem}.ir", f"{stem}.safetensors", f"{stem}.txt"]
        assert "aten.tanh" not in (tmp_path / "r" / f"{stem}.ir").read_text()
        text = (tmp_path / "r" / f"{stem}.txt").read_text()
        assert text.startswith(f"rewright opt {tmp_path}/r/{stem}.ir --passes planted-break ")
        assert "--verify-each\n\npipeline: dce,planted-break\n\npass planted-break broke" in text

    def test_nothing_is_overwritten(self, file, tmp_path, capsys):
        arguments = ["--load", PLANTED, "--passes", "planted-crash"]
        for _ in range(2):
            run(file, *arguments, "--reproducer", tmp_path / "r", status=1)
        assert (tmp_path / "r" / "001-planted-crash.failed-2.ir").exists()

    def test_a_temporary_folder_by_default(self, file, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        run(file, "--load", PLANTED, "--passes", "planted-crash", status=1)
        (folder,) = tmp_path.glob("rewright-*")
        assert (folder / "001-planted-crash.failed.ir").exists()


class TestPasses:
    def test_all(self, capsys):
        assert cli.main(["passes"]) == 0
        out = capsys.readouterr().out
        assert "dce    passes/dce.py:" in out
        assert "    unused nodes and recipes  ->  nothing\n" in out
        assert "    {retype = True}    bool\n" in out

    def test_rules(self, capsys):
        registry.register_pass(_planted().PlantedUnary)
        assert cli.main(["passes", "planted-unary"]) == 0
        lines = capsys.readouterr().out.splitlines()
        at = lines.index(f"    - leaky-relu    exact    {_planted().LeakyRelu.location}")
        assert lines[at + 1].startswith("        relu(x)  ->  leaky_relu(x)")

    def test_every_pass_says_what_it_does(self):
        for cls in registry.all_passes().values():
            assert cls.summary(), cls.name

    def test_an_unknown_one(self, capsys):
        assert cli.main(["passes", "dc"]) == 2
        assert "did you mean 'dce'?" in capsys.readouterr().err


def _planted():
    from tests.passes import planted

    return planted
