"""Matching: operands in either order, backtracking, several roots, users outside, refusals."""

import sys

import pytest

from rewright.errors import RuleError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.ops import Trait
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes import (
    Attr,
    Const,
    NoMatch,
    OpVar,
    Rule,
    apply_rules,
    aten,
    either,
    explain,
    rw,
)
from tests.passes.graphs import graph, only, ops, refusal


def fires(rule, of):
    """How often a rule is applied; the graph stays well formed."""
    hits = apply_rules(of, [rule]).rewrites
    verify(of, retype=True)
    return hits


class TestEitherOrder:
    class Fma(Rule):
        def pattern(self, x, y, w: Const):
            return aten.add.Tensor(aten.mul.Tensor(x, w), aten.relu(y))

        def replace(self, x, y, w):
            return aten.addcmul(aten.relu(y), x, w)

    @pytest.mark.parametrize("product", ["%x, @w", "@w, %x"])
    @pytest.mark.parametrize("sum_", ["%m, %r", "%r, %m"])
    def test_of_every_commutative_op(self, product, sum_):
        of = graph(
            f"""
            %m = aten.mul.Tensor({product}) : f32[4, 4]
            %r = aten.relu(%x) : f32[4, 4]
            %y = aten.add.Tensor({sum_}) : f32[4, 4]
            return %y : f32[4, 4]
            """,
            constants="@w : f32[4, 4]",
        )
        assert fires(self.Fma, of) == 1

    def test_not_where_alpha_scales_the_second(self):
        class Sum(Rule):
            def pattern(self, x, w: Const, alpha: Attr):
                return aten.add.Tensor(x, w, alpha=alpha)

            def replace(self, x, w, alpha):
                return aten.sub.Tensor(x, w, alpha=-alpha)

        body = "%y = aten.add.Tensor({}, alpha=2) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Sum, graph(body.format("%x, @w"), constants="@w : f32[4, 4]")) == 1
        of = graph(body.format("@w, %x"), constants="@w : f32[4, 4]")
        assert refusal(of, Sum) == "w must be a constant, and is %x"

    def test_not_of_ops_that_do_not_commute(self):
        class Difference(Rule):
            def pattern(self, x, w: Const):
                return x - w

            def replace(self, x, w):
                return x

        of = graph(
            "%y = aten.sub.Tensor(@w, %x) : f32[4, 4]\nreturn %y : f32[4, 4]",
            constants="@w : f32[4, 4]",
        )
        assert fires(Difference, of) == 0

    def test_a_later_part_of_the_pattern_may_undo_an_earlier_choice(self):
        class Difference(Rule):
            """x * y - x  ->  x * (y - 1)"""

            def pattern(self, x, y):
                return x * y - x

            def replace(self, x, y):
                return x * (y - 1)

        body = """
            %m = aten.mul.Tensor({}) : f32[4, 4]
            %y = aten.sub.Tensor(%m, %a) : f32[4, 4]
            return %y : f32[4, 4]"""
        for operands in ("%a, %b", "%b, %a"):
            of = graph(body.format(operands), "%a: f32[4, 4], %b: f32[4, 4]")
            assert fires(Difference, of) == 1
            assert only(of, "aten.sub.Tensor").operands == (of.inputs[1],)

    def test_the_guard_may_undo_a_choice(self):
        class Wide(Rule):
            def pattern(self, x, y):
                return x * y

            def where(self, x, y):
                return x.rank == 2 and y.rank == 1

            def replace(self, x, y):
                return aten.div.Tensor(x, 1 / y)

        body = "%m = aten.mul.Tensor({}) : f32[4, 4]\nreturn %m : f32[4, 4]"
        for operands in ("%a, %b", "%b, %a"):
            assert fires(Wide, graph(body.format(operands), "%a: f32[4, 4], %b: f32[4]")) == 1


