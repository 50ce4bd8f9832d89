"""The driver: order, revisits, dead code, locations, types, and rewriting that does not end."""

import pytest

import rewright
from rewright.errors import RuleError
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes import (
    EXACT,
    FAST_MATH,
    REFOLD,
    Attr,
    Const,
    NoMatch,
    Rule,
    apply_rules,
    aten,
)
from tests.passes.graphs import graph, only, ops


def rename(old, new, **members):
    """A rule that turns one unary op into another."""

    def pattern(self, x):
        return getattr(aten, old)(x)

    def replace(self, x):
        return getattr(aten, new)(x)

    methods = {"name": f"{old}-to-{new}", "pattern": pattern, "replace": replace}
    return type("Rename", (Rule,), methods | members)


def chain(*names: str) -> Graph:
    """A chain of unary ops."""
    lines, value = [], "%x"
    for index, name in enumerate(names):
        lines.append(f"%v{index} = aten.{name}({value}) : f32[4, 4]  # m.py:{index + 1} (net)")
        value = f"%v{index}"
    return graph("\n".join([*lines, f"return {value} : f32[4, 4]"]))


class TestOrder:
    def test_declaration(self):
        rules = [rename("relu", "sin"), rename("relu", "cos")]
        of = chain("relu")
        apply_rules(of, rules)
        assert ops(of) == ["aten.sin"]
        of = chain("relu")
        apply_rules(of, rules[::-1])
        assert ops(of) == ["aten.cos"]

    def test_priority_comes_before_declaration(self):
        of = chain("relu")
        apply_rules(of, [rename("relu", "sin"), rename("relu", "cos", priority=1)])
        assert ops(of) == ["aten.cos"]

    def test_overlapping_matches_the_first_node_in_order_wins(self):
        class Pair(Rule):
            def pattern(self, x):
                return aten.relu(aten.relu(x))

            def replace(self, x):
                return aten.abs(x)

        of = chain("relu", "relu", "relu")
        assert apply_rules(of, [Pair]).rewrites == 1
        assert ops(of) == ["aten.abs", "aten.relu"]

    def test_overlapping_matches_of_two_rules(self):
        class First(Rule):
            def pattern(self, x):
                return aten.cos(aten.sin(x))

            def replace(self, x):
                return aten.abs(x)

        class Second(Rule):
            priority = 1

            def pattern(self, x):
                return aten.tan(aten.cos(x))

            def replace(self, x):
                return aten.neg(x)

        of = chain("sin", "cos", "tan")
        assert apply_rules(of, [First, Second]).hits == {"first": 1}
        assert ops(of) == ["aten.abs", "aten.tan"]

    def test_the_same_every_time(self):
        rules = [rename("relu", "sin"), rename("sin", "cos"), rename("tanh", "relu")]
        runs = []
        for _ in range(3):
            of = chain("tanh", "sin", "relu", "tanh")
            applied = apply_rules(of, rules)
            runs.append((str(of), applied.visits, dict(applied.hits)))
        assert runs[0] == runs[1] == runs[2]


class TestExactness:
    def test_fast_math_only_where_asked_for(self):
        rule = rename("tanh", "sin", exactness=FAST_MATH)
        of = chain("tanh")
        assert not apply_rules(of, [rule]).changed
        assert apply_rules(of, [rule], exactness=FAST_MATH).changed

    def test_refold_unless_only_exact_is_asked_for(self):
        rule = rename("tanh", "sin", exactness=REFOLD)
        of = chain("tanh")
        assert not apply_rules(of, [rule], exactness=EXACT).changed
        assert apply_rules(of, [rule]).changed


