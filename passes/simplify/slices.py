"""Parts of tensors: parts of parts, parts of what was put together, and back.

slice(x, all of it)                        ->  x
slice(slice(x, a, b), c, d)                ->  slice(x, a+c, a+d)
slice(cat([..., x, ...]), within x)        ->  slice(x, ...)
cat([slice(x, a, b), slice(x, b, c)])      ->  slice(x, a, c)
cat(split(x))                              ->  x
cat([x])                                   ->  x
cat([cat([x, ...]), y, ...])               ->  cat([x, ..., y, ...])
split(x) in one part                       ->  x
select(unsqueeze(x, d), d, 0)              ->  x
select(stack([..., x, ...], d), d, i)      ->  x
select(slice(x, d, a, b), d, i)            ->  select(x, d, a+i)

Places count from the front and are clipped, as torch does; unknown ones refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rewright.passes.facts import Size
from rewright.passes.ops import aten
from rewright.passes.patterns import OpVar
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import Rule
from rewright.passes.simplify.dims import from_front, span
from rewright.passes.variables import Attr, Many

# --------------------------------------------------------------------------- slices


class DropSlice(Rule):
    """slice(x, all of it)  ->  x"""

    def pattern(self, x, dim: Attr, start: Attr, end: Attr):
        return aten.slice.Tensor(x, dim, start, end)

    def where(self, x, dim, start, end):
        size = x.shape[dim]
        if isinstance(size, Size) and start:
            return NoMatch("{0} is not where {1} begins", start, x)
        low, high = span(size, start, end)
        return low == 0 and high == size

    def replace(self, x):
        return x


class MergeSlices(Rule):
    """slice(slice(x, a, b), c, d)  ->  slice(x, a+c, a+d)"""

    shared = True

    def pattern(self, x, d: Attr, a: Attr, b: Attr, e: Attr, start: Attr, end: Attr):
        return aten.slice.Tensor(aten.slice.Tensor(x, d, a, b), e, start, end)

    def where(self, x, d, e):
        return from_front(d, x.rank) == from_front(e, x.rank)

    def replace(self, x, d, a, b, start, end):
        low, high = span(x.shape[d], a, b)
        first, last = span(high - low, start, end)
        return aten.slice.Tensor(x, d, low + first, low + last)


class SliceOfCat(Rule):
    """slice(cat([..., x, ...]), within x)  ->  slice(x, ...)"""

    shared = True

    def pattern(self, parts: Many(min=1), d: Attr, e: Attr, start: Attr, end: Attr):
        return aten.slice.Tensor(aten.cat(parts, d), e, start, end)

    def where(self, parts, d, e):
        if not _are_alike(parts):
            return NoMatch("{0} are of several dtypes or ranks", parts)
        return from_front(d, parts[0].rank) == from_front(e, parts[0].rank)

    def replace(self, parts, d, start, end):
        sizes = [part.shape[d] for part in parts]
        low, high = span(sum(sizes), start, end)
        offset: Any = 0
        for part, size in zip(parts, sizes, strict=True):
            if low >= offset and high <= offset + size:
                return aten.slice.Tensor(part, d, low - offset, high - offset)
            offset = offset + size
        return NoMatch("it takes parts of several of {0}", parts)


def _are_alike(parts: Sequence[Any]) -> bool:
    """Whether `parts` have one dtype and rank: a cat of others casts them, or skips empty ones."""
    return len({(part.dtype, part.rank) for part in parts}) == 1


# --------------------------------------------------------------------------- cat


class CatOfSlices(Rule):
    """cat([slice(x, a, b), slice(x, b, c)])  ->  slice(x, a, c)"""

    shared = True

    def pattern(self, x, d: Attr, a: Attr, b: Attr, e: Attr, start: Attr, end: Attr, dim: Attr):
        parts = [aten.slice.Tensor(x, d, a, b), aten.slice.Tensor(x, e, start, end)]
        return aten.cat(parts, dim)

    def where(self, x, d, a, b, e, start, end, dim):
        if len({from_front(at, x.rank) for at in (d, e, dim)}) > 1:
            return NoMatch("{0} is cut along {1} and {2}, and put together along {3}", x, d, e, dim)
        size = x.shape[d]
        return span(size, a, b)[1] == span(size, start, end)[0]

    def replace(self, x, d, a, b, start, end):
        size = x.shape[d]
        return aten.slice.Tensor(x, d, span(size, a, b)[0], span(size, start, end)[1])

    def example(self, draw):
        x, cut, dim = draw.tensor(*draw.sizes(2)), draw.choice((1, 2, 3)), draw.choice((0, 1))
        return {"x": x, "d": dim, "e": dim, "dim": dim, "b": cut, "start": draw.choice((cut, 2))}


class CatOfSplit(Rule):
    """cat(split(x))  ->  x      of 2, 3 or 4 parts"""

    shared = True

    def pattern_2(self, x, dim: Attr, f: OpVar(aten.split.Tensor, aten.split_with_sizes)):
        return aten.cat(list(f(x).results(2)), dim)

    def pattern_3(self, x, dim: Attr, f: OpVar(aten.split.Tensor, aten.split_with_sizes)):
        return aten.cat(list(f(x).results(3)), dim)

    def pattern_4(self, x, dim: Attr, f: OpVar(aten.split.Tensor, aten.split_with_sizes)):
        return aten.cat(list(f(x).results(4)), dim)

    def where(self, x, dim, f):
        return from_front(dim, x.rank) == from_front(f.attributes.get("dim", 0), x.rank)

    def replace(self, x):
        return x


class CatOfOne(Rule):
    """cat([x])  ->  x"""

    def pattern(self, x, _dim: Attr):
        return aten.cat([x], _dim)

    def replace(self, x):
        return x


class StackOfOne(Rule):
    """stack([x], d)  ->  unsqueeze(x, d)"""

    def pattern(self, x, dim: Attr):
        return aten.stack([x], dim)

    def replace(self, x, dim):
        return aten.unsqueeze(x, dim)


class _FlattenCat(Rule):
    """Also where the inner one has other users: nothing is computed twice, and less is copied."""

    shared = True

    def where(self, inner, others, d, e):
        if not _are_alike((*inner, *others)):
            return NoMatch("{0} are of several dtypes or ranks", (*inner, *others))
        return from_front(d, inner[0].rank) == from_front(e, inner[0].rank)


class FlattenFirstCat(_FlattenCat):
    """cat([cat([x, ...]), y, ...])  ->  cat([x, ..., y, ...])"""

    def pattern(self, inner: Many(min=1), others: Many, d: Attr, e: Attr):
        return aten.cat([aten.cat(inner, d), others], e)

    def replace(self, inner, others, d):
        return aten.cat([*inner, *others], d)


class FlattenLastCat(_FlattenCat):
    """cat([x, ..., cat([y, ...])])  ->  cat([x, ..., y, ...])"""

    def pattern(self, inner: Many(min=1), others: Many, d: Attr, e: Attr):
        return aten.cat([others, aten.cat(inner, d)], e)

    def replace(self, inner, others, d):
        return aten.cat([*others, *inner], d)


# --------------------------------------------------------------------------- split, select


class SplitInOne(Rule):
    """split(x) in one part  ->  x"""

    def pattern(self, x, f: OpVar(aten.split.Tensor, aten.split_with_sizes)):
        (part,) = f(x).results(1)
        return part

    def replace(self, x, f):
        return x


class SelectOfUnsqueeze(Rule):
    """select(unsqueeze(x, d), d, 0)  ->  x"""

    shared = True

    def pattern(self, x, d: Attr, e: Attr, _index: Attr):
        return aten.select.int(aten.unsqueeze(x, d), e, _index)

    def where(self, x, d, e):
        return from_front(d, x.rank + 1) == from_front(e, x.rank + 1)

    def replace(self, x):
        return x


class SelectOfStack(Rule):
    """select(stack([..., x, ...], d), d, i)  ->  x"""

    shared = True

    def pattern(self, parts: Many(min=1), d: Attr, e: Attr, index: Attr(int)):
        return aten.select.int(aten.stack(parts, d), e, index)

    def where(self, parts, d, e):
        if not _are_alike(parts):
            return NoMatch("{0} are of several dtypes", parts)
        rank = parts[0].rank + 1
        return from_front(d, rank) == from_front(e, rank)

    def replace(self, parts, index):
        return parts[index]


class SelectOfSlice(Rule):
    """select(slice(x, d, a, b), d, i)  ->  select(x, d, a+i)"""

    shared = True

    def pattern(self, x, d: Attr, start: Attr, end: Attr, e: Attr, index: Attr):
        return aten.select.int(aten.slice.Tensor(x, d, start, end), e, index)

    def where(self, x, d, e):
        return from_front(d, x.rank) == from_front(e, x.rank)

    def replace(self, x, d, start, end, index):
        low, high = span(x.shape[d], start, end)
        return aten.select.int(x, d, low + index if index >= 0 else high + index)


RULES: Final = (
    DropSlice,
    MergeSlices,
    SliceOfCat,
    CatOfSlices,
    CatOfSplit,
    CatOfOne,
    StackOfOne,
    FlattenFirstCat,
    FlattenLastCat,
    SplitInOne,
    SelectOfUnsqueeze,
    SelectOfStack,
    SelectOfSlice,
)
