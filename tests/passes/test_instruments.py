"""The protocol, and the small instruments: verify, timing, explain."""

import re
from io import StringIO

import attrs
import pytest

from rewright.errors import PassError, SettingsError, VerificationError
from rewright.passes.instruments.explain import Explain
from rewright.passes.instruments.protocol import Instrument
from rewright.passes.instruments.timing import Timing, timing_rows
from rewright.passes.instruments.verify import VerifyEach
from rewright.passes.manager import Pass, Pipeline, Repeat
from rewright.passes.registry import get_pass
from tests.passes import planted
from tests.passes.graphs import graph, ops

UNARY = """
    %a = aten.abs(%x) : f32[4, 4]   # m.py:1
    %b = aten.relu(%a) : f32[4, 4]  # m.py:2
    return %b : f32[4, 4]
"""


class Log(Instrument):
    """Writes down what it is told."""

    def __init__(self, skip=(), refuse=()):
        self.events = []
        self.skip = skip
        self.refuse = refuse

    def should_run(self, run):
        self.events.append(f"should_run {run.name}")
        return run.name not in self.skip

    def before(self, run):
        self.events.append(f"before {run.name}")

    def after(self, run):
        self.events.append(f"after {run.name}")

    def after_failed(self, run, error):
        self.events.append(f"after_failed {run.name}: {error.pass_name}")

    def should_rewrite(self, run, rule, match):
        return rule.name not in self.refuse

    def on_rewrite(self, run, done):
        self.events.append(f"on_rewrite {run.name} {done.rule.name}")