class TestRevisits:
    def test_each_node_once_where_nothing_matches(self):
        of = chain(*["relu"] * 50)
        version = of.version
        applied = apply_rules(of, [rename("tanh", "sin")])
        assert applied.visits == 50
        assert not applied.changed
        assert of.version == version

    def test_only_what_changed(self):
        of = chain(*["relu"] * 50, "tanh", *["relu"] * 50)
        applied = apply_rules(of, [rename("tanh", "sin")])
        assert applied.rewrites == 1
        assert applied.visits <= 101 + 3

    def test_a_match_that_a_rewrite_below_makes_possible(self):
        class Far(Rule):
            """A root three nodes above what changes last."""

            def pattern(self, x):
                return aten.neg(aten.abs(aten.cos(aten.sin(x))))

            def replace(self, x):
                return x

        class Enable(Rule):
            """Fires late: its node is behind, and comes to stand below."""

            def pattern(self, x, y):
                return aten.add.Tensor(aten.relu(x), y)

            def replace(self, x, y):
                return aten.sin(x)

        of = graph(
            """
            %r = aten.relu(%x) : f32[4, 4]
            %a = aten.add.Tensor(%r, %x) : f32[4, 4]
            %b = aten.cos(%a) : f32[4, 4]
            %c = aten.abs(%b) : f32[4, 4]
            %d = aten.neg(%c) : f32[4, 4]
            return %d : f32[4, 4]
            """
        )
        assert apply_rules(of, [Far, Enable]).hits == {"enable": 1, "far": 1}
        assert ops(of) == []

    def test_a_match_that_a_lost_use_makes_possible(self):
        class LogExp(Rule):
            def pattern(self, x):
                return aten.log(aten.exp(x))

            def replace(self, x):
                return x

        class DropSecond(Rule):
            def pattern(self, x, y):
                return aten.maximum(aten.neg(x), y)

            def replace(self, x, y):
                return x

        of = graph(
            """
            %e = aten.exp(%x) : f32[4, 4]
            %l = aten.log(%e) : f32[4, 4]
            %n = aten.neg(%l) : f32[4, 4]
            %m = aten.maximum(%n, %e) : f32[4, 4]
            return %m : f32[4, 4]
            """
        )
        applied = apply_rules(of, [LogExp, DropSecond])
        assert applied.hits == {"drop-second": 1, "log-exp": 1}
        assert of.outputs == tuple(of.inputs)

    def test_regions_are_rewritten_too(self):
        of = graph(
            """
            %y = higher_order.cond(%p, ^yes, ^no, [%x]) : f32[4, 4]
                region ^yes(%a: f32[4, 4]) -> f32[4, 4] {
                %r = aten.relu(%a) : f32[4, 4]
                return %r
              }
                region ^no(%a: f32[4, 4]) -> f32[4, 4] {
                return %a
              }
            return %y : f32[4, 4]
            """,
            "%p: bool[], %x: f32[4, 4]",
        )
        assert apply_rules(of, [rename("relu", "sin")]).rewrites == 1
        assert [node.op.name for node in of.walk()] == ["higher_order.cond", "aten.sin"]


class TestDeadCode:
    def test_what_only_the_match_used_goes_at_once(self):
        class Drop(Rule):
            def pattern(self, x, y):
                return aten.add.Tensor(aten.relu(x), y)

            def replace(self, x, y):
                return aten.neg(x)

        of = graph(
            """
            %e = aten.exp(%x) : f32[4, 4]
            %s = aten.sin(%e) : f32[4, 4]
            %r = aten.relu(%x) : f32[4, 4]
            %a = aten.add.Tensor(%r, %s) : f32[4, 4]
            return %a : f32[4, 4]
            """
        )
        applied = apply_rules(of, [Drop])
        assert ops(of) == ["aten.neg"]
        assert applied.erased == 3

    def test_what_nothing_uses_is_erased_not_rewritten(self):
        of = graph(
            """
            %e = aten.exp(%x) : f32[4, 4]
            %s = aten.relu(%e) : f32[4, 4]
            return %x : f32[4, 4]
            """
        )
        applied = apply_rules(of, [rename("exp", "sin")])
        assert (applied.rewrites, applied.erased, len(of)) == (0, 2, 0)
        assert applied.changed

    def test_effects_and_random_numbers_stay(self):
        of = graph(
            """
            %b = aten.bernoulli(%x) : f32[4, 4]
            return %x : f32[4, 4]
            """
        )
        apply_rules(of, [rename("exp", "sin")])
        assert ops(of) == ["aten.bernoulli"]

    def test_what_gives_a_size_stays(self):
        text = """
        graph @t(%x: i64[]) -> f32[u0]
          where u0 in {0..} = %n
        {
          %n = aten.item(%x) : int(u0)
          %z = aten.zeros([u0]) : f32[u0]
          return %z
        }"""
        from rewright.ir.parser import parse_graph

        of = parse_graph(text)
        apply_rules(of, [rename("exp", "sin")])
        assert ops(of) == ["aten.item", "aten.zeros"]