class TestAlternatives:
    class Drop(Rule):
        def pattern(self, x):
            h = either(aten.relu(x), aten.sigmoid(x), x)
            return aten.maximum(h, aten.neg(h))

        def replace(self, x):
            return aten.abs(x)

    @pytest.mark.parametrize("op", ["relu", "sigmoid", "tanh"])
    def test_each_is_tried_and_is_one_value_wherever_it_stands(self, op):
        of = graph(
            f"""
            %h = aten.{op}(%x) : f32[4, 4]
            %n = aten.neg(%h) : f32[4, 4]
            %y = aten.maximum(%h, %n) : f32[4, 4]
            return %y : f32[4, 4]
            """
        )
        assert fires(self.Drop, of) == 1
        assert ops(of) == (["aten.tanh", "aten.abs"] if op == "tanh" else ["aten.abs"])

    def test_two_of_them_are_not_one_value(self):
        of = graph(
            """
            %h = aten.relu(%x) : f32[4, 4]
            %k = aten.relu(%x) : f32[4, 4]
            %n = aten.neg(%k) : f32[4, 4]
            %y = aten.maximum(%h, %n) : f32[4, 4]
            return %y : f32[4, 4]
            """
        )
        assert fires(self.Drop, of) == 0

    def test_as_roots(self):
        class Root(Rule):
            def pattern(self, x):
                return either(aten.relu(aten.neg(x)), aten.tanh(x))

            def replace(self, x):
                return aten.sin(x)

        of = graph(
            """
            %a = aten.tanh(%x) : f32[4, 4]
            %n = aten.neg(%a) : f32[4, 4]
            %b = aten.relu(%n) : f32[4, 4]
            return %b : f32[4, 4]
            """
        )
        assert fires(Root, of) == 2
        assert ops(of) == ["aten.sin", "aten.sin"]

    def test_as_spellings(self):
        class Root(Rule):
            def pattern(self, x):
                return aten.relu(aten.relu(x))

            def pattern_mixed(self, x):
                return aten.relu(aten.abs(x))

            def replace(self, x):
                return aten.sin(x)

        of = graph(
            """
            %a = aten.abs(%x) : f32[4, 4]
            %b = aten.relu(%a) : f32[4, 4]
            return %b : f32[4, 4]
            """
        )
        assert fires(Root, of) == 1


class TestInside:
    """Nodes inside of a match, and who else uses them."""

    body = """
        %e = aten.exp(%x) : f32[4, 4]
        %y = aten.log(%e) : f32[4, 4]
        return {} : {}"""

    class LogExp(Rule):
        def pattern(self, x):
            return aten.log(aten.exp(x))

        def replace(self, x):
            return x

    class SharedNode(LogExp):
        def pattern(self, x):
            return aten.log(aten.exp(x).shared())

    class SharedRule(LogExp):
        shared = True

    def test_no_other_users(self):
        of = graph(self.body.format("%y", "f32[4, 4]"))
        assert fires(self.LogExp, of) == 1
        assert ops(of) == []

    def test_other_users_are_a_reason(self):
        of = graph(self.body.format("%y, %e", "f32[4, 4], f32[4, 4]"))
        assert refusal(of, self.LogExp) == "%e has 2 uses, one as an output"
        assert fires(self.LogExp, of) == 0

    @pytest.mark.parametrize("rule", [SharedNode, SharedRule])
    def test_shared_nodes_stay_for_their_other_users(self, rule):
        of = graph(self.body.format("%y, %e", "f32[4, 4], f32[4, 4]"))
        assert fires(rule, of) == 1
        assert ops(of) == ["aten.exp"]

    def test_several_uses_by_the_match_itself(self):
        class Silu(Rule):
            def pattern(self, x):
                h = aten.relu(x)
                return h * aten.sigmoid(h)

            def replace(self, x):
                return aten.silu(aten.relu(x))

        of = graph(
            """
            %h = aten.relu(%x) : f32[4, 4]
            %s = aten.sigmoid(%h) : f32[4, 4]
            %y = aten.mul.Tensor(%s, %h) : f32[4, 4]
            return %y : f32[4, 4]
            """
        )
        assert fires(Silu, of) == 1
        assert ops(of) == ["aten.relu", "aten.silu"]

    def test_a_node_that_gives_a_size_is_never_replaced(self):
        class Drop(Rule):
            def pattern(self, x):
                return aten.nonzero(x)

            def replace(self, x):
                return aten.argwhere(x)

        of = Graph()
        x = of.add_input(graph("return %x : f32[4, 4]").inputs[0].type, "x")
        of.set_outputs([Builder(of).call("aten.nonzero", x)])
        assert refusal(of, Drop) == "%0 gives the size u0"


