"""Linears that share an input, side by side: one product instead of several.

    linear(x, u, a), linear(x, v, b), linear(x, w, c)
                                     ->  split(linear(x, cat(u, v, w), cat(a, b, c)))
    linear(x, u, a), linear(x, v, b) ->  split(linear(x, cat(u, v), cat(a, b)))

Queries, keys and values; gate and value of an MLP. The weights are constants, and the merged one is
a recipe: its bytes come on top of theirs.
"""

from __future__ import annotations

from typing import Any, Final

from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import Const, Maybe, Tensor

Vector: Final = Const(rank=1)


def _fit(*pairs: tuple[Handle, Handle | None]) -> Any:
    """Whether weights and biases are of one dtype, and each bias has a number for each output."""
    first = pairs[0][0]
    for w, b in pairs:
        if w.dtype != first.dtype or (b is not None and b.dtype != first.dtype):
            return NoMatch("{0} is of another dtype than {1}", w, first)
        if b is not None and b.shape[0] != w.shape[0]:
            return NoMatch("{0} is broadcast", b)
    return True


def _merged(x: Handle, weights: list[Handle], biases: list[Handle | None]) -> Any:
    """``split(linear(x, cat(weights), cat(biases)))``; a bias that is left out is zeros."""
    bias = None
    if any(b is not None for b in biases):
        rows = zip(weights, biases, strict=True)
        bias = aten.cat([aten.new_zeros(w, [w.shape[0]]) if b is None else b for w, b in rows])
    product = rw.linear(x, aten.cat(weights), bias)
    return aten.split_with_sizes(product, [w.shape[0] for w in weights], -1)


class MergeThree(Rule):
    """linear(x, u, a), linear(x, v, b), linear(x, w, c)  ->  split(linear(x, cat, cat))"""

    exactness = REFOLD
    priority = 1

    def pattern(
        self,
        x: Tensor(rank=(2, 3, 4)),
        u: Const,
        v: Const,
        w: Const,
        a: Maybe(Vector),
        b: Maybe(Vector),
        c: Maybe(Vector),
    ):
        return rw.linear(x, u, a), rw.linear(x, v, b), rw.linear(x, w, c)

    def where(self, u, v, w, a, b, c):
        return _fit((u, a), (v, b), (w, c))

    def replace(self, x, u, v, w, a, b, c):
        return _merged(x, [u, v, w], [a, b, c])


class MergeTwo(Rule):
    """linear(x, u, a), linear(x, v, b)  ->  split(linear(x, cat(u, v), cat(a, b)))"""

    exactness = REFOLD

    def pattern(
        self, x: Tensor(rank=(2, 3, 4)), u: Const, v: Const, a: Maybe(Vector), b: Maybe(Vector)
    ):
        return rw.linear(x, u, a), rw.linear(x, v, b)

    def where(self, u, v, a, b):
        return _fit((u, a), (v, b))

    def replace(self, x, u, v, a, b):
        return _merged(x, [u, v], [a, b])


RULES = (MergeThree, MergeTwo)