class TestNewNodes:
    class Both(Rule):
        name = "both"

        def pattern(self, x):
            return aten.cos(aten.sin(x))

        def replace(self, x):
            return aten.neg(aten.abs(x))

    def test_inherit_line_module_and_history(self):
        of = chain("relu", "sin", "cos")
        apply_rules(of, [rename("relu", "exp"), self.Both])
        assert [str(node.loc) for node in of] == [
            "m.py:1 (net) by relu-to-exp",
            "m.py:3 (net) by both",
            "m.py:3 (net) by both",
        ]
        apply_rules(of, [rename("neg", "tan"), rename("abs", "tan")])
        assert str([*of][-1].loc) == "m.py:3 (net) by both, neg-to-tan"

    def test_take_the_line_of_the_nodes_inside_where_the_root_has_none(self):
        of = chain("sin", "cos")
        [*of][1].loc = None
        apply_rules(of, [self.Both])
        assert {str(node.loc) for node in of} == {"m.py:1 (net) by both"}

    def test_take_the_name_of_what_they_replace(self):
        of = chain("sin", "cos")
        apply_rules(of, [self.Both])
        assert [value.hint for node in of for value in node.results] == ["", "v1"]

    def test_have_inferred_types(self):
        of = graph(
            """
            %y = aten.sum.dim_IntList(%x, [-1]) : f32[4]
            return %y : f32[4]
            """
        )

        class Mean(Rule):
            def pattern(self, x):
                return aten.sum.dim_IntList(x, [-1])

            def replace(self, x):
                return aten.mean.dim(x, [-1]) * 4

        apply_rules(of, [Mean])
        verify(of, retype=True)
        assert str(only(of, "aten.mean.dim").result.type) == "f32[4]"


class TestWrongReplacements:
    """Each names the rule, where it is declared, the node, and leaves the graph as it was."""

    def check(self, replace, message, pattern=None):
        def relu(self, x):
            return aten.relu(x)

        rule = type("Wrong", (Rule,), {"pattern": pattern or relu, "replace": replace})
        of = chain("relu")
        text, version = str(of), of.version
        with pytest.raises(RuleError, match=message) as caught:
            apply_rules(of, [rule])
        assert caught.value.rule == "wrong"
        assert "tests/passes/test_driver.py:" in caught.value.where
        assert "m.py:1 (net)" in caught.value.where
        assert (str(of), of.version) == (text, version)
        verify(of)

    def test_another_dtype(self):
        self.check(
            lambda self, x: aten.relu(x) > 0,
            r"rule wrong at %v0 aten.relu: it would turn %v0, a f32\[4, 4\], into a bool\[4, 4\]",
        )

    def test_another_shape(self):
        self.check(lambda self, x: aten.t(aten.reshape(x, [2, 8])), r"into a f32\[8, 2\]")

    def test_nothing(self):
        self.check(lambda self, x: None, "`replace` returned None")

    def test_a_number(self):
        self.check(lambda self, x: 1.0, "`replace` returned 1.0")

    def test_too_many_values(self):
        self.check(lambda self, x: (x, x), "`replace` returned 2 values for 1 roots")

    def test_an_op_that_does_not_fit(self):
        self.check(lambda self, x: aten.mm(x, aten.reshape(x, [2, 8])), "has no type")

    def test_a_size_that_only_a_run_can_tell(self):
        self.check(
            lambda self, x: aten.nonzero(x),
            "aten.nonzero gives a size or number that only a run can tell, and a replacement",
        )

    def test_an_argument_that_does_not_fit(self):
        self.check(lambda self, x: aten.softmax.int(x), "aten.softmax.int needs the argument 'dim'")

    def test_an_unknown_op(self):
        self.check(lambda self, x: aten.rleu(x), "there is no op aten.rleu")

    def test_a_crash(self):
        self.check(lambda self, x: x.shape[7], "`replace` failed at %v0 aten.relu: IndexError")

    def test_a_refusal_is_no_error_and_changes_nothing(self):
        def refuse(self, x):
            aten.exp(x)
            return NoMatch("not today")

        rule = rename("relu", "sin", replace=refuse)
        of = chain("relu")
        text, version = str(of), of.version
        assert not apply_rules(of, [rule]).changed
        assert (str(of), of.version) == (text, version)
        assert len(of.inputs[0].uses) == 1

    def test_sizes_that_may_be_equal_are_a_refusal(self):
        """Dynamo's guards say what a range can't: here, that x has 32 to 63 rows."""
        of = parse_graph("""
        graph @main(%x: f32[s0, 4]) -> f32[1, 4] where s0 in {32..} = dim(%x, 0) {
          %y = aten.slice.Tensor(%x, 0, 0, s0//32) : f32[s0//32, 4]
          %z = aten.relu(%y) : f32[1, 4]
          return %z
        }
        """)
        text = str(of)
        assert not apply_rules(of, [rename("relu", "sin")]).changed
        assert str(of) == text