class TestSeveralRoots:
    class MergeLinear(Rule):
        """linear(x, v), linear(x, w)  ->  the halves of linear(x, [v; w])"""

        def pattern(self, x, v: Const(rank=2), w: Const(rank=2)):
            return aten.linear(x, v), aten.linear(x, w)

        def replace(self, x, v, w):
            both = aten.linear(x, aten.cat([v, w]))
            return aten.split_with_sizes(both, [v.shape[0], w.shape[0]], -1)

    weights = "@q : f32[4, 4]; @k : f32[8, 4]"

    def test_siblings_are_found_by_what_they_share(self):
        of = graph(
            """
            %q = aten.linear(%x, @q) : f32[4, 4]
            %k = aten.linear(%x, @k) : f32[4, 8]
            return %q, %k : f32[4, 4], f32[4, 8]
            """,
            constants=self.weights,
        )
        assert fires(self.MergeLinear, of) == 1
        assert ops(of) == ["aten.cat", "aten.linear", "aten.split_with_sizes"]
        assert only(of, "aten.split_with_sizes").arg("split_sizes") == (4, 8)

    def test_there_is_no_sibling(self):
        of = graph(
            "%q = aten.linear(%x, @q) : f32[4, 4]\nreturn %q : f32[4, 4]",
            constants=self.weights,
        )
        assert refusal(of, self.MergeLinear) == "no other node matches aten.linear(x, w)"

    def test_one_root_uses_the_other(self):
        class Chain(Rule):
            def pattern(self, x, y):
                return aten.add.Tensor(x, y), aten.mul.Tensor(x, y)

            def replace(self, x, y):
                return x, y

        of = graph(
            """
            %a = aten.add.Tensor(%x, %z) : f32[4, 4]
            %m = aten.mul.Tensor(%x, %a) : f32[4, 4]
            return %m : f32[4, 4]
            """,
            "%x: f32[4, 4], %z: f32[4, 4]",
        )
        assert fires(Chain, of) == 0

    def test_new_nodes_come_after_all_that_they_use(self):
        of = graph(
            """
            %q = aten.mul.Tensor(%x, 2.0) : f32[4, 4]
            %z = aten.exp(%x) : f32[4, 4]
            %k = aten.mul.Tensor(%x, %z) : f32[4, 4]
            return %q, %k : f32[4, 4], f32[4, 4]
            """
        )
        assert fires(self.MergeProducts, of) == 1
        assert ops(of) == ["aten.exp", "aten.stack", "aten.unbind.int"]

    class MergeProducts(Rule):
        def pattern(self, x, z):
            return x * 2.0, x * z

        def replace(self, x, z):
            return aten.unbind.int(aten.stack([x, z]))

    def test_a_root_that_is_used_before_all_is_known(self):
        of = graph(
            """
            %q = aten.mul.Tensor(%x, 2.0) : f32[4, 4]
            %z = aten.exp(%q) : f32[4, 4]
            %k = aten.mul.Tensor(%x, %z) : f32[4, 4]
            return %q, %k : f32[4, 4], f32[4, 4]
            """
        )
        assert fires(self.MergeProducts, of) == 0
        assert ops(of) == ["aten.mul.Tensor", "aten.exp", "aten.mul.Tensor"]

    def test_any_root_may_come_first(self):
        class Pair(Rule):
            def pattern(self, x):
                return aten.sin(x), aten.cos(x)

            def replace(self, x):
                return aten.cos(x), aten.tanh(x)

        for order in ("sin cos", "cos sin"):
            first, second = order.split()
            of = graph(
                f"""
                %{first} = aten.{first}(%x) : f32[4, 4]
                %{second} = aten.{second}(%x) : f32[4, 4]
                return %sin, %cos : f32[4, 4], f32[4, 4]
                """
            )
            assert fires(Pair, of) == 1
            assert [value.producer.op.name for value in of.outputs] == ["aten.cos", "aten.tanh"]

    def test_a_root_inside_of_another(self):
        class AddNorm(Rule):
            def pattern(self, x, y):
                total = x + y
                return total, aten.softmax.int(total, -1)

            def replace(self, x, y):
                total = aten.sub.Tensor(x, -y)
                return total, aten.exp(total)

        of = graph(
            """
            %t = aten.add.Tensor(%x, %x) : f32[4, 4]
            %u = aten.relu(%t) : f32[4, 4]
            %n = aten.softmax.int(%t, -1) : f32[4, 4]
            return %u, %n : f32[4, 4], f32[4, 4]
            """
        )
        assert fires(AddNorm, of) == 1
        assert sorted(ops(of)) == ["aten.exp", "aten.neg", "aten.relu", "aten.sub.Tensor"]


