"""What each kind of variable and literal matches, refuses, and hands to `where` and `replace`."""

import math

import pytest
import torch

from rewright.errors import RuleError
from rewright.ir.ops import Trait
from rewright.passes import (
    Attr,
    Const,
    Many,
    Maybe,
    NoMatch,
    OpVar,
    Rest,
    Rule,
    Scalar,
    Tensor,
    apply_rules,
    aten,
    either,
    explain,
    near,
)
from tests.passes.graphs import graph, only, ops, refusal


def fires(rule, of):
    """Whether a rule is applied to a graph, exactly once."""
    hits = apply_rules(of, [rule]).rewrites
    assert hits <= 1
    return hits == 1


class TestTensors:
    class Wide(Rule):
        """relu(x)  ->  x"""

        def pattern(self, x: Tensor(dtype=(torch.float32, torch.float64), rank=(2, 3))):
            return aten.relu(x)

        def replace(self, x):
            return x

    def relu_of(self, kind):
        return graph(f"%y = aten.relu(%x) : {kind}\nreturn %y : {kind}", f"%x: {kind}")

    @pytest.mark.parametrize("kind", ["f32[4, 4]", "f64[1, 2, 3]"])
    def test_dtype_and_rank_are_right(self, kind):
        assert fires(self.Wide, self.relu_of(kind))

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("f16[4, 4]", "x = %x must be f32 or f64: f16[4, 4]"),
            ("f32[4]", "x = %x must have rank 2 or 3: f32[4]"),
        ],
    )
    def test_dtype_or_rank_is_wrong(self, kind, reason):
        of = self.relu_of(kind)
        assert refusal(of, self.Wide) == reason
        assert not fires(self.Wide, of)

    def test_a_constant(self):
        class Constant(Rule):
            def pattern(self, x, w: Const(rank=1)):
                return aten.mul.Tensor(x, w)

            def replace(self, x, w):
                return x

        body = "%y = aten.mul.Tensor(%x, {}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Constant, graph(body.format("@w"), constants="@w : f32[4]"))
        of = graph(body.format("%v"), "%x: f32[4, 4], %v: f32[4]")
        assert refusal(of, Constant) == "w must be a constant, and is %v"

    def test_one_use(self):
        class Once(Rule):
            def pattern(self, x: Tensor(one_use=True)):
                return aten.relu(x)

            def replace(self, x):
                return x

        of = graph("%y = aten.relu(%x) : f32[4, 4]\nreturn %y, %x : f32[4, 4], f32[4, 4]")
        assert refusal(of, Once) == "%x has 2 uses, one as an output"
        assert fires(Once, self.relu_of("f32[4, 4]"))

    def test_a_predicate(self):
        class Square(Rule):
            def pattern(self, x: Tensor(where=lambda x: x.shape[0] == x.shape[1])):
                return aten.relu(x)

            def replace(self, x):
                return x

        assert fires(Square, self.relu_of("f32[4, 4]"))
        assert refusal(self.relu_of("f32[4, 5]"), Square) == (
            "x = %x is not what its `where` asks for"
        )

    def test_a_predicate_with_a_reason(self):
        class Never(Rule):
            def pattern(self, x: Tensor(where=lambda x: NoMatch("{0} won't do", x))):
                return aten.relu(x)

            def replace(self, x):
                return x

        assert refusal(self.relu_of("f32[4, 4]"), Never) == "%x won't do"

    def test_a_variable_used_twice_is_the_same_value(self):
        class Square(Rule):
            def pattern(self, x):
                return aten.mul.Tensor(x, x)

            def replace(self, x):
                return aten.square(x)

        body = "%y = aten.mul.Tensor(%x, {}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        of = graph(body.format("%v"), "%x: f32[4, 4], %v: f32[4, 4]")
        assert refusal(of, Square) == "x is %x and %v"
        assert fires(Square, graph(body.format("%x")))


