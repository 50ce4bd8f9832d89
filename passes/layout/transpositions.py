"""Transpositions that meet: pushed through what is elementwise, merged or cancelled.

q(f(p(x)))                ->  qp(f(x))                  for elementwise f of one tensor
q(g(f(p(x))))             ->  qp(g(f(x)))
f(p(x), p(y))             ->  p(f(x, y))
q(f(p(x), c))             ->  f(x, q(c))                for constant c, where q undoes p

Each leaves fewer transpositions than there were, so they can't chase one another. All of them need
the values in between for nobody else.
"""

from __future__ import annotations

from typing import Final

from rewright.ir.ops import Trait
from rewright.passes.handles import BoundOp, Handle
from rewright.passes.ops import aten
from rewright.passes.patterns import OpVar
from rewright.passes.reasons import NoMatch
from rewright.passes.registry import register_pass
from rewright.passes.rule import Rule
from rewright.passes.rule_pass import RulePass
from rewright.passes.simplify.dims import order_of, reordered
from rewright.passes.variables import Const

_TRANSPOSE: Final = (aten.permute, aten.transpose.int, aten.t)


def _merged(x: Handle, p: BoundOp, q: BoundOp) -> tuple[int, ...]:
    """The order that `q` after `p` gives."""
    first = order_of(p, x.rank)
    return tuple(first[at] for at in order_of(q, x.rank))


class MergeThroughOne(Rule):
    """q(f(p(x)))  ->  qp(f(x))      for elementwise f of one tensor"""

    def pattern(
        self,
        x,
        p: OpVar(*_TRANSPOSE),
        q: OpVar(*_TRANSPOSE),
        f: OpVar(trait=Trait.ELEMENTWISE),
    ):
        return q(f(p(x)))

    def replace(self, x, p, q, f):
        return reordered(f(x), _merged(x, p, q))


class MergeThroughTwo(Rule):
    """q(g(f(p(x))))  ->  qp(g(f(x)))      for elementwise f and g of one tensor"""

    def pattern(
        self,
        x,
        p: OpVar(*_TRANSPOSE),
        q: OpVar(*_TRANSPOSE),
        f: OpVar(trait=Trait.ELEMENTWISE),
        g: OpVar(trait=Trait.ELEMENTWISE),
    ):
        return q(g(f(p(x))))

    def replace(self, x, p, q, f, g):
        return reordered(g(f(x)), _merged(x, p, q))


class MergeOfTwo(Rule):
    """f(p(x), p(y))  ->  p(f(x, y))      for elementwise f of two tensors"""

    def pattern(
        self,
        x,
        y,
        p: OpVar(*_TRANSPOSE),
        q: OpVar(*_TRANSPOSE),
        f: OpVar(trait=Trait.ELEMENTWISE),
    ):
        return f(p(x), q(y))

    def where(self, x, y, p, q):
        if x.rank != y.rank:
            return NoMatch("{0} and {1} have other ranks", x, y)
        return order_of(p, x.rank) == order_of(q, y.rank)

    def replace(self, x, y, p, f):
        return reordered(f(x, y), order_of(p, x.rank))


class CancelWithConstant(Rule):
    """q(f(p(x), c))  ->  f(x, q(c))      for constant c, where q undoes p"""

    def pattern(
        self,
        x,
        c: Const(),
        p: OpVar(*_TRANSPOSE),
        q: OpVar(*_TRANSPOSE),
        f: OpVar(trait=Trait.ELEMENTWISE),
    ):
        return q(f(p(x), c))

    def where(self, x, c, p, q):
        if not 0 < c.rank <= x.rank:
            return NoMatch("{0} has more dimensions than {1}, or none", c, x)
        return _merged(x, p, q) == tuple(range(x.rank))

    def replace(self, x, c, q, f):
        shape = (1,) * (x.rank - c.rank) + tuple(c.shape)
        return f(x, reordered(aten.reshape(c, shape), order_of(q, x.rank)))


@register_pass
class CancelTranspositions(RulePass):
    """transpositions on both sides of what is elementwise  ->  one, or none"""

    rules = (MergeThroughOne, MergeThroughTwo, MergeOfTwo, CancelWithConstant)
