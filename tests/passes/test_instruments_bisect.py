"""Limits on passes and rewrites, and the search for the one that makes a command fail."""

import json

import pytest

from rewright.bisect import Probe, main, search
from rewright.errors import InputError, SettingsError
from rewright.passes.instruments import bisect
from rewright.passes.instruments.bisect import Bisect, Limit
from rewright.passes.manager import Pipeline, Repeat
from rewright.passes.registry import get_pass
from tests.passes import planted
from tests.passes.graphs import graph, ops

BODY = """
    %a = aten.abs(%x) : f32[4, 4]   # m.py:1
    %b = aten.relu(%a) : f32[4, 4]  # m.py:2
    %c = aten.abs(%b) : f32[4, 4]   # m.py:3
    return %c : f32[4, 4]
"""
STEPS = Pipeline([get_pass("cse")(), planted.PlantedUnary(), get_pass("dce")()])


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestLimit:
    @pytest.mark.parametrize("text", ["all", "0", "12", "12.0", "12.5"])
    def test_round_trip(self, text):
        assert str(Limit.parse(text)) == text

    @pytest.mark.parametrize("text", ["", "-1", "1.", "x", "1.2.3"])
    def test_nonsense(self, text):
        with pytest.raises(SettingsError, match="is no limit for bisecting"):
            Limit.parse(text)


class TestInstrument:
    @pytest.mark.parametrize(
        ("limit", "expected"),
        [
            ("0", ["abs", "relu", "abs"]),
            ("1", ["abs", "relu", "abs"]),
            ("2.0", ["abs", "relu", "abs"]),
            ("2.1", ["neg", "maximum", "relu", "abs"]),
            ("2.2", ["neg", "maximum", "leaky_relu", "abs"]),
            ("2", ["neg", "maximum", "leaky_relu", "neg", "maximum"]),
            ("all", ["neg", "maximum", "leaky_relu", "neg", "maximum"]),
        ],
    )
    def test_limits(self, limit, expected):
        of = graph(BODY)
        STEPS.run(of, instruments=[Bisect(Limit.parse(limit))])
        assert ops(of) == [f"aten.{name}" for name in expected]

    def test_groups_end(self):
        of = graph(BODY)
        Pipeline([Repeat(STEPS.steps)]).run(of, instruments=[Bisect(Limit.parse("2.1"))])
        assert "aten.relu" in ops(of)

    def test_counts_go_over_all_graphs(self):
        counting = Bisect(Limit(4))
        for expected in (False, True):
            of = graph(BODY)
            STEPS.run(of, instruments=[counting])
            assert ("aten.relu" in ops(of)) is expected

    def test_report(self, tmp_path):
        path = tmp_path / "report"
        STEPS.run(graph(BODY), instruments=[Bisect(Limit.parse("2.2"), path)])
        found = entries(path)
        assert [(e["pass"], e.get("rewrite"), e.get("name")) for e in found] == [
            (1, None, "cse"),
            (2, None, "planted-unary"),
            (2, 1, None),
            (2, 2, None),
        ]
        assert found[-1]["rule"] == "leaky-relu"
        assert found[-1]["declared"].startswith("tests/passes/planted.py:")
        assert found[-1]["node"] == "%b = aten.relu(%a) : f32[4, 4]"
        assert found[-1]["where"] == "m.py:2"

    def test_the_environment_gives_one_instrument_per_process(self, tmp_path):
        bisect.from_environment.cache_clear()
        one = bisect.from_environment(f"3.1:{tmp_path}/report")
        assert one is bisect.from_environment(f"3.1:{tmp_path}/report")
        assert (one.limit, one.report) == (Limit(3, 1), tmp_path / "report")
        with pytest.raises(SettingsError) as caught:
            bisect.from_environment("many")
        assert caught.value.setting == "REWRIGHT_BISECT"
        bisect.from_environment.cache_clear()


