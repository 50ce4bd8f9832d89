"""What a proof that fails says to write, so that the rule holds: an exactness, dtypes."""

import re

import pytest
import torch

from rewright.errors import RuleError
from rewright.passes import FLOATS, REFOLD, Const, Many, Maybe, Rule, Tensor, aten


class Swish(Rule):
    """x * sigmoid(x)  ->  silu(x)      which gives integers for integers"""

    exactness = REFOLD

    def pattern(self, x):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class SwishSaysNothing(Rule):
    """x * sigmoid(x)  ->  silu(x)      neither REFOLD nor FLOATS"""

    def pattern(self, x):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class Double(Rule):
    """x + x  ->  x * 2      where bools become integers"""

    def pattern(self, x):
        return x + x

    def replace(self, x):
        return x * 2


class ForIntegers(Rule):
    """trunc(x)  ->  x      for integers"""

    def pattern(self, x):
        return aten.trunc(x)

    def replace(self, x):
        return x


class FirstTellsAll(Rule):
    """(x + x) where w  ->  (x * 2) where w      the dtype of the mask does not matter"""

    def pattern(self, w, x: Tensor(rank=2)):
        return aten.add.Tensor(x, x) * w

    def where(self, w, x):
        return w.rank == 2

    def replace(self, w, x):
        return x * 2 * w


class WithConstant(Rule):
    """sum of w and none or one b, twice      the variable is a constant that may be left out"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), w: Const(rank=2), b: Maybe(Const(rank=1))):
        return aten.linear(x, w, b) * aten.sigmoid(aten.linear(x, w, b).shared())

    def replace(self, x, w, b):
        return x


class Mixed(Rule):
    """x - y  ->  -(y as x's dtype) + x      wrong only where dtypes differ"""

    def pattern(self, x, y):
        return x - y

    def replace(self, x, y):
        return aten.rsub.Tensor(y.to(x.dtype), x)


class JoinsMany(Rule):
    """cat(xs) + cat(xs)  ->  cat(xs) * 2"""

    def pattern(self, xs: Many(Tensor(rank=2), min=1)):
        parts = aten.cat(xs)
        return parts + parts

    def replace(self, xs):
        return aten.cat(xs) * 2


class WrongInAll(Rule):
    """x * 2  ->  x * 3"""

    exactness = REFOLD

    def pattern(self, x):
        return x * 2

    def replace(self, x):
        return x * 3


class OnlyCoarse(Rule):
    """x * 1.001  ->  x      which bf16 hardly sees: no rule for bf16"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * 1.001

    def replace(self, x):
        return x


INTEGERS = r"\(\*FLOATS, torch.int64, torch.int32\)"
REFOLDED = "REFOLD would allow this: if that is meant, write `exactness = REFOLD` in the rule"

HINTS = {
    Swish: r"^it is right in f32 f16 bf16 f64 and wrong in i64 i32 bool: to keep it off these, "
    r"write `x: Tensor\(dtype=FLOATS\)` in `pattern`$",
    SwishSaysNothing: rf"{REFOLDED}; it is right in f32 .*`x: Tensor\(dtype=FLOATS\)` in `pattern`",
    Double: rf"wrong in bool: .*`x: Tensor\(dtype={INTEGERS}\)` in `pattern`$",
    ForIntegers: r"right in i64 i32 and wrong in f32 f16 f64: .*"
    r"`x: Tensor\(dtype=\(torch.int64, torch.int32\)\)`",
    FirstTellsAll: rf"`x: Tensor\(dtype={INTEGERS}, rank=2\)` in `pattern`$",
    Mixed: r"^it is wrong only where dtypes differ: let `where` ask for x.dtype == y.dtype$",
    JoinsMany: rf"`xs: Many\(Tensor\(dtype={INTEGERS}, rank=2\), min=1\)` in `pattern`$",
}


@pytest.mark.parametrize("rule", HINTS, ids=lambda rule: rule.name)
def test_says_what_to_write(rule):
    with pytest.raises(RuleError, match="is wrong") as caught:
        rule.prove()
    assert re.search(HINTS[rule], caught.value.hint or ""), str(caught.value)


@pytest.mark.parametrize("rule", [WrongInAll, WithConstant], ids=lambda rule: rule.name)
def test_where_nothing_helps_nothing_is_said(rule):
    with pytest.raises(RuleError, match="is wrong") as caught:
        rule.prove()
    assert caught.value.hint is None


def test_a_dtype_that_hides_the_error_is_no_advice():
    with pytest.raises(RuleError, match="the error is") as caught:
        OnlyCoarse.prove()
    assert "write" not in (caught.value.hint or "")


def test_what_is_advised_is_proved():
    class Advised(Rule):
        exactness = REFOLD

        def pattern(self, x: Tensor(dtype=FLOATS)):
            return x * aten.sigmoid(x)

        def replace(self, x):
            return aten.silu(x)

    class Integers(Rule):
        def pattern(self, x: Tensor(dtype=(*FLOATS, torch.int64, torch.int32))):
            return x + x

        def replace(self, x):
            return x * 2

    assert set(Advised.prove().dtypes) == set(FLOATS)
    assert set(Integers.prove().dtypes) == {*FLOATS, torch.int64, torch.int32}