class TestResults:
    """Ops with several results."""

    def split(self, returned, types):
        return graph(
            f"""
            %a, %b = aten.split.Tensor(%x, 2) : f32[2, 4], f32[2, 4]
            %y = aten.cat([{returned}]) : {types}
            return %y : {types}
            """
        )

    class SplitCat(Rule):
        def pattern(self, x):
            a, b = aten.split.Tensor(x, 2).results(2)
            return aten.cat([a, b])

        def replace(self, x):
            return x

    def test_in_their_order(self):
        assert fires(self.SplitCat, self.split("%a, %b", "f32[4, 4]")) == 1
        assert fires(self.SplitCat, self.split("%b, %a", "f32[4, 4]")) == 0

    def test_of_another_number(self):
        of = graph(
            """
            %a, %b, %c = aten.split.Tensor(%x, 2) : f32[2, 4], f32[2, 4], f32[2, 4]
            %y = aten.cat([%a, %b]) : f32[4, 4]
            return %y : f32[4, 4]
            """,
            "%x: f32[6, 4]",
        )
        assert refusal(of, self.SplitCat) == "%a has 3 results, not 2"

    def test_as_roots(self):
        class Split(Rule):
            def pattern(self, x):
                return aten.split.Tensor(x, 2).results(2)

            def replace(self, x):
                return aten.narrow(x, 0, 0, 2), aten.narrow(x, 0, 2, 2)

        of = self.split("%a, %b", "f32[4, 4]")
        assert fires(Split, of) == 1
        assert ops(of) == ["aten.narrow", "aten.narrow", "aten.cat"]

    def test_results_that_are_no_roots_have_no_users(self):
        class First(Rule):
            def pattern(self, x):
                out, _mean, _rstd = aten.native_layer_norm(x, [4], None, None, 1e-5)
                return out

            def replace(self, x):
                return aten.layer_norm(x, [4])

        body = """
            %y, %m, %r = aten.native_layer_norm(%x, [4], None, None, 1e-05) : TYPES
            return {} : {}""".replace("TYPES", "f32[4, 4], f32[4, 1], f32[4, 1]")
        assert fires(First, graph(body.format("%y", "f32[4, 4]"))) == 1
        of = graph(body.format("%y, %m", "f32[4, 4], f32[4, 1]"))
        assert refusal(of, First) == "%m has 1 use, one as an output"

    def test_an_operand_that_is_computed_inside_would_stay(self):
        class Gate(Rule):
            def pattern(self, g, u):
                return aten.relu(g) * u

            def replace(self, g, u):
                return rw.gated(g, u, activation="relu")

        body = """
            %r = aten.relu(%x) : f32[4, 4]
            %y = aten.mul.Tensor(%r, {}) : f32[4, 4]
            return %y : f32[4, 4]"""
        assert fires(Gate, graph(body.format("%x"))) == 1
        of = graph(body.format("%r"))
        assert refusal(of, Gate) == "%r would stay, for it is an operand of the match, too"
        assert fires(Gate, of) == 0