class TestProtocol:
    def test_order(self):
        log = Log()
        steps = [Repeat([planted.PlantedUnary()], max=1), get_pass("dce")()]
        Pipeline(steps).run(graph(UNARY), instruments=[log])
        assert log.events == [
            "before pipeline",
            "before repeat",
            "should_run planted-unary",
            "before planted-unary",
            "on_rewrite planted-unary abs-by-max",
            "on_rewrite planted-unary leaky-relu",
            "after planted-unary",
            "after repeat",
            "should_run dce",
            "before dce",
            "after dce",
            "after pipeline",
        ]

    def test_every_instrument_is_asked(self):
        first, second = Log(skip=["dce"]), Log()
        Pipeline.parse("dce").run(graph(UNARY), instruments=[first, second])
        assert "should_run dce" in second.events
        assert "before dce" not in second.events

    def test_a_pass_that_may_not_be_skipped_runs(self):
        class Needed(Pass):
            may_be_skipped = False

            def run(self, graph, context):
                pass

        log = Log(skip=["needed"])
        Pipeline([Needed()]).run(graph(UNARY), instruments=[log])
        assert "after needed" in log.events

    def test_a_rewrite_can_be_refused(self):
        of = graph(UNARY)
        Pipeline([planted.PlantedUnary()]).run(of, instruments=[Log(refuse=["leaky-relu"])])
        assert ops(of) == ["aten.neg", "aten.maximum", "aten.relu"]

    def test_a_failure_is_told_up_to_the_top(self):
        log = Log()
        of = graph("%y = aten.tanh(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError):
            Pipeline([Repeat([planted.PlantedCrash()])]).run(of, instruments=[log])
        assert log.events[-3:] == [
            "after_failed planted-crash: planted-crash",
            "after_failed repeat: planted-crash",
            "after_failed pipeline: planted-crash",
        ]

    def test_what_an_instrument_raises_after_a_pass_is_its_failure(self):
        class Strict(Instrument):
            def after(self, run):
                if run.is_pass:
                    raise VerificationError("too long", hint="shorten it")

        log = Log()
        with pytest.raises(PassError, match="pass dce failed: too long") as caught:
            Pipeline.parse("cse,dce").remove("cse").run(graph(UNARY), instruments=[Strict(), log])
        assert caught.value.hint == "shorten it"
        assert "after_failed dce: dce" in log.events

    def test_an_instrument_that_fails_after_a_failure_hides_nothing(self, caplog):
        class Clumsy(Instrument):
            def after_failed(self, run, error):
                raise OSError("disk full")

        of = graph("%y = aten.tanh(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError, match="no table for"):
            Pipeline([planted.PlantedCrash()]).run(of, instruments=[Clumsy()])
        assert "Clumsy failed after pass planted-crash" in caplog.text

    def test_rules_are_not_watched_where_nobody_looks(self, monkeypatch):
        from rewright.passes import manager

        seen = []

        def apply_rules(graph, rules, **options):
            seen.append(options)
            return manager.Applied()

        monkeypatch.setattr(manager, "apply_rules", apply_rules)
        for instruments in ([], [VerifyEach()], [Timing(StringIO())], [Log()]):
            Pipeline([planted.PlantedUnary()]).run(graph(UNARY), instruments=instruments)
        assert [options["observer"] is None for options in seen] == [True, True, True, False]
        assert [options["timed"] for options in seen] == [False, False, True, False]


class TestVerify:
    def test_what_a_pass_broke(self):
        steps = Pipeline.parse("cse").append(planted.PlantedBreak())
        with pytest.raises(PassError) as caught:
            steps.run(graph(UNARY), instruments=[VerifyEach()])
        error = caught.value
        assert error.message.startswith("pass planted-break broke the graph: ")
        assert error.ran == "cse"
        assert error.where == "m.py:1"
        assert "-> %a = aten.abs(%x) : f64[4, 4]" in str(error)

    def test_a_graph_that_is_broken_before(self):
        of = graph("%y = aten.relu(%x) : f64[4, 4]\nreturn %y : f64[4, 4]")
        with pytest.raises(VerificationError, match="stated as f64"):
            Pipeline.parse("cse").run(of, instruments=[VerifyEach()])

    def test_effects_keep_their_order(self):
        class DropRandom(Pass):
            def run(self, graph, context):
                first = next(iter(graph))
                first.result.replace_all_uses(graph.inputs[0])
                first.erase()

        of = graph("%y = aten.rand_like(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError, match=r"number 0 was aten\.rand_like, and is the end"):
            Pipeline([DropRandom()]).run(of, instruments=[VerifyEach()])

    def test_the_stage_that_a_pass_promises(self):
        class Hasty(Pass):
            gives_stage = "fused"

            def run(self, graph, context):
                pass

        of = graph("%y = aten.mm(%x, %x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError, match=r"aten\.mm may not appear: it is rw\.matmul"):
            Pipeline([Hasty()]).run(of, instruments=[VerifyEach()])


class TestTiming:
    def run(self):
        steps = [Repeat([planted.PlantedUnary(), get_pass("dce")()]), get_pass("cse")()]
        out = StringIO()
        run = Pipeline(steps).run(graph(UNARY), instruments=[VerifyEach(), Timing(out)])
        return run, out.getvalue()

    def test_rows(self):
        run, _ = self.run()
        rows = [(row.depth, row.label, row.note) for row in timing_rows(run)]
        assert rows[:3] == [
            (0, "pipeline", ""),
            (1, "repeat", ""),
            (2, "planted-unary x2", "2 rewrites"),
        ]
        assert {(3, "abs-by-max", "1 hits"), (3, "leaky-relu", "1 hits")} == {*rows[3:5]}
        assert rows[5:] == [
            (2, "dce x2", ""),
            (1, "cse", ""),
            (0, "verifyeach", ""),
            (0, "timing", ""),
        ]

    def test_a_part_takes_no_more_than_the_whole(self):
        run, _ = self.run()
        rows = timing_rows(run)
        assert rows[0].share == 1
        assert rows[0].seconds == pytest.approx(sum(row.seconds for row in rows if row.depth == 1))
        assert rows[2].seconds >= rows[3].seconds + rows[4].seconds > 0

    def test_text(self):
        _, text = self.run()
        assert re.search(r"^timing of @test\n +\d+\.\d\d ms  100%  pipeline\n", text)
        assert re.search(r"\d+\.\d\d ms +\d+%      planted-unary x2 +2 rewrites\n", text)


class TestExplain:
    def explain(self, name, steps, body=UNARY):
        out = StringIO()
        Pipeline(steps).run(graph(body), instruments=[Explain(name, out)])
        return out.getvalue().splitlines()

    def test_after_the_pass_that_has_the_rule(self):
        body = UNARY.replace("aten.abs(%x)", "aten.linear(%x, %x)")
        assert self.explain("leaky-relu", [planted.PlantedUnary()], body) == [
            "rule leaky-relu fired once in 001 planted-unary"
        ]

    def test_why_not(self):
        attention = """
            %a = aten.scaled_dot_product_attention(%x, %x, %x, %x, scale=1.0) : f32[4, 4]  # m.py:7
            return %a : f32[4, 4]
        """
        first, second = self.explain("drop-mask", [planted.PlantedFusions()], attention)
        assert first == "rule drop-mask fired 0 times in 001 planted-fusions"
        assert "did not fire at %a aten.scaled_dot_product_attention (m.py:7): " in second

    def test_a_rule_that_no_pass_of_the_pipeline_has(self):
        first, second = self.explain("leaky-relu", [get_pass("cse")()])
        assert first == "rule leaky-relu, which no pass of the pipeline has"
        assert second == "  rule leaky-relu matches at %b aten.relu (m.py:2)"

    def test_an_unknown_rule(self):
        with pytest.raises(SettingsError, match="no rule 'leaky-rely' to explain") as caught:
            self.explain("leaky-rely", [planted.PlantedUnary()])
        assert caught.value.hint == "did you mean 'leaky-relu'?"


def test_an_instrument_may_be_any_class():
    @attrs.define(eq=False)
    class Count(Instrument):
        most: int = 0

        def after(self, run):
            self.most = max(self.most, len(run.graph))

    count = Count()
    Pipeline([planted.PlantedUnary()]).run(graph(UNARY), instruments=[count])
    assert count.most == 3