class TestEndless:
    def test_two_rules_that_undo_each_other(self):
        rules = [rename("sin", "cos", name="there"), rename("cos", "sin", name="back")]
        with pytest.raises(RuleError, match="rules back and there undo each other") as caught:
            apply_rules(chain("relu", "sin"), rules)
        message = caught.value.message
        assert "there at aten.sin (m.py:2 (net) by there, back)" in message
        assert "back at aten.cos (m.py:2 (net) by there, back)" in message
        assert "where" in caught.value.hint

    def test_three_rules_in_a_circle(self):
        rules = [rename("sin", "cos"), rename("cos", "tan"), rename("tan", "sin")]
        with pytest.raises(RuleError, match=r"rules .* and .* and .* undo each other"):
            apply_rules(chain("cos"), rules)

    def test_a_rule_that_fires_on_its_own_output_for_ever(self):
        class Grow(Rule):
            def pattern(self, x):
                return aten.relu(x)

            def replace(self, x):
                return aten.relu(aten.relu(x))

        with pytest.raises(RuleError, match="rule grow keeps firing on its own output"):
            apply_rules(chain("relu"), [Grow])

    def test_the_innermost_error_comes_soon_in_a_large_graph(self):
        rules = [rename("sin", "cos"), rename("cos", "sin")]
        with pytest.raises(RuleError, match="undo each other"):
            apply_rules(chain(*["sin"] * 500), rules)
        assert rewright.stats().rewrites == 0

    def test_two_rules_that_undo_each_other_around_a_node_that_stays(self):
        class Push(Rule):
            """neg(x @ y)  ->  (-x) @ y"""

            def pattern(self, x, y):
                return aten.neg(aten.mm(x, y))

            def replace(self, x, y):
                return aten.mm(aten.neg(x), y)

        class Pull(Rule):
            def pattern(self, x, y):
                return aten.mm(aten.neg(x), y)

            def replace(self, x, y):
                return aten.neg(aten.mm(x, y))

        of = graph(
            """
            %m = aten.mm(%x, %x) : f32[4, 4]
            %y = aten.neg(%m) : f32[4, 4]
            return %y : f32[4, 4]
            """
        )
        with pytest.raises(RuleError, match=r"rules (push and pull|pull and push) undo each other"):
            apply_rules(of, [Push, Pull])

    def test_a_rule_that_fires_on_its_own_output_and_ends(self):
        class Fold(Rule):
            def pattern(self, x, a: Attr, b: Attr):
                return aten.add.Tensor(aten.add.Tensor(x, a), b)

            def replace(self, x, a, b):
                return x + (a + b)

        body = "\n".join(
            f"%v{i + 1} = aten.add.Tensor(%v{i}, 1) : f32[4, 4]" for i in range(600)
        ).replace("%v0", "%x")
        of = graph(f"{body}\nreturn %v600 : f32[4, 4]")
        assert apply_rules(of, [Fold]).rewrites == 599
        assert only(of, "aten.add.Tensor").arg("other") == 600

    def test_sinking_through_a_long_chain_ends(self):
        class Sink(Rule):
            def pattern(self, x):
                return aten.relu(aten.t(x))

            def replace(self, x):
                return aten.t(aten.relu(x))

        of = chain("t", *["relu"] * 600)
        assert apply_rules(of, [Sink]).rewrites == 600
        assert ops(of)[-1] == "aten.t"

    def test_a_budget(self):
        with pytest.raises(RuleError, match="3 rewrites and no end, the last by relu-to-sin"):
            apply_rules(chain(*["relu"] * 5), [rename("relu", "sin")], budget=2)