class TestSizes:
    """What depends on the sizes is unknown, and unknown never matches."""

    class Square(Rule):
        def pattern(self, x):
            return aten.relu(x)

        def where(self, x):
            return x.shape[0] == x.shape[1]

        def replace(self, x):
            return aten.abs(x)

    def relu(self, shape, where=""):
        text = f"graph @t(%x: f32{shape}) -> f32{shape}\n{where}\n{{\n"
        text += f"%y = aten.relu(%x) : f32{shape}\nreturn %y\n}}"
        return parse_graph(text)

    symbols = "where s0 in {2..9} = dim(%x, 0), s1 in {2..9} = dim(%x, 1)"

    def test_equal_for_all_sizes(self):
        of = self.relu("[s0, s0]", "where s0 in {2..9} = dim(%x, 0)")
        assert fires(self.Square, of) == 1

    def test_equal_for_no_sizes(self):
        of = self.relu("[s0, 10]", "where s0 in {2..9} = dim(%x, 0)")
        assert refusal(of, self.Square) == "`where` is false"

    def test_equal_for_some_sizes(self):
        of = self.relu("[s0, s1]", self.symbols)
        assert refusal(of, self.Square) == (
            "`where` can't be told: whether s0 == s1 depends on the sizes"
        )

    @pytest.mark.parametrize(
        "guard",
        [
            lambda self, x: x.shape[0] != x.shape[1],
            lambda self, x: not x.shape[0] == x.shape[1],  # noqa: SIM201
            lambda self, x: x.shape[0] < 5 or x.shape[0] >= 5,
            lambda self, x: x.shape == x.shape[::-1],
            lambda self, x: x.shape[0] % 2 == 0,
        ],
    )
    def test_unknown_is_neither_answer(self, guard):
        rule = type("Asks", (self.Square,), {"where": guard})
        assert fires(rule, self.relu("[s0, s1]", self.symbols)) == 0

    def test_ranges_decide(self):
        class Large(self.Square):
            def where(self, x):
                return x.shape[0] > 1 and x.shape[0] * x.shape[1] <= 81 and -x.shape[0] < 0

        assert fires(Large, self.relu("[s0, s1]", self.symbols)) == 1

    def test_sizes_go_into_attributes(self):
        class Flatten(Rule):
            def pattern(self, x):
                return aten.relu(x)

            def replace(self, x):
                flat = aten.reshape(x, [x.shape[0] * x.shape[1]])
                return aten.reshape(aten.abs(flat), x.shape)

        of = self.relu("[s0, s1]", self.symbols)
        assert fires(Flatten, of) == 1
        assert "aten.reshape(%x, [s0*s1]) : f32[s0*s1]" in str(of)

    def test_replace_may_not_guess_either(self):
        class Guess(Rule):
            def pattern(self, x):
                return aten.relu(x)

            def replace(self, x):
                return aten.abs(x) if x.shape[0] == 4 else x

        assert fires(Guess, self.relu("[s0, s1]", self.symbols)) == 0


