"""In which order a network's tensors are computed, and when each is freed.

TensorRT keeps layers in the order they were added, which is not one to run them in: a recurrence's
second input is bound after the layers that use the recurrence. So evaluation is driven by demand:
from the tensors wanted, backwards to what makes them.

A `Step` makes some tensors out of others: one layer, or all the layers of a loop, or of a
conditional. A `Plan` is the steps that some tensors need, each after those it reads from. A `Scope`
holds the values: one for the network, and one inside it for each iteration of a loop and each
branch taken.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Protocol, TypeAlias

import attrs
import torch

from rewright.errors import EngineError

__all__ = ["Plan", "Producers", "Scope", "Step", "order"]

Tensor: TypeAlias = torch.Tensor


class Scope:
    """Values by tensor name; names that are not in it are looked up in the scope around it."""

    def __init__(self, values: dict[str, Tensor], around: "Scope | None" = None) -> None:
        self.values = values
        self.around = around

    def __contains__(self, name: object) -> bool:
        return name in self.values or (self.around is not None and name in self.around)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.values:
            return self.values[name]
        if self.around is None:
            raise EngineError(
                f"tensor {name!r} has no value here",
                hint="what a loop or a branch computes leaves it by its output layers only",
            )
        return self.around[name]


@attrs.frozen(eq=False)
class Step:
    """What makes the tensors ``makes``.

    Args:
        reads: tensors that are computed before.
        may_read: tensors that are computed when they turn out to be needed, unless they are there
            already; so those that are must be kept.
        run: from a scope that has what is read to the tensors, in the order of ``makes``.
        where: the layer, for messages.
    """

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    run: Callable[[Scope], Sequence[Tensor]]
    where: str
    may_read: frozenset[str] = frozenset()

    def uses(self) -> Iterable[str]:
        """Every tensor that must not be freed before this step has run."""
        yield from self.reads
        yield from self.may_read


class Producers(Protocol):
    """What `order` needs to know of a network."""

    def step(self, name: str) -> Step | None:
        """The step that makes a tensor; None for one that has its value from outside of all steps:
        a network input, or what a loop sets at each iteration.
        """


def order(producers: Producers, wanted: Iterable[str], known: Container[str]) -> list[Step]:
    """The steps that ``wanted`` needs, each after those that it reads from.

    Tensors in ``known`` are there already, with all that is before them.
    """
    out: list[Step] = []
    done: set[Step] = set()
    begun: set[Step] = set()
    roots = (producers.step(name) for name in reversed(list(wanted)) if name not in known)
    # (step, whether what it reads has been visited); a stack, since networks are deep
    stack = [(step, False) for step in roots if step is not None]
    while stack:
        step, visited = stack.pop()
        if step in done:
            continue
        if visited:
            done.add(step)
            out.append(step)
            continue
        if step in begun:
            raise EngineError("a tensor depends on itself, through no loop", where=step.where)
        begun.add(step)
        stack.append((step, True))
        before = (producers.step(name) for name in reversed(step.reads) if name not in known)
        stack += [(each, False) for each in before if each is not None and each not in done]
    return out


class Plan:
    """The steps that ``wanted`` needs, and after which of them each tensor is freed.

    Args:
        producers: the network.
        wanted: the tensors that `run` returns.
        known: tensors that the scope has before.
    """

    def __init__(self, producers: Producers, wanted: Sequence[str], known: Container[str]) -> None:
        self.wanted = tuple(wanted)
        self.steps = order(producers, wanted, known)
        made = {name for step in self.steps for name in step.makes}
        last: dict[str, int] = {}
        for place, step in enumerate(self.steps):
            # What nobody reads is freed at once.
            last.update((name, place) for name in step.makes)
            last.update((name, place) for name in step.uses() if name in made)
        self.freed_after: list[list[str]] = [[] for _ in self.steps]
        for name, place in last.items():
            if name not in self.wanted:
                self.freed_after[place].append(name)

    def run(self, scope: Scope) -> list[Tensor]:
        """The wanted tensors, computed from those in ``scope``."""
        for step, freed in zip(self.steps, self.freed_after, strict=True):
            scope.values.update(zip(step.makes, step.run(scope), strict=True))
            for name in freed:
                del scope.values[name]
        return [scope[name] for name in self.wanted]
