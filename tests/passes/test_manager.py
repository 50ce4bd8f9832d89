"""Passes, pipelines and their edits, running them, and the registry."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import ClassVar

import attrs
import pytest

from rewright.errors import ParseError, PassError
from rewright.passes import Rule, aten, registry
from rewright.passes.manager import Pass, Pipeline, Repeat
from rewright.passes.pipelines import TEXTS, default_pipeline
from rewright.passes.registry import all_passes, all_rules, get_pass, location_of, register_pass
from rewright.passes.rule_pass import RulePass
from tests.passes import planted
from tests.passes.graphs import graph, ops


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    get_pass("dce")
    monkeypatch.setattr(registry, "_passes", {**registry._passes})


@attrs.frozen
class Rename(Pass):
    """old(x)  ->  new(x), at most so often in one run"""

    old: str
    new: str = "exp"
    most: int = 1

    def run(self, graph, context):
        from rewright.ir.builder import Builder

        found = [node for node in graph if node.op.name == f"aten.{self.old}"]
        for node in found[: self.most]:
            build = Builder(graph, before=node)
            node.result.replace_all_uses(build.call(f"aten.{self.new}", *node.operands))
            node.erase()


def relus(count: int):
    lines = [f"%v{at} = aten.relu(%x) : f32[4, 4]" for at in range(count)]
    return graph("\n".join([*lines, f"return %v{count - 1} : f32[4, 4]"]))


class TestEdits:
    PIPELINE = Pipeline.parse("cse,repeat(dce,verify),cse,dce")

    def test_append(self):
        edited = Pipeline.parse("cse").append(
            "dce", Repeat([get_pass("cse")()]), Pipeline.parse("")
        )
        assert str(edited) == "cse,dce,repeat(cse)"

    def test_insert_before_the_first(self):
        assert str(self.PIPELINE.insert_before("dce", "verify{retype=False}")) == (
            "cse,repeat(verify{retype=False},dce,verify),cse,dce"
        )

    def test_insert_after_the_last(self):
        edited = self.PIPELINE.insert_after(get_pass("cse"), "verify", "verify")
        assert str(edited) == "cse,repeat(dce,verify),cse,verify,verify,dce"

    def test_replace_all(self):
        assert str(self.PIPELINE.replace("cse", "dce")) == "dce,repeat(dce,verify),dce,dce"

    def test_remove_all(self):
        assert str(self.PIPELINE.remove("dce")) == "cse,repeat(verify),cse"

    def test_a_group_that_is_emptied_goes(self):
        assert str(Pipeline.parse("cse,repeat(dce)").remove("dce")) == "cse"

    def test_map(self):
        edited = Pipeline.parse("cse,repeat(dce)").map(lambda _: get_pass("verify")())
        assert str(edited) == "verify,repeat(verify)"

    def test_edits_leave_the_original(self):
        before = str(self.PIPELINE)
        self.PIPELINE.remove("dce")
        assert str(self.PIPELINE) == before

    def test_an_unknown_name_has_the_nearest(self):
        with pytest.raises(PassError, match="no pass 'cs' in the pipeline") as caught:
            self.PIPELINE.remove("cs")
        assert caught.value.hint == "did you mean 'cse'?"

    def test_a_class_is_no_step(self):
        with pytest.raises(PassError, match="is no step of a pipeline"):
            self.PIPELINE.append(get_pass("cse"))

    def test_equal_pipelines_are_equal(self):
        assert Pipeline.parse("cse,dce") == Pipeline.parse("cse").append("dce")
        assert hash(Pipeline.parse("cse")) == hash(Pipeline.parse("cse"))


class TestRunning:
    def test_change_is_read_off_the_graph(self):
        of = relus(1)
        run = Pipeline([Rename("relu"), Rename("tanh")]).run(of)
        assert [(child.name, child.changed) for child in run.passes()] == [
            ("rename", True),
            ("rename", False),
        ]
        assert run.changed
        assert ops(of) == ["aten.exp"]

    def test_a_group_runs_until_nothing_changes(self):
        of = relus(3)
        run = Pipeline([Repeat([Rename("relu")])]).run(of)
        assert ops(of) == ["aten.exp"] * 3
        assert len(list(run.passes())) == 4

    def test_a_group_runs_so_often_at_most(self):
        of = relus(5)
        Pipeline([Repeat([Rename("relu")], max=2)]).run(of)
        assert ops(of).count("aten.exp") == 2

    def test_passes_are_numbered_over_groups(self):
        run = Pipeline([Repeat([Rename("relu")]), Rename("tanh")]).run(relus(1))
        assert [child.number for child in run.passes()] == [1, 2, 3]

    def test_a_failure_names_the_pass_and_what_ran_before(self):
        pipeline = Pipeline([Rename("tanh"), Repeat([Rename("relu", new="no_such_op")])])
        with pytest.raises(PassError) as caught:
            pipeline.run(relus(1))
        error = caught.value
        assert error.pass_name == "rename{old=relu,new=no_such_op}"
        assert error.ran == "rename{old=tanh}"
        assert error.message.startswith("pass rename{old=relu,new=no_such_op} failed: ")
        assert "after: rename{old=tanh}" in str(error)
        assert error.__cause__ is not None

    def test_a_failure_that_is_not_ours_is_said_to_be_a_bug(self):
        of = graph("%y = aten.tanh(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        with pytest.raises(PassError, match=r"KeyError: 'no table for aten.tanh") as caught:
            Pipeline([planted.PlantedCrash()]).run(of)
        assert caught.value.hint == "this is a bug in the pass"

    def test_a_pass_without_run(self):
        @attrs.frozen
        class Nothing(Pass):
            pass

        with pytest.raises(PassError, match=r"Nothing defines no run\(graph, context\)"):
            Pipeline([Nothing()]).run(relus(1))


class TestStages:
    def test_a_pass_brings_a_graph_to_a_stage(self):
        class Decompose(Pass):
            gives_stage = "decomposed"

            def run(self, graph, context):
                pass

        of = relus(1)
        Pipeline([Decompose()]).run(of)
        assert of.stage == "decomposed"

    def test_a_pass_refuses_a_graph_that_is_not_there_yet(self):
        class Late(Pass):
            needs_stage = "fused"

            def run(self, graph, context):
                pass

        with pytest.raises(PassError, match="needs a graph that is fused, and this one is impo"):
            Pipeline([Late()]).run(relus(1))
        of = relus(1)
        of.stage = "segment"
        Pipeline([Late()]).run(of)


class TestRegistry:
    def test_ours_are_known(self):
        assert {"cse", "dce", "verify"} <= {*all_passes()}
        assert location_of(get_pass("dce")).startswith("passes/dce.py:")

    def test_two_lines_make_a_pass_of_rules(self):
        @register_pass
        class MyFusions(RulePass):
            rules = (planted.LeakyRelu,)

        of = relus(1)
        run = Pipeline.parse("my-fusions").run(of)
        assert ops(of) == ["aten.leaky_relu"]
        (child,) = run.passes()
        assert child.applied.hits == {"leaky-relu": 1}
        assert all_rules()["leaky-relu"] is planted.LeakyRelu

    def test_a_class_that_is_declared_again_takes_its_own_place(self):
        def declare(value):
            @register_pass
            @attrs.frozen
            class Again(Pass):
                limit: int = value

            return Again

        declare(1)
        assert get_pass("again") is not declare(2)
        assert get_pass("again")().limit == 2

    def test_two_passes_of_one_name(self):
        with pytest.raises(PassError, match="there is a pass called dce already") as caught:

            @register_pass
            class Other(Pass):
                name = "dce"

        assert "passes/dce.py" in caught.value.where
        assert "test_manager.py" in caught.value.where
        assert 'write `name = "my-dce"` in the class Other' in caught.value.hint

    def test_a_name_of_ours_is_refused_where_it_is_declared(self, tmp_path):
        """In a process that has compiled nothing, so that nothing has asked for our passes yet."""
        file = tmp_path / "mine.py"
        file.write_text(
            "from rewright.passes import Pass, register_pass\n"
            "@register_pass\n"
            "class CSE(Pass):\n"
            "    pass\n"
        )
        done = subprocess.run([sys.executable, file], capture_output=True, text=True)
        assert done.returncode == 1
        assert "PassError: there is a pass called cse already" in done.stderr
        assert "passes/cse.py" in done.stderr and "mine.py:2" in done.stderr
        assert 'write `name = "my-cse"` in the class CSE' in done.stderr

    def test_a_rule_named_like_another(self):
        """``rewright prove`` and reports find rules by name: one would take the other's place."""

        class DropCast(Rule):
            def pattern(self, x):
                return aten.neg(aten.neg(x))

            def replace(self, x):
                return x

        with pytest.raises(PassError, match="there is a rule called drop-cast already") as caught:

            @register_pass
            class Mine(RulePass):
                rules = (DropCast,)

        assert "passes/simplify" in caught.value.where and "test_manager.py" in caught.value.where
        assert 'write `name = "my-drop-cast"` in the class DropCast' in caught.value.hint
        assert "mine" not in all_passes()

    def test_an_option_that_is_none(self):
        with pytest.raises(PassError, match="'limit' of pass forgetful is not one of") as caught:

            @register_pass
            class Forgetful(Pass):
                limit: int = 3

        assert "put @attrs.frozen above `class Forgetful`" in caught.value.hint

    def test_class_variables_are_no_options(self):
        @register_pass
        @attrs.frozen
        class Fine(Pass):
            table: ClassVar[dict] = {}

        assert str(Fine()) == "fine"

    def test_an_option_that_can_t_be_written(self):
        with pytest.raises(PassError, match="the option 'table' of pass unwritable is a dict"):

            @register_pass
            @attrs.frozen
            class Unwritable(Pass):
                table: dict[str, int]

    @pytest.mark.parametrize("name", ["repeat", "default"])
    def test_reserved_names(self, name):
        with pytest.raises(PassError, match=f"no pass may be called {name}"):
            register_pass(type("Fine", (Pass,), {"name": name}))

    def test_an_unknown_stage(self):
        with pytest.raises(PassError, match="names the stage 'fusd'") as caught:
            register_pass(type("Fine", (Pass,), {"gives_stage": "fusd"}))
        assert caught.value.hint == "did you mean 'fused'?"

    def test_what_is_no_pass(self):
        with pytest.raises(PassError, match="is no pass"):
            register_pass(Rule)

    def test_what_is_no_rule(self):
        with pytest.raises(PassError, match=r"lists <.*>, which is no rule"):
            register_pass(type("Fine", (RulePass,), {"rules": (Rule,)}))

    def test_every_module_that_registers_passes_is_known(self):
        from rewright.passes.manager import Pass as Base

        missing = {
            module
            for module, loaded in sys.modules.items()
            if module.startswith("rewright.passes.")
            for item in vars(loaded).values()
            if isinstance(item, type) and issubclass(item, Base) and item.__module__ == module
            if item not in (Base, RulePass)
        } - {*registry._BUILTIN}
        assert not missing