class TestObservers:
    class Watcher:
        def __init__(self, limit=None):
            self.limit = limit
            self.seen = []

        def may_rewrite(self, rule, match):
            return self.limit is None or len(self.seen) < self.limit

        def on_rewrite(self, done):
            self.seen.append(done)

    def test_they_see_every_rewrite(self):
        watcher = self.Watcher()
        of = chain("relu", "sin", "relu")
        apply_rules(of, [rename("relu", "cos")], observer=watcher)
        first, second = watcher.seen
        assert first.rule.name == "relu-to-cos"
        assert first.root.op.name == "aten.relu"
        assert not first.root.is_attached
        assert [node.op.name for node in first.nodes] == ["aten.cos"]
        assert first.new == first.nodes[0].results
        assert str(first.loc) == "m.py:1 (net) by relu-to-cos"
        assert second.loc.line == 3

    def test_they_may_stop_it(self):
        of = chain("relu", "relu", "relu")
        applied = apply_rules(of, [rename("relu", "cos")], observer=self.Watcher(2))
        assert applied.rewrites == 2
        assert ops(of) == ["aten.cos", "aten.cos", "aten.relu"]

    def test_the_graph_is_well_formed_whenever_they_look(self):
        class Verifying(self.Watcher):
            def on_rewrite(self, done):
                verify(done.graph, retype=True)

        apply_rules(chain("relu", "sin", "cos"), [TestNewNodes.Both], observer=Verifying())


class TestCounts:
    def test_hits_and_statistics(self):
        of = chain("relu", "sin", "relu")
        applied = apply_rules(of, [rename("relu", "cos"), rename("tanh", "cos")])
        assert applied.hits == {"relu-to-cos": 2}
        assert applied.rewrites == rewright.stats().rewrites == 2
        assert applied.seconds == {}

    def test_times(self):
        applied = apply_rules(chain("relu"), [rename("relu", "cos")], timed=True)
        assert applied.seconds.keys() == {"relu-to-cos"}
        assert applied.seconds["relu-to-cos"] > 0


class TestRuleLists:
    def test_two_rules_of_one_name(self):
        rules = [rename("relu", "sin", name="same"), rename("tanh", "sin", name="same")]
        with pytest.raises(RuleError, match="two rules are called same") as caught:
            apply_rules(chain("relu"), rules)
        assert caught.value.where.count("test_driver.py") == 2

    def test_one_rule_twice_is_one_rule(self):
        rule = rename("relu", "sin")
        assert apply_rules(chain("relu"), [rule, rule]).hits == {"relu-to-sin": 1}

    def test_what_is_no_rule(self):
        with pytest.raises(RuleError, match="is no rule") as caught:
            apply_rules(chain("relu"), [rename("relu", "sin")()])
        assert "not instances" in caught.value.hint

    def test_no_rules(self):
        assert not apply_rules(chain("relu"), []).changed


def test_constants_are_kept_by_name():
    class Swap(Rule):
        def pattern(self, x, w: Const):
            return x * w

        def replace(self, x, w):
            return aten.div.Tensor(x, aten.reciprocal(w))

    of = graph(
        "%y = aten.mul.Tensor(%x, @w) : f32[4, 4]\nreturn %y : f32[4, 4]",
        constants="@w : f32[4, 4]",
    )
    apply_rules(of, [Swap])
    assert "aten.reciprocal(@w)" in str(of)
