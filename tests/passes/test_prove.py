"""Proofs of rules that are right: what they cover, and what they say."""

import pytest
import torch

from rewright.errors import RuleError
from rewright.ir.ops import Trait
from rewright.passes import (
    EXACT,
    FAST_MATH,
    FLOATS,
    REFOLD,
    Attr,
    Const,
    Many,
    Maybe,
    OpVar,
    Rest,
    Rule,
    Tensor,
    aten,
    either,
)
from tests.passes.rules_examples import FoldBatchNorm, FuseRmsNorm, LinearTanhGelu


@pytest.mark.parametrize(
    "rule", [FoldBatchNorm, LinearTanhGelu, FuseRmsNorm], ids=lambda rule: rule.name
)
def test_the_three_rules_the_language_was_made_for(rule):
    proof = rule.prove()
    print(proof)
    assert proof.instances >= 24
    assert proof.shapes >= 3
    assert proof.symbolic > 0
    assert set(proof.dtypes) == set(FLOATS)
    assert all("rank" in guard for guard in proof.vacuous)


class FoldScale(Rule):
    """(x @ w) * s  ->  x @ (w * s)      for constant w, s"""

    exactness = REFOLD

    def pattern(self, x, w: Const(rank=2), s: Const(rank=1)):
        return aten.mm(x, w) * s

    def where(self, x, w, s):
        return s.shape[0] == w.shape[1] and x.dtype == w.dtype == s.dtype

    def replace(self, x, w, s):
        return aten.mm(x, w * s)


class DoubleTranspose(Rule):
    """t(t(x))  ->  x"""

    def pattern(self, x, a: Attr, b: Attr):
        return aten.transpose.int(aten.transpose.int(x, a, b), a, b)

    def where(self, a, b):
        return a != b

    def replace(self, x):
        return x


class Silu(Rule):
    """x * sigmoid(x)  ->  silu(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class SinkTranspose(Rule):
    """f(t(x))  ->  t(f(x))      for every elementwise f"""

    def pattern(self, x, f: OpVar(trait=Trait.ELEMENTWISE)):
        return f(aten.transpose.int(x, 0, 1))

    def replace(self, x, f):
        return aten.transpose.int(f(x), 0, 1)


class MergeLinear(Rule):
    """linear(x, v), linear(x, w)  ->  the parts of linear(x, [v; w])"""

    exactness = REFOLD

    def pattern(self, x, v: Const, w: Const):
        return aten.linear(x, v), aten.linear(x, w)

    def where(self, v, w):
        return v.rank == w.rank == 2 and v.dtype == w.dtype

    def replace(self, x, v, w):
        both = aten.linear(x, aten.cat([v, w]))
        return aten.split_with_sizes(both, [v.shape[0], w.shape[0]], -1)


class SplitCat(Rule):
    """cat(split(x, n, d), d)  ->  x"""

    def pattern(self, x, _n: Attr, _d: Attr):
        a, b = aten.split.Tensor(x, _n, _d).results(2)
        return aten.cat([a, b], _d)

    def replace(self, x):
        return x

    def example(self, draw):
        return {"x": draw.tensor(draw.size(), 4), "_n": draw.choice((2, 3)), "_d": 1}


class Pool(Rule):
    """relu(max_pool(x))  ->  max_pool(relu(x))      where a zero may have another sign"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), window: Rest):
        return aten.relu(aten.max_pool2d(x, **window))

    def where(self, window):
        return all(size == 0 for size in window.get("padding", (0, 0)))

    def replace(self, x, window):
        return aten.max_pool2d(aten.relu(x), **window)


class CatOne(Rule):
    """cat([x])  ->  x"""

    def pattern(self, xs: Many(max=1), _dim: Attr):
        return aten.cat(xs, _dim)

    def replace(self, xs):
        return xs[0]


class Rsqrt(Rule):
    """1 / sqrt(x)  ->  rsqrt(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return either(1 / aten.sqrt(x), aten.pow.Tensor_Scalar(x, -0.5))

    def replace(self, x):
        return aten.rsqrt(x)


class FastGelu(Rule):
    """gelu(x)  ->  gelu(x, tanh)"""

    exactness = FAST_MATH
    tolerance = 1e-2

    def pattern(self, x):
        return aten.gelu(x)

    def replace(self, x):
        return aten.gelu(x, approximate="tanh")


class LogicalNot(Rule):
    """not not x  ->  x      for bools, and only for them"""

    exactness = EXACT

    def pattern(self, x: Tensor(dtype=torch.bool)):
        return aten.logical_not(aten.logical_not(x))

    def replace(self, x):
        return x


class AddBias(Rule):
    """linear(x, w) + b  ->  linear(x, w, b)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), w: Const, b: Maybe(Const(rank=1)), c: Const(rank=1)):
        return aten.linear(x, w, b) + c

    def where(self, x, w, b, c):
        fits = c.shape[0] == w.shape[0] and w.rank == 2
        return fits and x.dtype == w.dtype == c.dtype and (b is None or b.dtype == c.dtype)

    def replace(self, x, w, b, c):
        return aten.linear(x, w, c if b is None else (b.wide() + c.wide()).to(c.dtype))


class Square(Rule):
    """x * x  ->  square(x)      one variable at two places of one node"""

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * x

    def replace(self, x):
        return aten.square(x)