class TestEntryPoints:
    def test_a_pass_of_an_installed_package(self, monkeypatch):
        self.install(monkeypatch, "planted-break", "tests.passes.planted:PlantedBreak")
        assert get_pass("planted-break") is planted.PlantedBreak
        assert "planted-break" in all_passes()

    def test_a_package_that_is_broken(self, monkeypatch, caplog):
        self.install(monkeypatch, "lost", "no_such_package:Lost")
        with pytest.raises(PassError, match="pass lost can't be loaded: No module") as caught:
            get_pass("lost")
        assert "no_such_package:Lost" in caught.value.where
        assert "lost" not in all_passes()
        assert "pass lost can't be loaded" in caplog.text

    def test_a_name_that_is_not_the_pass_s(self, monkeypatch):
        self.install(monkeypatch, "other", "tests.passes.planted:PlantedBreak")
        with pytest.raises(PassError, match="the class is called planted-break"):
            get_pass("other")

    def test_a_name_that_is_ours(self, monkeypatch):
        get_pass("dce")
        entry = EntryPoint("dce", "tests.passes.planted:PlantedBreak", registry.GROUP)
        monkeypatch.setattr(registry, "_entries", lambda path: (entry,))
        with pytest.raises(PassError, match="the class is called planted-break"):
            get_pass("dce")

    def test_the_nearest_name_may_be_of_a_package(self, monkeypatch):
        self.install(monkeypatch, "fold-everything", "no_such_package:Lost")
        with pytest.raises(PassError) as caught:
            get_pass("fold-everthing")
        assert caught.value.hint == "did you mean 'fold-everything'?"

    @staticmethod
    def install(monkeypatch, name, value):
        entry = EntryPoint(name, value, registry.GROUP)
        registry._passes.pop(name, None)

        monkeypatch.setattr(registry, "_entries", lambda path: (entry,))


