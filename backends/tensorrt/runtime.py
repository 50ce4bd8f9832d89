"""Running engines: one is loaded once and called from many threads and streams.

    runner = load_runner(engine, library)  # EngineError with the reason where it can't run here
    outputs = runner(*inputs)              # tensors and numbers, in the order of the graph's

What a call costs beyond the engine: its inputs are looked at, memory for its outputs is taken from
torch's allocator, and addresses that differ from the last call's are set. Shapes are given to
TensorRT only where they differ from the last call's of the context, and what they lead to (the
profile, the shapes of outputs) is remembered.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from rewright.backends.tensorrt.asking import Asker
from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.device import CudaDevice, Device, Stream
from rewright.backends.tensorrt.execution import Context, Plan
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.loading import (
    Loaded,
    RunOptions,
    load_engine,
    serialized_cache,
    serialized_engine,
)
from rewright.backends.tensorrt.refitting import refit_engine
from rewright.backends.tensorrt.slots import Shape, Slot, find_profile
from rewright.errors import EngineError, InputError

__all__ = ["Counters", "EngineRunner", "Lease", "RunOptions", "load_runner"]


@attrs.frozen
class Counters:
    """What a runner did.

    Attributes:
        runs: runs that succeeded.
        plans: times that the sizes of a call were new, and what they lead to was found out.
        bindings: times that a context was given shapes other than its last ones.
        contexts: execution contexts made.
    """

    runs: int = 0
    plans: int = 0
    bindings: int = 0
    contexts: int = 0


def load_runner(
    engine: Engine, library: Library, options: RunOptions | None = None, *, name: str = "engine",
    device: Device | None = None, weights: Mapping[str, torch.Tensor] | None = None,
) -> EngineRunner:  # fmt: skip
    """An engine that is loaded and ready to be called; takes what :class:`EngineRunner` takes.

    Raises:
        EngineError: it can't run here; says why.
        SettingsError: an option that this TensorRT, or this engine, has not.
    """
    runner = EngineRunner(engine, library, options, name=name, device=device, weights=weights)
    runner.load()
    return runner


class EngineRunner:
    """An engine that is called like a function. Thread-safe.

    Args:
        engine: the engine.
        library: the TensorRT that it was built with.
        name: what errors call it.
        options: how it is run.
        device: where; None: the current GPU.
        weights: those that the engine is given in the place of its own, by name, as
            :func:`~rewright.backends.tensorrt.refitting.refitted_weights` gives them.
    """

    def __init__(
        self, engine: Engine, library: Library, options: RunOptions | None = None, *,
        name: str = "engine", device: Device | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.name = name
        self.options = options or RunOptions()
        self.device: Device = CudaDevice() if device is None else device
        self._asker = Asker(library, name)
        self._loaded: Loaded | None = None
        self._loading = threading.Lock()
        self._pool = _Pool(self.options.contexts, self._new_context)
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._leases = threading.local()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._weights = weights or {}

    # -- loading

    def load(self) -> None:
        """Loads the engine and makes a first execution context; once.

        Raises:
            EngineError: it can't run here: no GPU, another compute capability or version, damaged
                bytes; says which.
            SettingsError: an option that this TensorRT, or this engine, has not.
        """
        with self._loading:
            if self._loaded is not None:
                return
            loaded = load_engine(self.engine, self._asker, self.device, self.options)
            held = {slot.name for slot in loaded.inputs}
            self._places = [i for i, port in enumerate(self.engine.inputs) if port.name in held]
            self._varying = [i for i, slot in enumerate(loaded.inputs) if slot.bounds]
            with self.device.active():
                if self._weights:
                    refit_engine(loaded, self._weights)
                self._pool.add(self._new_context(loaded))
            self._loaded = loaded

    def close(self) -> None:
        """Gives back the engine's memory; a later run loads it again. No run may be under way."""
        with self._loading:
            self._pool.clear()
            self._plans.clear()
            self._loaded = None

    def runtime_cache(self) -> bytes | None:
        """The kernels compiled so far, for :attr:`RunOptions.runtime_cache` of a later process.

        None where the engine holds its kernels itself.

        Raises:
            EngineError: TensorRT can't serialize them.
        """
        return serialized_cache(self._ready())

    def serialized(self) -> bytes:
        """The engine's bytes, with the weights that it was given; it can be refitted again.

        Raises:
            EngineError: TensorRT can't serialize it.
        """
        return serialized_engine(self._ready())

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        with self._lock:
            return Counters(**self._counts)

    def _ready(self) -> Loaded:
        if self._loaded is None:
            self.load()
        assert self._loaded is not None
        return self._loaded

    def _new_context(self, loaded: Loaded | None = None) -> Context:
        context = (loaded or self._ready()).new_context()
        with self._lock:
            self._counts["contexts"] += 1
        return context

    # -- running

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Runs the engine on torch's current stream, and returns before the GPU is done.

        Args:
            values: a tensor on the device, or a number, for each input of the graph.

        Returns:
            The outputs, in memory of their own. For outputs that are numbers the host waits.

        Raises:
            InputError: an input has another dtype, device or rank, or a size outside of the
                engine's ranges; names the dimension and its range.
            EngineError: TensorRT could not run it; with what it says.
        """
        loaded = self._ready()
        if len(values) != len(self.engine.inputs):
            raise InputError(
                f"@{self.name} takes {len(self.engine.inputs)} inputs, not {len(values)}"
            )
        with self.device.active():
            given = [
                slot.tensor(values[place], self.device)
                for slot, place in zip(loaded.inputs, self._places, strict=True)
            ]
            key, plan = self._plan(loaded, given)
            caller = self.device.stream()
            context, is_leased = self._take(plan, caller)
            is_bound = context.plan is plan
            try:
                plan, results = context.run(plan, given, caller)
            except BaseException:
                # The context is in no known state: the next call gets another.
                if not is_leased:
                    self._pool.drop()
                raise
            if not is_leased:
                self._pool.give(context)
            self._remember(key, plan, is_bound)
            return [
                result if slot.kind is None else result.item()
                for slot, result in zip(loaded.outputs, results, strict=True)
            ]

    def __call__(self, *values: Any) -> list[Any]:
        """As :meth:`run`, with a positional argument for each input."""
        return self.run(values)

    def _plan(self, loaded: Loaded, given: Sequence[torch.Tensor]) -> tuple[Any, Plan]:
        """What the sizes of a call lead to: as remembered, or found out."""
        slots = loaded.inputs
        sizes = tuple([_sizes(slots[i], given[i]) for i in self._varying])
        plan = self._plans.get(sizes)
        if plan is not None:
            return sizes, plan
        profile = find_profile([slots[i] for i in self._varying], sizes, self.name)
        pairs = [(slots[i], given[i]) for i in self._varying]
        shapes = tuple((slot.name, tuple(x.shape)) for slot, x in pairs if slot.is_dynamic)
        # A copy: the caller may write to its own while the run is still to come.
        host = {slot.name: x.clone() for slot, x in pairs if slot.on_host}
        return sizes, Plan(profile, shapes, host)

    def _remember(self, key: Any, plan: Plan, is_bound: bool) -> None:
        with self._lock:
            counts, plans = self._counts, self._plans
            counts["runs"] += 1
            counts["bindings"] += not is_bound
            if key in plans:
                plans.move_to_end(key)
                return
            counts["plans"] += 1
            plans[key] = plan
            if len(plans) > self.options.shapes:
                plans.popitem(last=False)

    # -- contexts

    def _take(self, plan: Plan, caller: Stream) -> tuple[Context, bool]:
        """A context that is this call's alone, and whether this thread holds a lease of it."""
        lease: Lease | None = getattr(self._leases, "current", None)
        if self.device.capturing():
            self._check_capture(plan, lease)
        if lease is not None:
            return lease.context, True
        return self._pool.take(plan, caller.cuda_stream), False

    def _check_capture(self, plan: Plan, lease: Lease | None) -> None:
        """Raises where the run can't be captured into a CUDA graph."""
        reason = None
        assert self._loaded is not None
        if lease is None:
            reason = "a graph keeps the memory of an execution context: hold a lease() of one"
        elif lease.context.plan is not plan or plan.outputs is None:
            reason = "run it once with these shapes, under the same lease, before capturing"
        elif plan.is_data_dependent:
            reason = "the sizes of its outputs are known only after the run"
        elif any(slot.on_host for slot in self._loaded.outputs):
            reason = "the host waits for one of its outputs"
        elif not lease.context.is_capturable():
            reason = "TensorRT says so for the kernels at hand"
        if reason is not None:
            raise EngineError(
                f"the engine of @{self.name} can't be captured into a CUDA graph",
                engine=self.name, hint=reason,
            )  # fmt: skip

    def lease(self) -> Lease:
        """An execution context of one's own, for a CUDA graph.

        A graph that was captured holds the addresses of a context's memory, so as long as it is
        replayed nothing else may use that context.

        Raises:
            EngineError: no context could be made.
        """
        self._ready()
        with self.device.active():
            return Lease(self._new_context(), self._leases)


