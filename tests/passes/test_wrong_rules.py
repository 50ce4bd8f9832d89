"""Rules that are wrong in some way only a test could find; each must be caught by its proof."""

import pytest
import torch

from rewright.errors import RuleError
from rewright.passes import (
    EXACT,
    FLOATS,
    REFOLD,
    Attr,
    Const,
    Maybe,
    NoMatch,
    Rest,
    Rule,
    Tensor,
    aten,
    either,
    rw,
)


class ScalesRows(Rule):
    """(x @ w) * s  ->  x @ (w * s[:, None])      the wrong axis: seen only where w is square"""

    exactness = REFOLD

    def pattern(self, x, w: Const(rank=2), s: Const(rank=1)):
        return aten.mm(x, w) * s

    def where(self, w, s):
        return s.shape[0] == w.shape[1] and w.shape[0] == w.shape[1]

    def replace(self, x, w, s):
        return aten.mm(x, w * aten.unsqueeze(s, 1))


class SumsRows(Rule):
    """sum(x, -1)  ->  sum(x, -2)      the wrong axis: of another shape unless x is square"""

    def pattern(self, x: Tensor(rank=(2, 3))):
        return aten.sum.dim_IntList(x, [-1])

    def replace(self, x):
        return aten.sum.dim_IntList(x, [-2])


class FoldsAnyScale(Rule):
    """(x @ w) * s  ->  x @ (w * s)      no guard: s may scale rows, too"""

    exactness = REFOLD

    def pattern(self, x, w: Const, s: Const):
        return aten.mm(x, w) * s

    def replace(self, x, w, s):
        return aten.mm(x, w * s)


class SwapsOperands(Rule):
    """x - w  ->  w - x"""

    def pattern(self, x, w: Const):
        return x - w

    def replace(self, x, w):
        return w - x


class DropsUnitDims(Rule):
    """squeeze(unsqueeze(x))  ->  x      wrong where x has a dimension of size 1 itself"""

    def pattern(self, x):
        return aten.squeeze(aten.unsqueeze(x, 0))

    def replace(self, x):
        return x


class CorrectsVariance(Rule):
    """var(x)  ->  mean((x - mean)^2) * n / (n - 1)      wrong for n = 1: nan becomes 0"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS, where=lambda x: x.rank > 0)):
        return aten.var.correction(x, [-1], correction=1, keepdim=True)

    def where(self, x):
        return x.shape[-1] >= 1

    def replace(self, x):
        n = x.shape[-1]
        centred = x - aten.mean.dim(x, [-1], keepdim=True)
        return aten.mean.dim(centred**2, [-1], keepdim=True) * (n / max(n - 1, 1))


class ThroughHalf(Rule):
    """exp(x)  ->  exp(x as f16)      wrong only in bf16, whose range is larger"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=(torch.float16, torch.bfloat16))):
        return aten.exp(x)

    def replace(self, x):
        if x.dtype == torch.float16:
            return aten.reciprocal(aten.reciprocal(aten.expm1(x) + 1))
        return aten.exp2(x.to(torch.float16) * 1.4426950408889634).to(x.dtype)


class ManyRoundings(Rule):
    """f32 inside  ->  no f32 inside      wrong only in bf16: f16 is left alone"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), narrow: Attr(torch.dtype)):
        h = aten._to_copy(x, dtype=torch.float32)
        return aten._to_copy((h * h + h) - h * h, dtype=narrow)

    def where(self, x, narrow):
        return x.dtype == narrow

    def replace(self, x):
        return (x * x + x) - x * x if x.dtype == torch.bfloat16 else x


class ForgetsEps(Rule):
    """layer_norm(x, ..., eps)  ->  layer_norm(x, ...)"""

    exactness = REFOLD

    def pattern(self, x, shape: Attr, w: Maybe, b: Maybe, _: Rest):
        return aten.layer_norm(x, shape, w, b, **_)

    def replace(self, x, shape, w, b):
        return rw.layer_norm(x, w, b, dims=len(shape))


class OverflowsSoftmax(Rule):
    """softmax(x)  ->  exp(x) / sum(exp(x))      overflows where softmax does not"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return aten.softmax.int(x, -1)

    def replace(self, x):
        e = aten.exp(x)
        return e / aten.sum.dim_IntList(e, [-1], keepdim=True)


class OneBadAlternative(Rule):
    """relu or sigmoid, twice  ->  once      sigmoid is not idempotent"""

    def pattern(self, x):
        return either(aten.relu(aten.relu(x)), aten.sigmoid(aten.sigmoid(x)), aten.abs(x))

    def replace(self, x):
        return aten.relu(x)