class Command:
    """Stands for a command: runs passes in this process, and fails where `bad` says so."""

    def __init__(self, path, bad, steps=STEPS, graphs=2):
        self.path, self.bad, self.steps, self.graphs = path, bad, steps, graphs
        self.limits = []

    def __call__(self, limit):
        self.limits.append(limit)
        self.path.unlink(missing_ok=True)
        watch = Bisect(Limit.parse(limit), self.path)
        found = [graph(BODY) for _ in range(self.graphs)]
        for of in found:
            self.steps.run(of, instruments=[watch])
        good = not any(self.bad(of, index) for index, of in enumerate(found))
        return Probe(good, entries(self.path) if self.path.exists() else [])


class TestSearch:
    def test_a_rewrite(self, tmp_path):
        command = Command(tmp_path / "r", lambda of, _: "aten.leaky_relu" in ops(of))
        found = search(command)
        assert found.limit == "2.2"
        assert found.rewrite["rule"] == "leaky-relu"
        assert str(found).splitlines() == [
            "pass 2: planted-unary on @test",
            f"rewrite 2: rule leaky-relu ({planted.LeakyRelu.location})",
            "node: %b = aten.relu(%a) : f32[4, 4]",
            "where: m.py:2",
        ]
        assert found.runs == len(command.limits)

    def test_a_rewrite_in_a_later_graph(self, tmp_path):
        command = Command(
            tmp_path / "r", lambda of, at: at == 1 and "aten.leaky_relu" in ops(of), graphs=3
        )
        assert search(command).limit == "5.2"

    def test_a_pass_without_rewrites(self, tmp_path):
        steps = Pipeline([get_pass("cse")(), planted.PlantedBreak(), get_pass("dce")()])
        command = Command(
            tmp_path / "r", lambda of, _: "f64" in str(next(iter(of)).result.type), steps
        )
        found = search(command)
        assert (found.limit, found.rewrite) == ("2", None)
        assert str(found) == "pass 2: planted-break on @test"

    def test_runs_grow_with_the_logarithm(self, tmp_path):
        steps = Pipeline([*STEPS.steps, *[get_pass("dce")()] * 60])
        command = Command(tmp_path / "r", lambda of, _: "aten.leaky_relu" in ops(of), steps, 1)
        assert search(command).limit == "2.2"
        assert len(command.limits) <= 15

    def test_a_command_that_succeeds(self, tmp_path):
        with pytest.raises(InputError, match="there is nothing to find"):
            search(Command(tmp_path / "r", lambda *_: False))

    def test_a_command_that_always_fails(self, tmp_path):
        with pytest.raises(InputError, match="no pass is at fault"):
            search(Command(tmp_path / "r", lambda *_: True))

    def test_a_command_that_runs_no_passes(self, tmp_path):
        with pytest.raises(InputError, match="runs no passes of Rewright"):
            search(Command(tmp_path / "r", lambda *_: True, Pipeline()))


FAKE = """
import json, os, sys
limit, _, report = os.environ["REWRIGHT_BISECT"].partition(":")
number = 9 if limit == "all" else int(limit.partition(".")[0])
with open(report, "w") as file:
    for at in range(1, min(number, 9) + 1):
        line = {"pass": at, "name": "p", "step": f"p{at}", "graph": "main"}
        file.write(json.dumps(line) + chr(10))
sys.exit(number >= 6)
"""


class TestCommand:
    def test_a_command_is_run_with_limits(self, tmp_path, capsys):
        import sys

        script = tmp_path / "fake.py"
        script.write_text(FAKE)
        assert main(["--", sys.executable, str(script), "--flag"]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines() == [
            "pass 6: p6 on @main",
            f"replay: REWRIGHT_BISECT=6 {sys.executable} {script} --flag",
        ]
        assert "     all: bad\n       0: good\n" in shown.err

    def test_a_command_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match="the command can't be run"):
            main([str(tmp_path / "nothing")])

    def test_no_command(self, capsys):
        with pytest.raises(SystemExit):
            main([])
        assert "give a command" in capsys.readouterr().err
