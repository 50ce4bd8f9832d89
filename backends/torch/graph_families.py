"""Calls that one CUDA graph may serve: alike in shapes, and in where their arguments are.

An argument is read in place while it comes at few addresses, and copied into memory of the
program's own once it has come at more.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.backends.torch.cuda_capture import Recording
from rewright.backends.torch.graph_outputs import Outputs
from rewright.backends.torch.runtime import is_writable

_data_ptr: Final = torch._C.TensorBase.data_ptr

_HOMES: Final = 4
"""An argument that is written to (a cache of keys and values) may have so many addresses, each with
recordings of its own, before it is copied in and out; one that is only read has one."""

_WARM_KEYS: Final = 1024
"""So many sets of addresses of one set of shapes are known to have run."""


@attrs.frozen
class Role:
    """What an argument of a program's ``forward`` is.

    Attributes:
        is_tensor: whether it is a tensor; else it is a number.
        is_constant: whether it is a parameter or buffer of the model's.
        is_written: whether the program writes to it.
    """

    is_tensor: bool = True
    is_constant: bool = False
    is_written: bool = False

    @property
    def homes(self) -> int | None:
        """At how many addresses it is read in place; None: at any number."""
        if self.is_constant:
            return None
        return _HOMES if self.is_written else 1


@attrs.define(eq=False, weakref_slot=True)
class Captured:
    """A graph.

    Attributes:
        recording: what is replayed.
        outputs: how results are made of the memory that it writes to.
        owner: the calls that it serves.
        key: its key among these.
        used: when it was replayed last, in calls of the program.
    """

    recording: Recording
    outputs: Outputs
    owner: weakref.ref[Family]
    key: Any
    used: int = 0

    def drop(self) -> None:
        """Forgets the graph and gives back its memory."""
        if (family := self.owner()) is not None:
            family.graphs.pop(self.key, None)
        self.recording.reset()


@attrs.frozen(eq=False)
class Slot:
    """The memory that an argument which moves is copied to.

    Attributes:
        at: the argument's number.
        buffer: what the program is given.
        target: the part of it that is written: expanded dims once.
    """

    at: int
    buffer: Tensor
    target: Tensor

    @classmethod
    def like(cls, at: int, argument: Tensor) -> Slot:
        """Memory for argument number `at`, in its layout as far as one can write to that."""
        shape = [
            1 if step == 0 else size
            for size, step in zip(argument.shape, argument.stride(), strict=True)
        ]
        strides = argument.stride() if is_writable(shape, argument.stride()) else None
        with torch.inference_mode(False):
            if strides is None:
                made = torch.empty(argument.shape, dtype=argument.dtype, device=argument.device)
                return cls(at, made, made)
            target = torch.empty_strided(
                shape, strides, dtype=argument.dtype, device=argument.device
            )
            return cls(at, target.as_strided(argument.shape, strides), target)

    def source(self, argument: Tensor) -> Tensor:
        """What is copied of the argument."""
        if self.target.shape == argument.shape:
            return argument
        return argument.as_strided(self.target.shape, argument.stride(), argument.storage_offset())


@attrs.define(eq=False, weakref_slot=True)
class Family:
    """The calls of one set of shapes: which arguments move, and their graphs.

    Attributes:
        roles: of the arguments.
        moving: the numbers of those that are copied.
        graphs: by the addresses of the others.
    """

    roles: tuple[Role, ...]
    moving: tuple[int, ...] = ()
    graphs: dict[Any, Captured] = attrs.field(factory=dict)
    _still: tuple[int, ...] = attrs.field(init=False)
    _homes: dict[int, set[int]] = attrs.field(factory=dict, init=False)
    _slots: tuple[Slot, ...] = attrs.field(default=(), init=False)
    _warmed: OrderedDict[Any, set[int]] = attrs.field(factory=OrderedDict, init=False)

    @_still.default
    def _all_tensors(self) -> tuple[int, ...]:
        return tuple(at for at, role in enumerate(self.roles) if role.is_tensor)

    def key(self, args: Sequence[Any]) -> Any:
        """The addresses of the arguments that are read where they are."""
        return tuple([_data_ptr(args[at]) for at in self._still])

    def note(self, args: Sequence[Any]) -> None:
        """Learns from a call which arguments move; graphs that read these in place are dropped."""
        moved = []
        for at in self._still:
            limit = self.roles[at].homes
            if limit is not None:
                homes = self._homes.setdefault(at, set())
                homes.add(_data_ptr(args[at]))
                if len(homes) > limit:
                    moved.append(at)
        if moved:
            self.moving = tuple(sorted((*self.moving, *moved)))
            self._still = tuple(at for at in self._still if at not in moved)
            self._slots = ()
            self._warmed.clear()
            for made in [*self.graphs.values()]:
                made.drop()

    # -- warm-ups

    def is_warm(self, key: Any) -> bool:
        """Whether this thread has run a call with this key: handles of libraries are a thread's."""
        return threading.get_ident() in self._warmed.get(key, ())

    def warm(self, key: Any) -> None:
        """Notes that this thread has."""
        self._warmed.setdefault(key, set()).add(threading.get_ident())
        while len(self._warmed) > _WARM_KEYS:
            self._warmed.popitem(last=False)

    # -- memory of its own

    def allocate(self, args: Sequence[Any]) -> None:
        """Takes memory for the arguments that move."""
        if len(self._slots) != len(self.moving):
            self._slots = tuple(Slot.like(at, args[at]) for at in self.moving)

    def static(self, args: Sequence[Any]) -> list[Any]:
        """The arguments that the program is given: those that move replaced."""
        given = [*args]
        for slot in self._slots:
            given[slot.at] = slot.buffer
        return given

    def fill(self, args: Sequence[Any]) -> list[Any]:
        """Copies the arguments that move into their places; returns :meth:`static`."""
        if len(self._slots) == 1:
            (slot,) = self._slots
            slot.target.copy_(slot.source(args[slot.at]), non_blocking=True)
        else:
            targets = [slot.target for slot in self._slots]
            torch._foreach_copy_(targets, [slot.source(args[slot.at]) for slot in self._slots])
        return self.static(args)

    def write_back(self, args: Sequence[Any]) -> None:
        """Copies what was written to the places of arguments to the arguments."""
        for slot in self._slots:
            if self.roles[slot.at].is_written:
                args[slot.at].copy_(slot.buffer)
