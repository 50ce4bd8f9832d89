"""Programs that were compiled with their weights notice when one is edited.

What is folded, built into an engine or moved to another device holds the numbers of the moment when
the program was bound; the rest of its weights are the model's own tensors, and an edit in place
shows in the next call. Nobody wants half of an edit, so the first call after one says so.

Torch counts the writes to a tensor. Reading these counters costs some 25 ns for each weight that is
held, and nothing any more once there has been a warning. Writes through ``p.data`` aren't counted,
and none to an inference tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from torch import Tensor

from rewright.caller import warn
from rewright.errors import StaleWeightsWarning

_version: Final = attrgetter("_version")


class Watch:
    """Knows how often each tensor of `held` has been written to when it is made.

    Args:
        held: the sources that a program is about to make something of, by name.
    """

    def __init__(self, held: Mapping[str, Tensor | None]) -> None:
        self._held = {n: t for n, t in held.items() if t is not None and not t.is_inference()}
        self._versions = [*map(_version, self._held.values())]

    def over(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward`, which warns once when one of the tensors has been written to since."""
        versions, sources = self._versions, tuple(self._held.values())
        if not sources:
            return forward
        has_warned = False

        def call(*args: Any) -> Any:
            nonlocal has_warned
            if not has_warned and versions != [*map(_version, sources)]:
                has_warned = True
                self._warn()
            return forward(*args)

        return call

    def _warn(self) -> None:
        now = zip(self._held.items(), self._versions, strict=True)
        names = [name for (name, tensor), version in now if tensor._version != version]
        more = f" and {len(names) - 1} more were" if len(names) > 1 else " was"
        warn(
            f"the weight {names[0]}{more} edited in place, but the program holds what it made of "
            "the weights before: call refit() on it, after each round of edits",
            StaleWeightsWarning,
        )
