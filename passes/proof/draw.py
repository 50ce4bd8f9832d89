"""Random choices for examples: sizes that often coincide, shapes that fit a template."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs
import torch

from rewright.ir.sizes import Dim
from rewright.ir.types import TensorType
from rewright.passes.proof.templates import SMALL

T = TypeVar("T")


class Reject(Exception):
    """This example does not work out; another may.

    Args:
        reason: why.
        illegal: whether an op refused its operands, and not we.
    """

    def __init__(self, reason: str, *, illegal: bool = False) -> None:
        super().__init__(reason)
        self.illegal = illegal


@attrs.frozen
class Computed:
    """A tensor that an example computes, for `example`: where a rule asks what a value is made of.

    Attributes:
        type: its type.
        make: called with the builder of the example; returns the value.
    """

    type: TensorType
    make: Callable[[Any], Any]


@attrs.frozen
class Draw:
    """What one example is drawn from.

    Attributes:
        random: the source of chance, seeded.
        dtype: what tensors are of, unless something asks for another.
        pool: the sizes that dimensions are taken from: few, so that they coincide.
        mixed: whether a tensor is now and then of another dtype.
    """

    random: random.Random
    dtype: torch.dtype
    pool: tuple[Dim, ...]
    mixed: bool = True

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.random.randrange(len(items))]

    def chance(self, probability: float) -> bool:
        """True as often as `probability` says."""
        return self.random.random() < probability

    def size(self) -> Dim:
        """A size from the pool."""
        return self.choice(self.pool)

    def sizes(self, count: int) -> tuple[Dim, ...]:
        """Some sizes from the pool."""
        return tuple(self.size() for _ in range(count))

    def tensor(self, *shape: Dim, dtype: torch.dtype | None = None) -> TensorType:
        """The type of a tensor, for `example`."""
        return TensorType(dtype or self.dtype, shape)


def draw_for(
    seed: str, dtype: torch.dtype, *, symbols: Sequence[Any] = (), mixed: bool = True
) -> Draw:
    """A Draw with a pool of its own. `symbols` are among the sizes."""
    chance = random.Random(seed)
    numbers = chance.sample(_SIZES, chance.choice((1, 2, 2, 3)))
    return Draw(chance, dtype, (*symbols, *numbers), mixed)


_SIZES: Final[tuple[int, ...]] = (1, 1, 2, 3, 4, 5, 6, 8)


# --------------------------------------------------------------------------- templates


class Fit:
    """Shapes for the operands of one op, fitted to those that are there already."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.letters: dict[str, Dim] = {}
        self.stars: dict[str, tuple[Dim, ...]] = {}

    def take(self, spec: str, shape: Sequence[Dim]) -> None:
        """Learns letters from a shape that is given.

        Raises:
            Reject: the shape does not fit.
        """
        tokens = spec.split()
        star = next((i for i, token in enumerate(tokens) if token.startswith("*")), None)
        if star is not None:
            count = len(shape) - (len(tokens) - 1)
            if count < 0:
                raise Reject(f"{spec!r} does not fit {len(shape)} dimensions")
            run = tuple(shape[star : star + count])
            if self.stars.setdefault(tokens[star], run) != run:
                raise Reject(f"{tokens[star]} is two things")
            tokens[star : star + 1] = []
            shape = (*shape[:star], *shape[star + count :])
        if len(tokens) != len(shape):
            raise Reject(f"{spec!r} does not fit {len(shape)} dimensions")
        for token, dim in zip(tokens, shape, strict=True):
            self.bind(token, dim)

    def bind(self, token: str, dim: Dim) -> None:
        """Learns the letters of `token`, which is the size `dim`."""
        known, unknown = self._product(token)
        for letter in unknown[:-1]:
            self.letters[letter] = self.draw.choice((1, 2))
            known *= self.letters[letter]
        if not unknown:
            if known != dim:
                raise Reject(f"{token} is {known} and {dim}")
        elif known == 1:
            self.letters[unknown[-1]] = dim
        elif isinstance(dim, int) and isinstance(known, int) and dim % known == 0:
            self.letters[unknown[-1]] = dim // known
        else:
            raise Reject(f"{dim} is no multiple of {known}")

    def _product(self, token: str) -> tuple[Any, list[str]]:
        known: Any = 1
        unknown = []
        for factor in token.split("*"):
            if factor.isdigit():
                known *= int(factor)
            elif factor in self.letters:
                known *= self.letters[factor]
            else:
                unknown.append(factor)
        return known, unknown

    def size(self, token: str) -> Dim:
        """The size that `token` is; drawn where it is not known."""
        for letter in self._product(token)[1]:
            self.letters[letter] = self._letter(letter)
        return self._product(token)[0]

    def _letter(self, letter: str) -> Dim:
        if letter in SMALL:
            return self.draw.choice((1, 2, 3))
        size = self.draw.size()
        return self.draw.choice((2, 3)) if letter.isupper() and size == 1 else size

    def shape(self, spec: str, ranks: Sequence[int]) -> tuple[Dim, ...]:
        """A shape for `spec`, of one of `ranks` if it is free to choose."""
        tokens = spec.split()
        made: list[Dim] = []
        for token in tokens:
            if not token.startswith("*"):
                made.append(self.size(token))
                continue
            if token not in self.stars:
                free = [rank - (len(tokens) - 1) for rank in ranks] or [0, 1, 1, 2]
                self.stars[token] = self.draw.sizes(max(self.draw.choice(free), 0))
            made += self.stars[token]
        return tuple(made)


def broadcasting(
    draw: Draw, known: Sequence[tuple[Dim, ...]], ranks: Sequence[int]
) -> tuple[Dim, ...]:
    """A shape that likely broadcasts with those in `known`, of one of `ranks`."""
    if not known:
        return draw.sizes(draw.choice(ranks or (1, 2, 2, 3, 3, 4)))
    base = max(known, key=len)
    if ranks:
        rank = draw.choice(ranks)
    elif draw.chance(0.5):
        rank = len(base)
    else:
        rank = draw.choice(range(len(base) + 2))
    longer = draw.sizes(max(rank - len(base), 0))
    shape = (*longer, *base[len(base) - min(rank, len(base)) :])
    if draw.chance(0.7):
        return shape
    return tuple(1 if draw.chance(0.4) else dim for dim in shape)
