"""CUDA graphs without CUDA: a recorder that does on the CPU what a recording does on a device.

Recording computes nothing, and leaves garbage in the memory that it returns; a replay reads the
arguments that were recorded and writes to that very memory. So whatever keeps results too long,
copies too little or runs a write-back twice gives wrong numbers here, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from rewright.backends.torch.cuda_graphs import Graphs, roles_of
from rewright.ir.graph import Constant, Graph
from rewright.settings import Settings


def _storages(values: Sequence[Any]) -> dict[int, torch.UntypedStorage]:
    tensors = [value for value in values if isinstance(value, Tensor) and value.numel()]
    return {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}


def _flat(returned: Any) -> Sequence[Any]:
    return returned if isinstance(returned, tuple) else (returned,)


@attrs.define(eq=False)
class EmulatedRecording:
    """Runs again, into the memory of the results that were recorded."""

    run: Callable[..., Any] | None
    args: Sequence[Any]
    returned: Any
    outside: set[int]

    def replay(self) -> None:
        assert self.run is not None, "a graph that was reset is replayed"
        again = self.run(*self.args)
        for old, new in zip(_flat(self.returned), _flat(again), strict=True):
            if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in self.outside:
                old.untyped_storage().copy_(new.untyped_storage())

    def reset(self) -> None:
        self.run = None


@attrs.define(eq=False)
class Emulated:
    """A recorder on the CPU.

    Attributes:
        constants: what programs may write to besides their arguments.
        failures: what the next recordings raise.
        busy: whether the caller is recording.
        open: whether a begin waits for its end.
    """

    constants: Sequence[Tensor] = ()
    failures: list[Exception] = attrs.field(factory=list)
    busy: bool = False
    open: bool = False
    firsts: list[bool] = attrs.field(factory=list)
    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))

    def is_busy(self) -> bool:
        return self.busy

    def begin(self) -> None:
        assert not self.open, "two calls use the memory of the graphs at once"
        self.open = True

    def end(self) -> None:
        self.open = False

    def record(self, run: Any, args: Sequence[Any], is_first: bool) -> tuple[Any, Any]:
        assert not self.open
        self.firsts.append(is_first)
        if self.failures:
            raise self.failures.pop()
        outside = _storages([*args, *self.constants])
        before = {address: storage.clone() for address, storage in outside.items()}
        returned = run(*args)
        for address, storage in _storages(_flat(returned)).items():
            if address not in outside:
                storage.fill_(0x7F)
        for address, storage in outside.items():
            storage.copy_(before[address])
        return EmulatedRecording(run, args, returned, {*outside}), returned


def emulate(recorder: Emulated) -> Callable[..., Graphs | None]:
    """What stands in for :meth:`Graphs.of`, so that programs on the CPU have graphs."""

    def of(graph: Graph, settings: Settings, late: Sequence[Constant]) -> Graphs:
        data = [c.data for c in graph.constants.values() if c.data is not None]
        recorder.constants = [*recorder.constants, *data]
        written = frozenset(t.name for t in graph.targets if isinstance(t, Constant))
        return Graphs(roles_of(graph, late), written, recorder, settings.cuda_graphs_kept)

    return of
