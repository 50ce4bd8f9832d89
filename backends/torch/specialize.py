"""Programs whose parameters arrive with each call: constants prepared once for each set of them.

One graph from Dynamo serves many module instances, so its parameters are arguments. Recipes are
computed when a set of parameters is first seen and kept for as long as it stays what it was:

* the same objects, by identity (a weak reference drops what belongs to one that dies);
* not written to since, by torch's version counters;
* with the same memory, by data pointer (``p.data = other`` changes nothing else). The memory is
  held on to, so that no other tensor can get its address.

A write through ``p.data`` (``p.data.mul_(2)``) moves none of these: torch gives ``p.data`` a
counter of its own. Write to the parameter under ``torch.no_grad()``, as optimizers and
``load_state_dict`` do, or call ``torch.compiler.reset()``.

Where a program can't be made for a set of parameters (an engine can't be built, say), nothing of
the call has run yet. The error has an attribute, ``ran_nothing``, for who can run it otherwise.

Inference tensors have no version counter. For them constants are prepared anew in every call,
after one warning: slow, never stale.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.caller import warn
from rewright.statistics import record

_version: Final = attrgetter("_version")
_data_ptr: Final = torch._C.TensorBase.data_ptr

LIMIT: Final = 512
"""So many sets of parameters are kept; the oldest goes first."""


@attrs.frozen(eq=False)
class _Entry:
    """A program finalized for one set of parameters, and what that set was like."""

    forward: Callable[..., Any]
    versions: list[int]
    pointers: list[int]
    memory: tuple[Tensor, ...]
    watched: tuple[weakref.ref[Tensor], ...]


class Specializations:
    """The programs of one graph, one for each set of parameters.

    Args:
        specialize: makes the program for a set of parameters.
        limit: how many are kept.
    """

    def __init__(
        self, specialize: Callable[[Sequence[Tensor]], Callable[..., Any]], limit: int = LIMIT
    ) -> None:
        self._specialize = specialize
        self._limit = limit
        self._entries: dict[tuple[int, ...], _Entry] = {}
        self._lock = threading.Lock()
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._entries)

    def forward(self, sources: Sequence[Tensor], *args: Any) -> Any:
        """Runs the program for `sources` on `args`."""
        return self.get(sources)(*args)

    def get(self, sources: Sequence[Tensor]) -> Callable[..., Any]:
        """The program for `sources` as they are now."""
        key = tuple(map(id, sources))
        entry = self._entries.get(key)
        if (
            entry is not None
            and entry.versions == [*map(_version, sources)]
            and entry.pointers == [*map(_data_ptr, sources)]
        ):
            return entry.forward
        if any(map(Tensor.is_inference, sources)):
            self._warn()
            return self._specialized(sources)
        return self._make(key, sources)

    def _make(self, key: tuple[int, ...], sources: Sequence[Tensor]) -> Callable[..., Any]:
        # What the sources are like is noted first: a write meanwhile only makes them seem older.
        versions, pointers = [*map(_version, sources)], [*map(_data_ptr, sources)]
        memory = tuple(source.detach() for source in sources)
        forward = self._specialized(sources)
        record(specializations=1)
        drop = _Drop(weakref.ref(self), key)
        watched = tuple(weakref.ref(source, drop) for source in sources)
        with self._lock:
            self._entries[key] = _Entry(forward, versions, pointers, memory, watched)
            while len(self._entries) > self._limit:
                self._entries.pop(next(iter(self._entries)), None)
        return forward

    def _specialized(self, sources: Sequence[Tensor]) -> Callable[..., Any]:
        try:
            return self._specialize(sources)
        except Exception as error:
            error.ran_nothing = True  # type: ignore[attr-defined]
            raise

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(
                "parameters are inference tensors, whose changes can't be seen: constants are "
                "prepared anew in every call. Create the model outside of torch.inference_mode()",
            )

    def drop(self, key: tuple[int, ...]) -> None:
        """Forgets a set of parameters. Takes no lock: a finalizer may call it anywhere."""
        self._entries.pop(key, None)


@attrs.frozen
class _Drop:
    """Drops an entry when one of its parameters dies; keeps nothing alive."""

    owner: weakref.ref[Specializations]
    key: tuple[int, ...]

    def __call__(self, _: Any) -> None:
        owner = self.owner()
        if owner is not None:
            owner.drop(self.key)
