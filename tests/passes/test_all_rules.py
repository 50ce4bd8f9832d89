"""Every registered rule proves itself, and so does every implementation of an op of ours."""

import pytest

from rewright.backends.torch.implementations import Implementation, implementations
from rewright.errors import RuleError
from rewright.passes import Rule
from rewright.passes.proof.implementations import prove_implementation
from rewright.passes.registry import all_rules

RULES = list(all_rules().values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_proved(rule: type[Rule]):
    print(rule.prove())


def test_few_rules_need_examples_by_hand():
    by_hand = [rule.name for rule in RULES if hasattr(rule, "example")]
    assert len(by_hand) <= len(RULES) / 10, by_hand


@pytest.mark.parametrize("item", implementations(), ids=lambda item: item.name)
def test_every_implementation_is_proved(item: Implementation):
    print(prove_implementation(item.op, item.function, when=item.when))


class TestImplementations:
    """What proves implementations finds those that are wrong."""

    def check(self, op, function, message, **options):
        with pytest.raises(RuleError, match=message) as caught:
            prove_implementation(op, function, **options)
        return caught.value

    def test_right(self):
        def linear(input, weight, bias=None):
            product = input @ weight.mT
            return product if bias is None else product + bias

        proof = prove_implementation("rw.linear", linear)
        assert proof.instances >= 24
        assert str(proof).startswith("linear of rw.linear: 2")

    def test_wrong_numbers(self):
        def linear(input, weight, bias=None):
            return input @ weight.mT

        error = self.check("rw.linear", linear, "linear of rw.linear is wrong: the error is")
        assert "rw.linear(%argument, %argument_1, %argument_2)" in error.message

    def test_wrong_dtype(self):
        def linear(input, weight, bias=None):
            return (input @ weight.mT + (0 if bias is None else bias)).float()

        self.check("rw.linear", linear, r"it gives torch\.float32\[")

    def test_wrong_in_half_precision_only(self):
        def rms_norm(input, weight=None, *, dims=1, eps=1e-6):
            over = list(range(-dims, 0))
            mean = input.square().mean(over, keepdim=True)
            y = input * (mean + eps).rsqrt()
            return y if weight is None else y * weight

        error = self.check("rw.rms_norm", rms_norm, "is wrong")
        assert "%argument: f16[" in error.message

    def test_nodes_that_are_not_taken(self):
        self.check(
            "rw.linear",
            lambda input, weight, bias=None: input,
            "is not proved: 0 calls of 0 shapes",
            when=lambda node: False,
        )
