"""A rule is checked when its class is declared: each mistake names rule, place and remedy."""

import re

import pytest
import torch

from rewright.errors import RuleError
from rewright.ir.ops import Trait
from rewright.passes import (
    EXACT,
    Attr,
    Const,
    Many,
    Maybe,
    OpVar,
    Rest,
    Rule,
    Tensor,
    apply_rules,
    aten,
    either,
    ops,
    rw,
)
from tests.passes.graphs import graph


def declare(pattern, replace=lambda self, x: x, where=None, **members):
    """Declares a rule of these methods."""
    methods = {"pattern": pattern, "replace": replace} | members
    if where is not None:
        methods["where"] = where
    return type("MyRule", (Rule,), methods)


def test_a_rule_knows_its_name_place_and_equation():
    class FuseRMSNorm2d(Rule):
        """relu(relu(x))  ->  relu(x)

        More about it.
        """

        def pattern(self, x):
            return aten.relu(aten.relu(x))

        def replace(self, x):
            return aten.relu(x)

    assert FuseRMSNorm2d.name == "fuse-rms-norm2d"
    assert re.fullmatch(r"tests/passes/test_rule_declaration.py:\d+", FuseRMSNorm2d.location)
    assert FuseRMSNorm2d.equation() == "relu(relu(x))  ->  relu(x)"
    assert FuseRMSNorm2d.exactness is EXACT


def test_a_stated_name_is_kept_and_not_inherited():
    class Base(Rule):
        name = "short"

        def pattern(self, x):
            return aten.relu(x)

        def replace(self, x):
            return x

    class Derived(Base):
        pass

    assert (Base.name, Derived.name) == ("short", "derived")
    assert Base.equation() == "aten.relu(x)"


def test_a_class_without_pattern_is_a_base_and_no_rule():
    class Unary(Rule):
        op = None

        def replace(self, x):
            return x

    with pytest.raises(RuleError, match="is no rule"):
        apply_rules(graph("return %x : f32[4, 4]"), [Unary])


def test_rules_may_be_made_from_a_base_by_class_attributes():
    class Drop(Rule):
        op = None

        def replace(self, x):
            return x

    def pattern(self, x):
        return self.op(x)

    made = [
        type(f"Drop{n}", (Drop,), {"op": getattr(aten, n), "pattern": pattern})
        for n in ("relu", "tanh")
    ]
    found = graph(
        """
        %a = aten.relu(%x) : f32[4, 4]
        %b = aten.tanh(%a) : f32[4, 4]
        return %b : f32[4, 4]
        """
    )
    assert apply_rules(found, made).hits == {"droprelu": 1, "droptanh": 1}
    assert found.outputs == tuple(found.inputs)