class TestGuards:
    def relu(self):
        return graph("%y = aten.relu(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")

    def rule(self, guard):
        def pattern(self, x):
            return aten.relu(x)

        return type(
            "Asks", (Rule,), {"pattern": pattern, "where": guard, "replace": lambda self, x: x}
        )

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (False, "`where` is false"),
            (None, "`where` returned None, which is no yes"),
            (NoMatch("not {what}", what="this"), "not this"),
        ],
    )
    def test_refusals(self, answer, reason):
        assert refusal(self.relu(), self.rule(lambda self: answer)) == reason

    def test_a_crash_names_rule_and_node(self):
        rule = self.rule(lambda self, x: x.shape[5] == 1)
        with pytest.raises(
            RuleError, match=r"rule asks: `where` failed at %y aten.relu: IndexError"
        ):
            apply_rules(self.relu(), [rule])

    def test_making_nodes_is_a_mistake(self):
        rule = self.rule(lambda self, x: x == x)
        with pytest.raises(RuleError, match=r"`where` computes aten.eq.Tensor"):
            apply_rules(self.relu(), [rule])

    def test_state_is_a_mistake(self):
        def guard(self, x):
            self.remembered = x
            return True

        with pytest.raises(RuleError, match=r"assigns self\.remembered: rules keep no state"):
            apply_rules(self.relu(), [self.rule(guard)])


class TestEffects:
    body = "%y = aten.bernoulli(%x) : f32[4, 4]\nreturn %y : f32[4, 4]"

    def test_random_roots_are_matched_by_name_only(self):
        class Named(Rule):
            def pattern(self, x):
                return aten.bernoulli(x)

            def replace(self, x):
                return aten.sigmoid(x)

        class AnyOp(Rule):
            def pattern(self, x, f: OpVar(trait=Trait.RANDOM)):
                return f(x)

            def replace(self, x, f):
                return x

        assert fires(AnyOp, graph(self.body)) == 0
        assert fires(Named, graph(self.body)) == 1


def test_deep_graphs_and_patterns_need_no_recursion():
    def pattern(self, x):
        for _ in range(100):
            x = aten.relu(x)
        return x

    rule = type("Deep", (Rule,), {"pattern": pattern, "replace": lambda self, x: aten.abs(x)})
    depth = 3 * sys.getrecursionlimit()
    of = Graph()
    build = Builder(of)
    value = of.add_input(graph("return %x : f32[4, 4]").inputs[0].type, "x")
    for _ in range(depth):
        value = build.call("aten.relu", value, types=[value.type])
    of.set_outputs([value])
    assert apply_rules(of, [rule]).rewrites == depth // 100
    assert len(of) == depth // 100


class TestExplain:
    class Scale(Rule):
        def pattern(self, x, w: Const):
            return aten.relu(x * w)

        def replace(self, x, w):
            return x

    def test_one_line_for_each_candidate(self):
        of = graph(
            """
            %a = aten.mul.Tensor(%x, @w) : f32[4, 4]  # model.py:3 (head)
            %b = aten.relu(%a) : f32[4, 4]            # model.py:4 (head)
            %c = aten.relu(%b) : f32[4, 4]            # model.py:5 (head)
            return %c : f32[4, 4]
            """,
            constants="@w : f32[4, 4]",
        )
        version = of.version
        assert explain(of, self.Scale) == [
            "rule scale matches at %b aten.relu (model.py:4)",
            "rule scale did not fire at %c aten.relu (model.py:5): %b is no aten.mul.Tensor",
        ]
        assert of.version == version

    def test_a_node_that_is_no_candidate(self):
        of = graph("%y = aten.abs(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        assert explain(of, self.Scale, only(of, "aten.abs")) == [
            "rule scale did not fire at %y aten.abs: it does not start from aten.abs"
        ]

    def test_reasons_cost_nothing_until_shown(self):
        class Text:
            shown = 0

            def __str__(self):
                Text.shown += 1
                return "text"

        reason = NoMatch("{0} and {more}", Text(), more=Text())
        assert not reason
        assert Text.shown == 0
        assert str(reason) == "text and text"
