"""Chains of reshapes, transpositions, expansions: at most one of each, written in one way.

reshape(x, shape of x)                   ->  x
reshape(f(x), shape)                     ->  reshape(x, shape)    f = reshape, (un)squeeze
squeeze(unsqueeze(x, d), d)              ->  x
permute, transpose, t of one another     ->  one permute; of two dims: transpose.int; or x
expand(x, shape of x)                    ->  x
expand(expand(x, a), b)                  ->  expand(x, b)
f(expand(x, s), y)                       ->  f(x, y)              where y makes it s anyway
repeat(x, times)                         ->  expand(x, s)         along sizes of 1
pad(x, [0, ...])                         ->  x
flip(flip(x, dims), dims)                ->  x

All hold for symbolic sizes, as far as these are known to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from rewright.passes.ops import aten
from rewright.passes.patterns import OpVar, either
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import Rule
from rewright.passes.simplify.dims import (
    from_front,
    is_canonical,
    is_known_equal,
    order_of,
    reordered,
    reshaped,
    same_sizes,
)
from rewright.passes.variables import Attr, Rest


class DropReshape(Rule):
    """reshape(x, shape of x)  ->  x"""

    def pattern(self, x, shape: Attr):
        return aten.reshape(x, shape)

    def where(self, x, shape):
        return same_sizes(x.shape, shape)

    def replace(self, x):
        return x


class MergeReshapes(Rule):
    """reshape(f(x), shape)  ->  reshape(x, shape)      for f = reshape, unsqueeze, squeeze"""

    shared = True

    def pattern(
        self,
        x,
        shape: Attr,
        _f: OpVar(aten.reshape, aten.unsqueeze, aten.squeeze.dim, aten.squeeze.dims),
    ):
        return aten.reshape(_f(x), shape)

    def replace(self, x, shape):
        return reshaped(x, shape)


class DropSqueeze(Rule):
    """squeeze(unsqueeze(x, d), d)  ->  x"""

    shared = True

    def pattern(self, x, d: Attr(int), e: Attr):
        y = aten.unsqueeze(x, d)
        return either(aten.squeeze.dim(y, e), aten.squeeze.dims(y, e))

    def where(self, x, d, e):
        rank = x.rank + 1
        if isinstance(e, tuple):
            if len(e) != 1:
                return NoMatch("{0} are several dimensions", e)
            (e,) = e
        return from_front(d, rank) == from_front(e, rank)

    def replace(self, x):
        return x


class SpellTransposition(Rule):
    """permute(x, dims), t(x)  ->  transpose.int(x, a, b), a < b, where two dims move; x for none"""

    def pattern(self, x, f: OpVar(aten.permute, aten.transpose.int, aten.t)):
        return f(x)

    def where(self, x, f):
        return not is_canonical(f, x.rank)

    def replace(self, x, f):
        return reordered(x, order_of(f, x.rank))


class MergeTranspositions(Rule):
    """permute(permute(x, a), b)  ->  permute(x, a[b])"""

    shared = True

    def pattern(
        self,
        x,
        f: OpVar(aten.permute, aten.transpose.int, aten.t),
        g: OpVar(aten.permute, aten.transpose.int, aten.t),
    ):
        return g(f(x))

    def replace(self, x, f, g):
        first = order_of(f, x.rank)
        return reordered(x, [first[at] for at in order_of(g, x.rank)])


class DropExpand(Rule):
    """expand(x, shape of x)  ->  x"""

    def pattern(self, x, size: Attr):
        return aten.expand(x, size)

    def where(self, x, size):
        return same_sizes(x.shape, size)

    def replace(self, x):
        return x


class MergeExpands(Rule):
    """expand(expand(x, a), b)  ->  expand(x, b)"""

    shared = True

    def pattern(self, x, a: Attr, b: Attr):
        return aten.expand(aten.expand(x, a), b)

    def replace(self, x, a, b):
        return aten.expand(x, _stated(b, _stated(a, x.shape)))


def _stated(size: Sequence[Any], shape: Sequence[Any]) -> tuple[Any, ...]:
    """`size` with the sizes of `shape` in the place of each -1."""
    known = (1,) * (len(size) - len(shape)) + tuple(shape)
    unstated = [isinstance(new, int) and new == -1 for new in size]
    return tuple(old if u else new for u, new, old in zip(unstated, size, known, strict=True))


_BROADCASTING: Final = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum),
    *(aten.minimum, aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.le.Tensor),
    *(aten.gt.Tensor, aten.ge.Tensor, aten.logical_and, aten.logical_or, aten.masked_fill.Scalar),
    *(aten.bitwise_and.Tensor, aten.bitwise_or.Tensor),
)


class _DropExpandOfOperand(Rule):
    shared = True

    def where(self, x, y, s):
        if x.dtype != y.dtype and 0 in (x.rank, y.rank):
            return NoMatch("{0} is a scalar, which counts for less in the result's dtype", x)
        size = _stated(s, x.shape)
        if not _broadcasts_anyway(x.shape, y.shape, size):
            return NoMatch("{0} does not make it {1}", y, size)
        return True


class DropExpandOnTheLeft(_DropExpandOfOperand):
    """f(expand(x, s), y)  ->  f(x, y)      where x and y broadcast to what s and y did"""

    def pattern(self, x, y, s: Attr, f: OpVar(*_BROADCASTING)):
        return f(aten.expand(x, s), y)

    def replace(self, x, y, f):
        return f(x, y)


class DropExpandOnTheRight(_DropExpandOfOperand):
    """f(y, expand(x, s))  ->  f(y, x)      where x and y broadcast to what s and y did"""

    def pattern(self, x, y, s: Attr, f: OpVar(*_BROADCASTING)):
        return f(y, aten.expand(x, s))

    def replace(self, x, y, f):
        return f(y, x)


def _broadcasts_anyway(x: Sequence[Any], y: Sequence[Any], expanded: Sequence[Any]) -> bool:
    """Whether each dimension that was expanded is brought to that size by `y`."""
    dims = zip_longest(*(reversed(shape) for shape in (x, y, expanded)))
    return all(
        new is None or is_known_equal(new, a) or is_known_equal(new, b) for a, b, new in dims
    )


class RepeatByExpanding(Rule):
    """repeat(x, times)  ->  expand(x, s)      where only sizes of 1 are repeated"""

    def pattern(self, x, repeats: Attr):
        return aten.repeat(x, repeats)

    def where(self, x, repeats):
        return all(is_known_equal(size, 1) or times == 1 for size, times in _repeated(x, repeats))

    def replace(self, x, repeats):
        return aten.expand(x, tuple(size * times for size, times in _repeated(x, repeats)))


def _repeated(x: Any, repeats: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """For each dimension of the result, the size that x has there (1 if none) and how often."""
    shape = (1,) * (len(repeats) - x.rank) + x.shape
    return list(zip(shape, repeats, strict=True))


class DropPad(Rule):
    """pad(x, [0, ...])  ->  x"""

    def pattern(self, x, pad: Attr, _: Rest):
        return either(aten.pad(x, pad, **_), aten.constant_pad_nd(x, pad, **_))

    def where(self, pad):
        return all(width == 0 for width in pad)

    def replace(self, x):
        return x


class DropFlips(Rule):
    """flip(flip(x, dims), dims)  ->  x"""

    shared = True

    def pattern(self, x, dims: Attr):
        return aten.flip(aten.flip(x, dims), dims)

    def replace(self, x, dims):
        return x


RULES: Final = (
    DropReshape,
    MergeReshapes,
    DropSqueeze,
    SpellTransposition,
    MergeTranspositions,
    DropExpand,
    MergeExpands,
    DropExpandOnTheLeft,
    DropExpandOnTheRight,
    RepeatByExpanding,
    DropPad,
    DropFlips,
)