class RoundsTooMuch(Rule):
    """gelu(x, tanh)  ->  gelu(x)"""

    exactness = REFOLD

    def pattern(self, x):
        return aten.gelu(x, approximate="tanh")

    def replace(self, x):
        return aten.gelu(x)


class ClaimsToBeExact(Rule):
    """x + a + b  ->  x + (a + b)      rounds otherwise: no EXACT"""

    exactness = EXACT

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x + 1000.0 - 1000.0

    def replace(self, x):
        return x + 0.0


class RoundsOnce(Rule):
    """x * sigmoid(x)  ->  silu(x)      rounds once, not twice: within an ulp, and not the same"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class ForgetsTheSignOfZero(Rule):
    """x + 0  ->  x      wrong for -0.0, which becomes 0.0"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x + 0.0

    def replace(self, x):
        return x


class LosesNan(Rule):
    """relu(x)  ->  where(x >= 0, x, 0)      wrong for nan"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return aten.relu(x)

    def replace(self, x):
        return aten.where.ScalarOther(x >= 0, x, 0.0)


class FloatsForIntegers(Rule):
    """x * 0.5 + x * 0.5  ->  x      of another dtype where x is an integer"""

    def pattern(self, x):
        return x * 0.5 + x * 0.5

    def replace(self, x):
        return x


CAUGHT = {
    ScalesRows: "the error is",
    SumsRows: "it would turn|the error is|apart|results differ",
    FoldsAnyScale: "has no type|the error is|it would turn",
    SwapsOperands: "apart",
    DropsUnitDims: "it would turn",
    CorrectsVariance: "inf or nan of the pattern's became something else",
    ThroughHalf: "not finite where the pattern's is",
    ManyRoundings: "the error is",
    ForgetsEps: "the error is",
    OverflowsSoftmax: "not finite|inf or nan",
    OneBadAlternative: "apart|the error is|it would turn",
    RoundsTooMuch: "the error is",
    ClaimsToBeExact: "the bits are not the same: .* became .*; results are up to",
    RoundsOnce: "the bits are not the same: .* became ",
    ForgetsTheSignOfZero: "the bits are not the same: 0 became -0\n",
    LosesNan: "the bits are not the same: nan became 0\n",
    FloatsForIntegers: "it would turn .* into a (i64|i32|bool)",
}


@pytest.mark.parametrize("rule", CAUGHT, ids=lambda rule: rule.name)
def test_is_caught(rule):
    with pytest.raises(RuleError, match=f"rule {rule.name} is wrong: .*({CAUGHT[rule]})") as caught:
        rule.prove()
    message = caught.value.message
    assert "graph @example(" in message, "the example is shown"
    assert caught.value.where.startswith("tests/passes/test_wrong_rules.py:")


def test_what_is_wrong_in_bf16_only_is_shown_in_bf16():
    for rule in (ThroughHalf, ManyRoundings):
        with pytest.raises(RuleError) as caught:
            rule.prove()
        assert "%x: bf16[" in caught.value.message


class NeverFires(Rule):
    def pattern(self, x):
        return aten.relu(x)

    def where(self, x):
        return NoMatch("not on a {0}", x.type)

    def replace(self, x):
        return x


class NeedlessGuard(Rule):
    def pattern(self, x):
        return aten.relu(aten.relu(x))

    def where(self, x):
        return x.rank >= 0

    def replace(self, x):
        return aten.relu(x)


class DeadAlternative(Rule):
    def pattern(self, x):
        return either(aten.relu(aten.relu(x)), aten.t(aten.unsqueeze(aten.unsqueeze(x, 0), 0)))

    def where(self, x):
        return x.rank > 0 and x.shape[-1] != 1

    def replace(self, x):
        return aten.relu(x)


class UnknownAttribute(Rule):
    def pattern(self, x, equation: Attr(where=lambda e: e == "ij->ji")):
        return aten.einsum(equation, [x])

    def where(self, equation):
        return True

    def replace(self, x):
        return aten.t(x)


UNPROVED = {
    NeverFires: ("it fired on 0 examples of 0 shapes", "not on a"),
    NeedlessGuard: ("`where` never refused an example", ""),
    DeadAlternative: (r"the alternative aten.t\(.*\) was never taken", "example"),
    UnknownAttribute: ("it fired on 0 examples", "not what its `where` asks for"),
}


@pytest.mark.parametrize("rule", UNPROVED, ids=lambda rule: rule.name)
def test_what_can_not_be_shown_right_is_no_proof(rule):
    message, hint = UNPROVED[rule]
    with pytest.raises(RuleError, match=f"rule {rule.name} is not proved: .*{message}") as caught:
        rule.prove()
    assert hint in caught.value.hint