class Softmax(Rule):
    """exp(x - max x) / sum(exp(x - max x))  ->  softmax(x)      an attribute inside of a list"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), d: Attr(int)):
        e = aten.exp(x - aten.amax(x, [d], True))
        return e / aten.sum.dim_IntList(e, [d], True)

    def replace(self, x, d):
        return aten.softmax.int(x, d)


class CatOfParts(Rule):
    """cat(split(x, sizes, d), d)  ->  x      for three parts of any sizes"""

    def pattern(self, x, _sizes: Attr, d: Attr(int)):
        return aten.cat([*aten.split_with_sizes(x, _sizes, d).results(3)], d)

    def replace(self, x):
        return x


class MergeLinears(Rule):
    """linear(x, w) for three w  ->  the parts of one linear      three roots"""

    exactness = REFOLD

    def pattern(self, x, u: Const(rank=2), v: Const(rank=2), w: Const(rank=2)):
        return aten.linear(x, u), aten.linear(x, v), aten.linear(x, w)

    def replace(self, x, u, v, w):
        together = aten.linear(x, aten.cat([u, v, w]))
        return aten.split_with_sizes(together, [u.shape[0], v.shape[0], w.shape[0]], -1)


class LinearOfCat(Rule):
    """linear(x, cat(ws))  ->  cat(linear(x, w) ...)      many weights, each of a rank"""

    exactness = REFOLD

    def pattern(self, x, ws: Many(Const(rank=2), min=2)):
        return aten.linear(x, aten.cat(ws))

    def replace(self, x, ws):
        return aten.cat([aten.linear(x, w) for w in ws], -1)


class RepeatHeads(Rule):
    """reshape(expand(unsqueeze(x)))  ->  repeat_interleave(x)      with an example by hand"""

    def pattern(self, x: Tensor(rank=4), grown: Attr, s: Attr):
        return aten.reshape(aten.expand(aten.unsqueeze(x, 2), grown), s)

    def where(self, x, grown, s):
        b, h, t, d = x.shape
        return len(grown) == 5 and tuple(s) == (b, h * grown[2], t, d) and grown[0] == b

    def replace(self, x, grown):
        return aten.repeat_interleave.self_int(x, grown[2], 1)

    def example(self, draw):
        b, h, t, d = draw.sizes(4)
        return {"x": draw.tensor(b, h, t, d), "grown": (b, h, 3, t, d), "s": (b, h * 3, t, d)}


class SplitMoments(Rule):
    """var_mean(x)  ->  var(x), mean(x)      few numbers in float64, with all its rounding"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS), dim: Attr):
        return tuple(aten.var_mean.correction(x, dim, correction=0))

    def replace(self, x, dim):
        return aten.var.correction(x, dim, correction=0), aten.mean.dim(x, dim)


class SplitAddmm(Rule):
    """addmm(b, x, w)  ->  x @ w + b      whose product may overflow where the sum just doesn't"""

    exactness = REFOLD

    def pattern(self, b: Tensor(rank=1), x: Tensor(dtype=FLOATS), w):
        return aten.addmm(b, x, w)

    def replace(self, b, x, w):
        return aten.mm(x, w) + b


RIGHT = [
    *(FoldScale, DoubleTranspose, Silu, SinkTranspose, MergeLinear, SplitCat, Pool, CatOne),
    *(Rsqrt, FastGelu, LogicalNot, AddBias, Square, Softmax, CatOfParts, MergeLinears),
    *(LinearOfCat, RepeatHeads, SplitMoments, SplitAddmm),
]


@pytest.mark.parametrize("rule", RIGHT, ids=lambda rule: rule.name)
def test_every_part_of_the_language_can_be_proved(rule):
    proof = rule.prove()
    print(proof)
    assert proof.instances >= 24
    assert proof.shapes >= 3


def test_a_class_without_a_pattern_has_nothing_to_prove():
    class Misspelled(Rule):
        def patern(self, x):
            return aten.relu(x)

    with pytest.raises(RuleError, match=r"(?s)Misspelled has no `pattern`.*methods are patern"):
        Misspelled.prove()


def test_exact_is_to_the_bit():
    """What is equal within an ulp, or but for the sign of a zero, is REFOLD and not EXACT."""

    class Once(Silu):
        exactness = EXACT

    class AnySign(Pool):
        exactness = EXACT

    for rule in (Once, AnySign):
        with pytest.raises(RuleError, match="the bits are not the same"):
            rule.prove()


def test_integers_are_met_where_the_ops_take_them():
    assert {torch.int64, torch.int32, torch.bool} <= set(DoubleTranspose.prove().dtypes)


def test_a_dtype_that_is_asked_for_is_the_only_one():
    assert LogicalNot.prove().dtypes == (torch.bool,)


def test_every_guard_is_broken_once():
    proof = FoldScale.prove()
    assert set(proof.near_misses) == {
        "w is constant",
        "s is constant",
        "s has the right rank",
        "aten.mm(x, w) has no other users",
        "where",
    }
    assert proof.vacuous == ("w has the right rank",), "aten.mm takes no other"


def test_a_guard_that_the_op_itself_demands_is_vacuous():
    class MatrixProduct(Rule):
        def pattern(self, x: Tensor(rank=2, dtype=FLOATS), w):
            return aten.mm(x, w)

        def replace(self, x, w):
            return aten.matmul(x, w)

    assert "x has the right rank" in MatrixProduct.prove().vacuous


def test_the_same_seed_gives_the_same_proof():
    assert Silu.prove() == Silu.prove()
    assert Silu.prove(seed=1).instances >= 24


def test_more_instances_on_demand():
    assert Silu.prove(instances=60).instances >= 60


def test_a_proof_reads_as_one_line():
    assert str(LogicalNot.prove()).endswith("shapes in bool; 2 near misses")