def _sizes(slot: Slot, tensor: torch.Tensor) -> Shape:
    """What varies of an input: its shape, or its values where TensorRT reads them."""
    return tuple(tensor.flatten().tolist()) if slot.on_host else tuple(tensor.shape)


class Lease:
    """A context of its holder's own; within ``with`` this thread's runs use it.

        lease = runner.lease()
        with lease:
            runner(x)                          # warms up
            with torch.cuda.graph(graph):
                runner(x)
        graph.replay()                         # as long as the lease is kept

    For one thread at a time.
    """

    def __init__(self, context: Context, leases: Any) -> None:
        self.context = context
        self._leases = leases
        self._outer: list[Lease | None] = []

    def __enter__(self) -> Lease:
        """This thread's runs use the lease's context from now on."""
        self._outer.append(getattr(self._leases, "current", None))
        self._leases.current = self
        return self

    def __exit__(self, *exc: object) -> None:
        """This thread's runs use what they used before."""
        self._leases.current = self._outer.pop()


class _Pool:
    """Contexts for calls that may come at once.

    Args:
        limit: the most contexts there are.
        make: makes one.
    """

    def __init__(self, limit: int, make: Any) -> None:
        self._limit = limit
        self._make = make
        self._idle: list[Context] = []
        self._made = 0
        self._changed = threading.Condition()

    def take(self, plan: Plan, caller: int) -> Context:
        """A context for a call with `plan` on the stream `caller`; waits where all are in use.

        Best is one that worked on this stream last (a run never waits for another stream's then),
        and of those one that has these shapes. Before streams share one, another is made.
        """
        with self._changed:
            while not self._idle and self._made >= self._limit:
                self._changed.wait()
            best = max(self._idle, key=lambda c: _affinity(c, plan, caller), default=None)
            if best is not None and (
                best.caller in (None, caller) or self._made >= self._limit
            ):  # fmt: skip
                self._idle.remove(best)
                return best
            self._made += 1
        try:
            context: Context = self._make()
        except BaseException:
            self.drop()
            raise
        return context

    def add(self, context: Context) -> None:
        """Takes a context that was made elsewhere."""
        with self._changed:
            self._made += 1
        self.give(context)

    def give(self, context: Context) -> None:
        """Takes a context back."""
        with self._changed:
            self._idle.append(context)
            self._changed.notify()

    def drop(self) -> None:
        """One context is gone: another may be made."""
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def clear(self) -> None:
        """Forgets all."""
        with self._changed:
            self._made -= len(self._idle)
            self._idle.clear()


def _affinity(context: Context, plan: Plan, caller: int) -> tuple[bool, bool, bool]:
    return context.caller == caller, context.caller is None, context.plan is plan