class TestPatterns:
    """What a pattern may not leave open, or say wrongly."""

    def check(self, pattern, message, hint="", **members):
        with pytest.raises(RuleError, match=message) as caught:
            declare(pattern, **members)
        error = caught.value
        assert error.message.startswith("rule my-rule: ")
        assert error.rule == "my-rule"
        assert error.where.startswith("tests/passes/test_rule_declaration.py:")
        assert hint in (error.hint or "")

    def test_a_required_attribute_left_open(self):
        def pattern(self, x):
            return aten.softmax.int(x)

        self.check(pattern, "leaves 'dim' of aten.softmax.int open", "parameter `dim: Attr`")

    def test_a_required_operand_left_open(self):
        def pattern(self, x):
            return aten.mm(x)

        self.check(pattern, "leaves 'mat2' of aten.mm open", "parameter `mat2`")

    def test_an_overload_that_lacks_the_argument(self):
        def pattern(self, x):
            return aten.mean(x, [-1])

        self.check(pattern, "takes 1 positional", "aten.mean.dim")

    def test_an_op_without_default_overload(self):
        def pattern(self, x):
            return aten.softmax(x, 1)

        self.check(pattern, "no op aten.softmax", "write one of aten.softmax.int")

    def test_an_overload_for_numbers_only(self):
        def pattern(self, x):
            return aten.add(x, 1)

        self.check(pattern, "'a' of aten.add is an attribute", "aten.add.Tensor, aten.add.Scalar")

    def test_an_unknown_op(self):
        def pattern(self, x):
            return ops("nolibrary").thing(x)

        self.check(pattern, "no op nolibrary.thing", "import the library")

    def test_an_unknown_op_of_ours(self):
        def pattern(self, x):
            return rw.liner(x)

        self.check(pattern, "no op rw.liner")

    def test_an_unknown_parameter(self):
        def pattern(self, x):
            return aten.softmax.int(x, dmi=1)

        self.check(pattern, "no parameter 'dmi'", "did you mean 'dim'?")

    def test_a_parameter_given_twice(self):
        def pattern(self, x):
            return aten.softmax.int(x, 1, dim=1)

        self.check(pattern, "gives 'dim' of aten.softmax.int twice")

    def test_a_tensor_where_an_attribute_belongs(self):
        def pattern(self, x, dim):
            return aten.softmax.int(x, dim)

        self.check(pattern, "'dim' of aten.softmax.int is an attribute", "`dim: Attr`")

    def test_a_variable_that_is_never_bound(self):
        def pattern(self, x, y):
            return aten.relu(x)

        self.check(pattern, "the variable 'y' of `pattern` is never bound", "take it out")

    def test_a_variable_bound_in_one_alternative_only(self):
        def pattern(self, x, y):
            return aten.relu(either(x, aten.add.Tensor(x, y)))

        self.check(pattern, "'y' of `pattern` is bound in some alternatives only", "Maybe")

    def test_an_attribute_that_is_captured_and_ignored(self):
        def pattern(self, x, dim: Attr):
            return aten.softmax.int(x, dim)

        self.check(pattern, "'dim' is captured and then ignored", "`_dim`")

    def test_a_rest_that_is_ignored(self):
        def pattern(self, x, others: Rest):
            return aten.softmax.int(x, **others)

        self.check(pattern, "'others' is captured and then ignored")

    def test_an_op_that_is_ignored(self):
        def pattern(self, x, f: OpVar(trait=Trait.ELEMENTWISE)):
            return f(x)

        self.check(pattern, "'f' is captured and then ignored")

    def test_a_pattern_that_is_a_variable(self):
        def pattern(self, x):
            return x

        self.check(pattern, "a pattern returns nodes, not x")

    def test_a_pattern_that_returns_nothing(self):
        def pattern(self, x):
            aten.relu(x)

        self.check(pattern, "a pattern returns nodes, not None")

    def test_a_pattern_that_branches(self):
        def pattern(self, x):
            return aten.relu(x) if x > 0 else aten.tanh(x)

        self.check(pattern, r"aten.gt.Scalar\(x, 0\) is neither true", "`pattern_<name>`")

    def test_a_function_of_torch(self):
        def pattern(self, x):
            return torch.relu(x)

        self.check(pattern, r"`pattern` can't be read: relu\(\)", "made of ops, as aten.relu(x)")

    def test_a_method_of_tensors(self):
        def pattern(self, x):
            return x.relu()

        self.check(pattern, "`pattern` can't be read: ", "made of ops, as aten.relu(x)")

    def test_an_annotation_that_is_no_constraint(self):
        def pattern(self, x: int):
            return aten.relu(x)

        self.check(pattern, "is no kind of variable", "Tensor, Const, Attr")

    def test_an_annotation_that_can_not_be_read(self):
        def pattern(self, x: "Unheard"):  # noqa: F821
            return aten.relu(x)

        self.check(pattern, "annotation of `pattern` can't be read", "those of the module")

    def test_a_parameter_with_a_default(self):
        def pattern(self, x, y=3):
            return aten.relu(x)

        self.check(pattern, "'y' of `pattern` can't be a variable", "no default")

    def test_a_rest_given_as_one_argument(self):
        def pattern(self, x, others: Rest):
            return aten.softmax.int(x, others)

        self.check(pattern, "others stands for arguments", r"write **others in a call")

    def test_two_manys_in_a_list(self):
        def pattern(self, x: Many, y: Many):
            return aten.cat([x, y])

        self.check(pattern, "at most one Many")

    def test_several_results_where_one_belongs(self):
        def pattern(self, x):
            return aten.relu(aten.split.Tensor(x, 2))

        self.check(pattern, "has several results", ".results(n)")

    def test_unpacking_results_of_unknown_number(self):
        def pattern(self, x):
            a, b = aten.split.Tensor(x, 2)
            return aten.add.Tensor(a, b)

        self.check(pattern, "depends on its arguments", ".results(2)")

    def test_random_ops_inside(self):
        def pattern(self, x):
            return aten.relu(aten.bernoulli(x))

        self.check(pattern, "aten.bernoulli has effects or random results", "what the pattern")

    def test_roots_that_have_nothing_in_common(self):
        def pattern(self, x, y):
            return aten.relu(x), aten.tanh(y)

        self.check(pattern, "no variable in common", "share an operand")

    def test_either_with_one_alternative(self):
        def pattern(self, x):
            return aten.relu(either(x))

        self.check(pattern, "two alternatives or more")

    def test_an_opvar_that_names_nothing(self):
        with pytest.raises(RuleError, match="names either ops or traits"):
            OpVar()

    def test_keywords_for_an_opvar(self):
        def pattern(self, x, f: OpVar(trait=Trait.ELEMENTWISE)):
            return f(self_=x)

        self.check(pattern, "operands of an OpVar go by position", "captured with the op")

    def test_variadic_ops(self):
        def pattern(self, x):
            return ops("higher_order").cond(x, x, x, x)

        self.check(pattern, "takes any arguments")