class TestRulePass:
    def test_only_and_without(self):
        rules = planted.PlantedUnary
        assert rules(only=("leaky-relu",)).chosen() == (planted.LeakyRelu,)
        assert rules(without=("leaky-relu",)).chosen() == (planted.AbsByMax,)
        assert str(rules(without=("leaky-relu",))) == "planted-unary{without=[leaky-relu]}"

    def test_an_unknown_rule(self):
        with pytest.raises(ParseError, match="pass planted-unary has no rule 'leaky'") as caught:
            Pipeline.parse("planted-unary{without=[leaky]}")
        assert caught.value.hint == "did you mean 'leaky-relu'?"

    def test_exactness_is_the_compile_s(self):
        from rewright.passes import EXACT, FAST_MATH

        class Fast(Rule):
            exactness = FAST_MATH

            def pattern(self, x):
                return aten.relu(x)

            def replace(self, x):
                return aten.tanh(x)

        steps = Pipeline([type("Fasts", (RulePass,), {"rules": (Fast,)})()])
        for exactness, op in ((EXACT, "aten.relu"), (FAST_MATH, "aten.tanh")):
            of = relus(1)
            steps.run(of, exactness=exactness)
            assert ops(of) == [op]


@pytest.mark.parametrize(("target", "level"), TEXTS)
def test_default_pipelines_parse_and_print_as_they_stand(target, level):
    assert str(default_pipeline(target, level)) == TEXTS[target, level]