class TestAttributes:
    def softmax(self, rest):
        return graph(f"%y = aten.softmax.int(%x, {rest}) : f32[4, 4]\nreturn %y : f32[4, 4]")

    def rule(self, stated):
        class Stated(Rule):
            def pattern(self, x):
                return aten.softmax.int(x, stated)

            def replace(self, x):
                return aten.softmax.int(x, 1)

        return Stated

    def test_dimensions_are_counted_from_either_end(self):
        class Last(Rule):
            def pattern(self, x):
                return aten.softmax.int(x, -1)

            def replace(self, x):
                return aten.sigmoid(x)

        assert fires(Last, self.softmax("1"))
        assert fires(Last, self.softmax("-1"))
        assert refusal(self.softmax("0"), Last) == "0 is not -1"

    def test_dimensions_of_what_unsqueeze_makes(self):
        class Last(Rule):
            def pattern(self, x):
                return aten.unsqueeze(x, -1)

            def replace(self, x):
                return aten.reshape(x, [*x.shape, 1])

        body = "%y = aten.unsqueeze(%x, {}) : {}\nreturn %y : {}"
        last, first = "f32[4, 4, 1]", "f32[4, 1, 4]"
        assert fires(Last, graph(body.format(2, last, last)))
        assert not fires(Last, graph(body.format(1, first, first)))

    def test_what_the_pattern_omits_is_at_its_default(self):
        of = self.softmax("1, dtype=f32")
        assert refusal(of, self.rule(1)) == (
            "%y has dtype=torch.float32, which the pattern leaves at its default"
        )

    def test_a_stated_default_matches_an_omitted_argument(self):
        class Stated(Rule):
            def pattern(self, x, y):
                return aten.add.Tensor(x, y, alpha=1)

            def replace(self, x, y):
                return x

        assert fires(
            Stated, graph("%y = aten.add.Tensor(%x, %x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        )

    def test_an_omitted_argument_is_captured_as_its_default(self):
        class Captured(Rule):
            def pattern(self, x, approximate: Attr):
                return aten.gelu(x, approximate=approximate)

            def where(self, approximate):
                return approximate == "none"

            def replace(self, x):
                return x

        body = "%y = aten.gelu(%x{}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Captured, graph(body.format("")))
        assert not fires(Captured, graph(body.format(', approximate="tanh"')))

    def test_a_class_and_a_predicate(self):
        class Half(Rule):
            def pattern(self, x, s: Attr(float, where=lambda s: s < 1)):
                return x * s

            def replace(self, x, s):
                return x * (1 + s)

        body = "%y = aten.mul.Tensor(%x, {}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Half, graph(body.format("0.5")))
        assert refusal(graph(body.format("2")), Half) == "s must be float, and is 2"
        assert refusal(graph(body.format("2.0")), Half) == (
            "s = 2.0 is not what its `where` asks for"
        )
        assert refusal(graph(body.format("%x")), Half) == "s must be an attribute, and is %x"

    def test_the_same_attribute_twice(self):
        class Same(Rule):
            def pattern(self, x, dim: Attr):
                return aten.flip(aten.flip(x, dim), dim)

            def where(self, dim):
                return dim is not None

            def replace(self, x):
                return x

        body = """
            %a = aten.flip(%x, [0]) : f32[4, 4]
            %b = aten.flip(%a, [{}]) : f32[4, 4]
            return %b : f32[4, 4]"""
        assert fires(Same, graph(body.format(0)))
        of = graph(body.format(1))
        assert refusal(of, Same, only_last(of)) == "dim is [0] and [1]"

    @pytest.mark.parametrize(("stated", "given"), [(2, "2.0"), (2.0, "2"), (2, "2")])
    def test_an_int_is_the_float_of_the_same_value_for_floating_tensors(self, stated, given):
        class Twice(Rule):
            def pattern(self, x):
                return x * stated

            def replace(self, x):
                return x + x

        body = f"%y = aten.mul.Tensor(%x, {given}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Twice, graph(body))

    def test_an_int_is_no_float_for_integer_tensors(self):
        class Twice(Rule):
            def pattern(self, x):
                return x * 2

            def replace(self, x):
                return x + x

        of = graph("%y = aten.mul.Tensor(%x, 2.0) : f32[4]\nreturn %y : f32[4]", "%x: i64[4]")
        assert not fires(Twice, of)

    def test_true_is_not_one(self):
        class One(Rule):
            def pattern(self, x):
                return x * 1

            def replace(self, x):
                return x

        of = graph("%y = aten.mul.Tensor(%x, True) : f32[4, 4]\nreturn %y : f32[4, 4]")
        assert not fires(One, of)

    def test_a_number_known_but_for_rounding(self):
        class Near(Rule):
            def pattern(self, x):
                return x * near(math.sqrt(2 / math.pi), rel=1e-4)

            def replace(self, x):
                return x

        body = "%y = aten.mul.Tensor(%x, {}) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(Near, graph(body.format("0.79788")))
        assert refusal(graph(body.format("0.8")), Near).startswith("0.8 is not near(0.797")

    def test_a_dtype_is_stated(self):
        class ToHalf(Rule):
            def pattern(self, x):
                return aten._to_copy(x, dtype=torch.float16)

            def replace(self, x):
                return aten._to_copy(x, dtype=torch.float16, non_blocking=True)

        body = "%y = aten._to_copy(%x, dtype={0}) : {0}[4, 4]\nreturn %y : {0}[4, 4]"
        assert fires(ToHalf, graph(body.format("f16")))
        assert not fires(ToHalf, graph(body.format("bf16")))


def only_last(of):
    """The last node of a graph."""
    return [*of][-1]


class TestScalars:
    class Scale(Rule):
        def pattern(self, x, s: Scalar):
            return x * s

        def where(self, s):
            return True

        def replace(self, x):
            return x

    def test_an_attribute(self):
        body = "%y = aten.mul.Tensor(%x, 2) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(self.Scale, graph(body))

    def test_a_scalar_of_the_graph(self):
        body = "%y = aten.mul.Tensor(%x, %n) : f32[4, 4]\nreturn %y : f32[4, 4]"
        assert fires(self.Scale, graph(body, "%x: f32[4, 4], %n: int"))

    def test_a_tensor_is_no_number(self):
        of = graph("%y = aten.mul.Tensor(%x, %x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        assert refusal(of, self.Scale) == "s must be a number, and is %x"


class TestOptional:
    class Linear(Rule):
        def pattern(self, x, w, b: Maybe(Const)):
            return aten.linear(x, w, b)

        def replace(self, x, w, b):
            y = aten.matmul(x, aten.t(w))
            return y if b is None else y + b

    def test_there(self):
        of = graph(
            "%y = aten.linear(%x, @w, @b) : f32[4, 4]\nreturn %y : f32[4, 4]",
            constants="@w : f32[4, 4]; @b : f32[4]",
        )
        assert fires(self.Linear, of)
        assert ops(of) == ["aten.t", "aten.matmul", "aten.add.Tensor"]

    def test_absent(self):
        of = graph(
            "%y = aten.linear(%x, @w) : f32[4, 4]\nreturn %y : f32[4, 4]",
            constants="@w : f32[4, 4]",
        )
        assert fires(self.Linear, of)
        assert ops(of) == ["aten.t", "aten.matmul"]

    def test_there_but_not_what_it_must_be(self):
        of = graph(
            "%y = aten.linear(%x, @w, %b) : f32[4, 4]\nreturn %y : f32[4, 4]",
            "%x: f32[4, 4], %b: f32[4]",
            "@w : f32[4, 4]",
        )
        assert refusal(of, self.Linear) == "b must be a constant, and is %b"


class TestLists:
    def cat(self, items, shape="f32[8, 4]"):
        return graph(
            f"%y = aten.cat([{items}]) : {shape}\nreturn %y : {shape}",
            "%x: f32[4, 4], %z: f32[4, 4]",
        )

    def test_a_whole_list(self):
        class Any(Rule):
            def pattern(self, xs: Many(min=2)):
                return aten.cat(xs)

            def where(self, xs):
                return len({x.value for x in xs}) == 1

            def replace(self, xs):
                return aten.repeat(xs[0], [len(xs), 1])

        assert fires(Any, self.cat("%x, %x"))
        assert refusal(self.cat("%x, %z"), Any) == "`where` is false"
        assert (
            refusal(self.cat("%x", "f32[4, 4]"), Any) == "xs must have at least 2 items, and has 1"
        )

    def test_items_around_any_number_of_others(self):
        class Ends(Rule):
            def pattern(self, x, between: Many):
                return aten.cat([x, between, aten.relu(x)])

            def replace(self, x, between):
                return aten.cat([aten.relu(x), *between, x])

        of = graph(
            """
            %r = aten.relu(%x) : f32[4, 4]
            %y = aten.cat([%x, %z, %z, %r]) : f32[16, 4]
            return %y : f32[16, 4]
            """,
            "%x: f32[4, 4], %z: f32[4, 4]",
        )
        assert fires(Ends, of)
        x, z = of.inputs
        assert only(of, "aten.cat").operands == (only(of, "aten.relu").result, z, z, x)

    def test_items_of_a_fixed_number(self):
        class Pair(Rule):
            def pattern(self, x, y):
                return aten.cat([x, y])

            def replace(self, x, y):
                return aten.reshape(aten.stack([x, y]), [8, 4])

        assert fires(Pair, self.cat("%x, %z"))
        assert refusal(self.cat("%x, %z, %z", "f32[12, 4]"), Pair) == (
            "[%x, %z, %z] is no list of 2"
        )


class TestOps:
    class Twice(Rule):
        """f(f(x))  ->  f(x)"""

        def pattern(self, x, f: OpVar(aten.relu, aten.clamp, aten.softmax.int)):
            return f(f(x))

        def replace(self, x, f):
            return f(x)

    def test_named_ops_are_called_again_with_their_attributes(self):
        of = graph(
            """
            %a = aten.clamp(%x, 0, 6) : f32[4, 4]
            %b = aten.clamp(%a, 0, 6) : f32[4, 4]
            return %b : f32[4, 4]
            """
        )
        assert fires(self.Twice, of)
        assert only(of, "aten.clamp").arguments() == {"self": of.inputs[0], "min": 0, "max": 6}

    def test_the_same_op_has_the_same_attributes(self):
        of = graph(
            """
            %a = aten.clamp(%x, 0, 6) : f32[4, 4]
            %b = aten.clamp(%a, 0, 7) : f32[4, 4]
            return %b : f32[4, 4]
            """
        )
        assert refusal(of, self.Twice, only_last(of)) == "f is not the same op twice"

    def test_any_op_with_a_trait(self):
        class Sink(Rule):
            """f(t(x))  ->  t(f(x))"""

            def pattern(self, x, f: OpVar(trait=Trait.ELEMENTWISE)):
                return f(aten.t(x))

            def replace(self, x, f):
                return aten.t(f(x))

        body = """
            %a = aten.t(%x) : f32[4, 4]
            %b = {} : f32[4, 4]
            return %b : f32[4, 4]"""
        of = graph(body.format("aten.clamp(%a, 0, 6)"))
        assert fires(Sink, of)
        assert ops(of) == ["aten.clamp", "aten.t"]
        assert only(of, "aten.clamp").arg("max") == 6
        assert refusal(graph(body.format("aten.add.Tensor(%a, %x)")), Sink).endswith(
            "has more than 1 operands"
        )
        assert not fires(Sink, graph(body.format("aten.softmax.int(%a, 1)")))

    def test_random_ops_are_no_any_op(self):
        class Drop(Rule):
            def pattern(self, x, f: OpVar(trait=Trait.ELEMENTWISE)):
                return f(x)

            def where(self, f):
                return f.name != "aten.relu"

            def replace(self, x):
                return x

        of = graph("%y = aten.bernoulli(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        assert not fires(Drop, of)


class TestRest:
    body = "%y = aten.max_pool2d(%x, [2, 2], [2, 2]) : f32[1, 1, 2, 2]\nreturn %y : f32[1, 1, 2, 2]"

    def test_attributes_go_on_as_they_are(self):
        class Negate(Rule):
            def pattern(self, x, window: Rest):
                return aten.max_pool2d(x, **window)

            def where(self, window):
                return "padding" not in window

            def replace(self, x, window):
                return aten.max_pool2d(x, padding=0, **window)

        of = graph(self.body, "%x: f32[1, 1, 4, 4]")
        assert refusal_or_match(of, Negate) == "matches"

    def test_values_only_where_asked_for(self):
        class Attributes(Rule):
            def pattern(self, x, rest: Rest):
                return aten.linear(x, **rest)

            def replace(self, x, rest):
                return x

        class Values(Rule):
            def pattern(self, x, rest: Rest(values=True)):
                return aten.linear(x, **rest)

            def where(self, rest):
                return rest["weight"].shape == (4, 4) and "bias" not in rest

            def replace(self, x, rest):
                return x

        of = graph(
            "%y = aten.linear(%x, @w) : f32[4, 4]\nreturn %y : f32[4, 4]",
            constants="@w : f32[4, 4]",
        )
        assert refusal(of, Attributes) == "%y has a value for weight, and rest takes attributes"
        assert fires(Values, of)


def refusal_or_match(of, rule):
    """The word "matches", or why not."""
    (line,) = explain(of, rule)
    return "matches" if "matches" in line else line


class TestOperators:
    """Operators describe the ops that torch makes of them."""

    @pytest.mark.parametrize(
        ("build", "node"),
        [
            (lambda x: x + 1, "aten.add.Tensor(%x, 1)"),
            (lambda x: 1 + x, "aten.add.Tensor(%x, 1)"),
            (lambda x: x - 1, "aten.sub.Tensor(%x, 1)"),
            (lambda x: 1 - x, "aten.rsub.Scalar(%x, 1)"),
            (lambda x: 2 * x, "aten.mul.Tensor(%x, 2)"),
            (lambda x: x / 2, "aten.div.Tensor(%x, 2)"),
            (lambda x: 1 / x, "aten.reciprocal(%x)"),
            (lambda x: x**2, "aten.pow.Tensor_Scalar(%x, 2)"),
            (lambda x: 2**x, "aten.pow.Scalar(2, %x)"),
            (lambda x: x**x, "aten.pow.Tensor_Tensor(%x, %x)"),
            (lambda x: x @ x, "aten.matmul(%x, %x)"),
            (lambda x: -x, "aten.neg(%x)"),
        ],
    )
    def test_numbers(self, build, node):
        class Operator(Rule):
            def pattern(self, x):
                return build(x)

            def replace(self, x):
                return aten.relu(x)

        assert fires(Operator, graph(f"%y = {node} : f32[4, 4]\nreturn %y : f32[4, 4]"))

    @pytest.mark.parametrize(
        ("build", "node"),
        [
            (lambda x: x > 0, "aten.gt.Scalar(%x, 0)"),
            (lambda x: 0 > x, "aten.lt.Scalar(%x, 0)"),  # noqa: SIM300
            (lambda x: x <= x, "aten.le.Tensor(%x, %x)"),
            (lambda x: x == 1, "aten.eq.Scalar(%x, 1)"),
            (lambda x: x != x, "aten.ne.Tensor(%x, %x)"),
        ],
    )
    def test_comparisons(self, build, node):
        class Operator(Rule):
            def pattern(self, x):
                return build(x)

            def replace(self, x):
                return aten.isnan(x)

        assert fires(Operator, graph(f"%y = {node} : bool[4, 4]\nreturn %y : bool[4, 4]"))

    def test_two_over_x_is_two_nodes(self):
        class Quotient(Rule):
            def pattern(self, x):
                return 2 / x

            def replace(self, x):
                return x

        of = graph(
            """
            %r = aten.reciprocal(%x) : f32[4, 4]
            %y = aten.mul.Tensor(%r, 2) : f32[4, 4]
            return %y : f32[4, 4]
            """
        )
        assert fires(Quotient, of)
        assert ops(of) == []

    def test_numbers_that_are_variables_stand_where_numbers_do(self):
        class Reversed(Rule):
            def pattern(self, x, s: Attr, t: Attr):
                return (s - x) > t

            def replace(self, x, s, t):
                return x < s - t

        of = graph(
            """
            %r = aten.rsub.Scalar(%x, 2) : f32[4, 4]
            %y = aten.gt.Scalar(%r, 0.5) : bool[4, 4]
            return %y : bool[4, 4]
            """
        )
        assert fires(Reversed, of)
        assert only(of, "aten.lt.Scalar").arg("other") == 1.5


class TestReplacementValues:
    """What `replace` can do with its handles."""

    @pytest.mark.parametrize(("kind", "casts"), [("f16", 3), ("f32", 0), ("f64", 0)])
    def test_casts_are_made_where_needed(self, kind, casts):
        class Cast(Rule):
            def pattern(self, x, w: Const):
                return x / w

            def replace(self, x, w):
                return (x.wide() * w.wide()).to(x.dtype)

        of = graph(
            f"%y = aten.div.Tensor(%x, @w) : {kind}[4]\nreturn %y : {kind}[4]",
            f"%x: {kind}[4]",
            f"@w : {kind}[4]",
        )
        assert fires(Cast, of)
        assert ops(of).count("aten._to_copy") == casts

    def test_shape_of_what_is_no_tensor(self):
        class Shape(Rule):
            def pattern(self, x, s: Scalar):
                return x * s

            def where(self, s):
                return s.rank == 0

            def replace(self, x):
                return x

        of = graph(
            "%y = aten.mul.Tensor(%x, %n) : f32[4, 4]\nreturn %y : f32[4, 4]",
            "%x: f32[4, 4], %n: int",
        )
        with pytest.raises(RuleError, match=r"`where` failed at %y aten.mul.Tensor: %n is a int"):
            apply_rules(of, [Shape])


def test_alternatives_are_tried_in_order():
    class First(Rule):
        def pattern(self, x: Maybe, y: Maybe, z: Maybe):
            return aten.neg(either(aten.relu(y), aten.relu(z), x))

        def replace(self, x, y, z):
            assert (x, z) == (None, None)
            return y

    of = graph(
        """
        %r = aten.relu(%x) : f32[4, 4]
        %y = aten.neg(%r) : f32[4, 4]
        return %y : f32[4, 4]
        """
    )
    assert fires(First, of)
    assert of.outputs == tuple(of.inputs)