class TestMethods:
    """What `where` and `replace` may ask for."""

    def test_replace_is_missing(self):
        with pytest.raises(RuleError, match="my-rule: there is no `replace`"):
            type("MyRule", (Rule,), {"pattern": lambda self, x: aten.relu(x)})

    def test_replace_asks_for_an_unknown_variable(self):
        def pattern(self, weight):
            return aten.relu(weight)

        with pytest.raises(RuleError, match="`replace` asks for 'wieght'") as caught:
            declare(pattern, replace=lambda self, wieght: wieght)
        assert caught.value.hint == "did you mean 'weight'?"

    def test_where_asks_for_an_unknown_variable(self):
        def pattern(self, x):
            return aten.relu(x)

        with pytest.raises(RuleError, match="`where` asks for 'y', which `pattern` does not bind"):
            declare(pattern, where=lambda self, y: True)

    def test_every_spelling_binds_what_replace_takes(self):
        def pattern(self, x, y):
            return aten.add.Tensor(x, y)

        def pattern_short(self, x):
            return aten.relu(x)

        with pytest.raises(RuleError, match="'y', which `pattern_short` does not bind"):
            declare(pattern, replace=lambda self, x, y: x, pattern_short=pattern_short)

    def test_starred_parameters(self):
        def pattern(self, x):
            return aten.relu(x)

        with pytest.raises(RuleError, match=r"`replace` takes \*x"):
            declare(pattern, replace=lambda self, *x: x)

    def test_exactness_is_one_of_three(self):
        def pattern(self, x):
            return aten.relu(x)

        with pytest.raises(RuleError, match="exactness is 'exact'"):
            declare(pattern, exactness="exact")

    def test_ignoring_on_purpose_is_said_by_an_underscore(self):
        def pattern(self, x, _dim: Attr, _: Rest):
            return aten.softmax.int(x, _dim, **_)

        assert declare(pattern).name == "my-rule"

    def test_an_attribute_at_two_places_says_that_they_are_the_same(self):
        def pattern(self, x, dim: Attr):
            return aten.softmax.int(aten.softmax.int(x, dim), dim)

        assert declare(pattern).name == "my-rule"

    def test_an_attribute_at_one_place_of_each_alternative_says_nothing(self):
        def pattern(self, x, dim: Attr):
            shared = aten.softmax.int(x, dim)
            return aten.relu(either(aten.sin(shared), aten.cos(shared)))

        with pytest.raises(RuleError, match="'dim' is captured and then ignored"):
            declare(pattern)

        def of_each(self, x, dim: Attr):
            return aten.relu(either(aten.softmax.int(x, dim), aten.log_softmax.int(x, dim)))

        with pytest.raises(RuleError, match="'dim' is captured and then ignored"):
            declare(of_each)

    def test_a_maybe_may_be_bound_in_some_alternatives_only(self):
        def pattern(self, x, y: Maybe(Const)):
            return aten.relu(either(x, aten.add.Tensor(x, y)))

        assert list(declare(pattern).spellings[0].variables) == ["x", "y"]

    def test_ops_are_not_called_outside_of_rules(self):
        with pytest.raises(RuleError, match=r"aten.relu was called outside of a rule"):
            aten.relu(Tensor())

    def test_constraints_may_be_shared_by_parameters_and_rules(self):
        weight = Const(rank=2)

        def pattern(self, x: weight, y: weight):
            return aten.mm(x, y)

        variables = declare(pattern).spellings[0].variables
        assert [v.name for v in variables.values()] == ["x", "y"]
        assert weight.name == ""
