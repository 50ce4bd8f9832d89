"""A program's calls as CUDA graphs: one launch for all of it, whatever segments it has.

    calls with new shapes   run plainly, which is the warm-up; every later one may be a replay
    arguments               read where they are, as long as they come at the same address; one that
                            moves is copied into memory of the program's own from then on
    parameters, buffers     always read and written where they are: another set of them, or one that
                            was replaced, is recorded apart; edits in place are seen
    results                 are copied out of the memory that the next replay writes to, but for
                            views of the caller's own tensors
    write-backs             happen where the caller's tensors are; warm-ups are calls that were
                            asked for, and recording computes nothing, so none happens twice

A replay is keyed by the shapes and strides of tensors, the values of numbers and the addresses of
what is read in place. What a call would decide anew in Python stands in
:mod:`~rewright.backends.torch.capturable`; what torch's global switches say (TF32, deterministic
algorithms, attention backends) is taken from the call that was recorded.

Calls from several threads and streams take turns: a graph's memory is there once.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.backends.torch.capturable import obstacle
from rewright.backends.torch.cuda_capture import CudaRecorder, Recorder
from rewright.backends.torch.graph_families import Captured, Family, Role
from rewright.backends.torch.graph_outputs import Outputs
from rewright.caller import warn
from rewright.errors import FallbackWarning, SettingsError
from rewright.ir.graph import Constant, Graph
from rewright.ir.types import TensorType
from rewright.settings import Settings
from rewright.statistics import record, record_fallback

_data_ptr: Final = torch._C.TensorBase.data_ptr
_version: Final = attrgetter("_version")

_ATTEMPTS: Final = 2
"""A recording that fails is tried once more: a thread that waits for the device breaks one."""

_IDLE: Final = 8
"""Where all places are taken, the oldest graph makes room once it has not been used for so many
times as many calls as there are places. Otherwise more shapes in turn than places would record
in every call."""


@attrs.frozen(kw_only=True)
class GraphCounts:
    """What became of a program's calls.

    Attributes:
        captures: graphs recorded.
        replays: calls that were a replay.
        runs: calls that ran plainly, for want of a graph.
        kept: graphs that are there now.
        refusal: why the program is not captured (any more), or None.
    """

    captures: int = 0
    replays: int = 0
    runs: int = 0
    kept: int = 0
    refusal: str | None = None

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"none: {self.refusal}"
        return (
            f"{self.kept} kept; {self.captures} captures, {self.replays} replays, {self.runs} plain"
        )


# --------------------------------------------------------------------------- one program


class Graphs:
    """The CUDA graphs of one program, for all sets of constants that it is bound to.

    Args:
        roles: of the arguments of ``forward``, in order.
        written: the names of the bound constants that the program writes to.
        recorder: records.
        limit: how many graphs are kept.
        refusal: why nothing is captured, if that is known.
    """

    def __init__(
        self, roles: Sequence[Role], written: frozenset[str], recorder: Recorder, limit: int,
        refusal: str | None = None,
    ) -> None:  # fmt: skip
        self.roles = tuple(roles)
        self.written = written
        self.recorder = recorder
        self.limit = limit
        self.refusal = refusal
        self.lock = threading.Lock()
        self.clock = 0
        self.captures = 0
        self.replays = 0
        self._failures = 0
        self._kept: OrderedDict[int, weakref.ref[Captured]] = OrderedDict()

    @classmethod
    def of(cls, graph: Graph, settings: Settings, late: Sequence[Constant]) -> Graphs | None:
        """The graphs of a program, or None where settings ask for none, or 'auto' finds no GPU.

        Args:
            graph: the program.
            settings: how it is compiled.
            late: the constants that come with each call, after the inputs.

        Raises:
            SettingsError: they must be had, and the program is not on CUDA.
        """
        if settings.cuda_graphs == "off":
            return None
        if not graph.device.startswith("cuda"):
            if settings.cuda_graphs == "auto":
                return None
            raise SettingsError(
                f"cuda_graphs is 'on', but the program runs on {graph.device}",
                setting="cuda_graphs",
                hint="'auto' captures on CUDA and does nothing elsewhere",
            )
        found = obstacle(graph, late)
        if found is not None and settings.cuda_graphs == "on":
            _say(str(found))
        return cls(
            roles_of(graph, late),
            frozenset(t.name for t in graph.targets if isinstance(t, Constant)),
            CudaRecorder(graph.device),
            settings.cuda_graphs_kept,
            str(found) if found is not None else None,
        )

    def around(self, bind: Callable[..., Any]) -> Callable[..., Any]:
        """`bind`, whose functions replay graphs."""

        def bound(constants: Mapping[str, Any]) -> Captor:
            return Captor(self, bind(constants), constants)

        return bound

    @property
    def counts(self) -> GraphCounts:
        """What became of the calls so far."""
        with self.lock:
            kept = sum(1 for _ in self._live())
            runs = self.clock - self.replays
            return GraphCounts(
                captures=self.captures, replays=self.replays, runs=runs, kept=kept,
                refusal=self.refusal,
            )  # fmt: skip

    # -- what is kept; under the lock

    def _live(self) -> Iterator[Captured]:
        return (made for found in self._kept.values() if (made := found()) is not None)

    @property
    def is_empty(self) -> bool:
        """Whether no graph is there."""
        return next(self._live(), None) is None

    def make_room(self) -> bool:
        """Whether one more graph may be recorded, after the oldest, if idle, was dropped."""
        for key in [key for key, found in self._kept.items() if found() is None]:
            del self._kept[key]
        if len(self._kept) < self.limit:
            return True
        key, oldest = next(iter((id(made), made) for made in self._live()))
        if self.clock - oldest.used < _IDLE * self.limit:
            return False
        del self._kept[key]
        oldest.drop()
        return True

    def keep(self, made: Captured) -> None:
        """Notes a graph as the newest."""
        self._kept[id(made)] = weakref.ref(made)
        self.captures += 1
        record(captures=1)

    def used(self, made: Captured) -> None:
        """Notes that a graph was replayed."""
        made.used = self.clock
        self.replays += 1
        self._kept.move_to_end(id(made))

    def failed(self, error: Exception) -> None:
        """A recording failed; after a few times, none is tried any more."""
        self._failures += 1
        if self._failures >= _ATTEMPTS:
            text = " ".join(str(error).split())
            self.refusal = f"capturing failed: {type(error).__name__}: {text}"
            _say(self.refusal)


def roles_of(graph: Graph, late: Sequence[Constant]) -> tuple[Role, ...]:
    """What the arguments of the ``forward`` of `graph` are: its inputs, then `late`."""
    written = {value for value, new in graph.writebacks if value is not new}
    inputs = [Role(isinstance(v.type, TensorType), False, v in written) for v in graph.inputs]
    return (*inputs, *(Role(True, True, constant in written) for constant in late))


def _say(reason: str) -> None:
    record_fallback(f"no CUDA graph: {' '.join(reason.split())}")
    warn(
        f"a program runs without CUDA graphs: {reason}\n"
        "  cuda_graphs='auto' leaves alone, without a word, what can't be captured",
        FallbackWarning,
    )


# --------------------------------------------------------------------------- one set of constants


class _Plain:
    """Says that a call is to run plainly."""


_PLAIN: Final = _Plain()


class Captor:
    """A program's ``forward``, bound to constants: runs plainly, records, or replays.

    Args:
        graphs: of the program.
        run: computes a call.
        constants: what `run` holds, by name; prepared ones among them.
    """

    def __init__(
        self, graphs: Graphs, run: Callable[..., Any], constants: Mapping[str, Any]
    ) -> None:
        self._graphs = graphs
        self._run = run
        self._constants = [t for t in constants.values() if isinstance(t, Tensor)]
        self._indices = [*range(len(self._constants))]
        here = graphs.recorder.device.type
        elsewhere = (t for t in self._constants if t.device.type != here)
        self._on_host = [t for t in elsewhere if not t.is_inference()]
        self._written = [constants[name] for name in graphs.written if name in constants]
        roles = [*enumerate(graphs.roles)]
        self._tensors = [at for at, role in roles if role.is_tensor and not role.is_constant]
        self._numbers = [at for at, role in roles if not role.is_tensor]
        self._updated = [at for at, role in roles if role.is_written]
        self._families: OrderedDict[Any, Family] = OrderedDict()
        self._addresses = [*map(_data_ptr, self._constants)]
        self._versions = [*map(_version, self._on_host)]

    def __call__(self, *args: Any) -> Any:
        """The results of a call with `args`."""
        graphs = self._graphs
        if graphs.refusal is not None or graphs.recorder.is_busy():
            return self._run(*args)
        with graphs.lock:
            graphs.clock += 1
            self._check_constants()
            shapes = self._shapes(args)
            family = self._families.get(shapes)
            if family is not None:
                captured = family.graphs.get(family.key(args))
                if captured is not None:
                    return self._replay(family, captured, args)
            family = self._family(shapes)
            result = self._first(family, args)
        if isinstance(result, _Plain):
            result = self._run(*args)
            with graphs.lock:
                family.warm(family.key(args))
        return result

    # -- keys

    def _shapes(self, args: Sequence[Any]) -> Any:
        """What a call has in common with others that a graph may serve, but for addresses."""
        key: list[Any] = [(args[at].shape, args[at].stride()) for at in self._tensors]
        key += [_exactly(args[at]) for at in self._numbers]
        return tuple(key)

    def _check_constants(self) -> None:
        """Drops all graphs where a constant's memory was replaced, or one on the CPU written to."""
        versions = [*map(_version, self._on_host)]
        if versions == self._versions and _are_at(self._constants, self._addresses, self._indices):
            return
        self._addresses, self._versions = [*map(_data_ptr, self._constants)], versions
        self._families.clear()

    def _family(self, shapes: Any) -> Family:
        """The calls of these shapes; those without graphs are forgotten where there are many."""
        if shapes not in self._families:
            room = _IDLE * self._graphs.limit
            while len(self._families) >= room:
                idle = next((k for k, f in self._families.items() if not f.graphs), None)
                if idle is None:
                    break
                del self._families[idle]
            self._families[shapes] = Family(self._graphs.roles)
        return self._families[shapes]

    # -- calls; under the lock

    def _first(self, family: Family, args: Sequence[Any]) -> Any:
        """A call that no graph is there for: warms up, or records one and replays it."""
        graphs = self._graphs
        family.note(args)
        key = family.key(args)
        if family.is_warm(key):
            if graphs.make_room() and (made := self._record(family, key, args)) is not None:
                return self._replay(family, made, args)
            return _PLAIN
        if not family.moving:
            return _PLAIN
        family.allocate(args)
        result = self._on_buffers(family, args)
        family.warm(key)
        return result

    def _on_buffers(self, family: Family, args: Sequence[Any]) -> Any:
        """Runs a call plainly on the memory that the graph will use."""
        recorder = self._graphs.recorder
        recorder.begin()
        try:
            static = family.fill(args)
            returned = self._run(*static)
            outputs = Outputs.of(returned, static, self._constants, copied=False)
            result = outputs.deliver(args)
            family.write_back(args)
        finally:
            recorder.end()
        return result

    def _record(self, family: Family, key: Any, args: Sequence[Any]) -> Captured | None:
        graphs = self._graphs
        static = family.static(args)
        try:
            recording, returned = graphs.recorder.record(self._run, static, graphs.is_empty)
        except Exception as error:
            graphs.failed(error)
            return None
        outputs = Outputs.of(returned, static, self._constants)
        made = Captured(recording, outputs, weakref.ref(family), key)
        family.graphs[key] = made
        graphs.keep(made)
        return made

    def _replay(self, family: Family, made: Captured, args: Sequence[Any]) -> Any:
        graphs = self._graphs
        graphs.recorder.begin()
        try:
            if family.moving:
                family.fill(args)
            made.recording.replay()
            result = made.outputs.deliver(args)
            if self._updated or self._written:
                family.write_back(args)
                written = (*(args[at] for at in self._updated), *self._written)
                torch.autograd.graph.increment_version(written)
        finally:
            graphs.recorder.end()
        graphs.used(made)
        return result


def _are_at_in_python(
    tensors: Sequence[Tensor], addresses: Sequence[int], _: Sequence[int]
) -> bool:
    return [*map(_data_ptr, tensors)] == addresses


_are_at: Final[Callable[..., bool]] = getattr(
    torch._C, "_tensors_data_ptrs_at_indices_equal", _are_at_in_python
)
"""Whether tensors are at these addresses; torch has a fast way where it has CUDA."""


def _exactly(number: Any) -> Any:
    """A key of a number that tells 0.0 from -0.0, and finds nan."""
    return number.hex() if isinstance(number, float) else number
