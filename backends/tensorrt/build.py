"""Engines: built from a graph, or from a network that is already defined."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

import attrs
import torch

from rewright.backends.tensorrt.emitter import Emitted, Port, emit
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.log import LOG, watching
from rewright.backends.tensorrt.options import BuildOptions, configure
from rewright.backends.tensorrt.profiles import add_profiles
from rewright.backends.tensorrt.progress import Stop, Watcher, interruptible, monitor
from rewright.backends.tensorrt.refitting import NEEDS_DRIVER, Naming
from rewright.backends.tensorrt.timing import timing_cache
from rewright.errors import EngineError
from rewright.ir.graph import Graph


@attrs.frozen(eq=False)
class Engine:
    """A built engine.

    Attributes:
        data: its bytes.
        library: flavor and version that it was built with, and must be run with.
        inputs: its inputs, in the order of the graph's.
        outputs: its outputs, in the order of the graph's, then of its write-backs.
        profiles: how many optimization profiles it has.
        layers: how many layers its network had.
        seconds: how long the build took.
        log: TensorRT's warnings and errors during the build.
        version_compatible: whether later versions of the library may run it, too.
        form: a digest of the network but for the contents of its weights, where these can be
            changed (:mod:`~rewright.backends.tensorrt.refitting`); empty where they can't.
    """

    data: bytes = attrs.field(repr=lambda data: f"{len(data)} bytes")
    library: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: int
    layers: int
    seconds: float
    log: tuple[str, ...]
    version_compatible: bool = False
    form: str = ""


def build_engine(
    graph: Graph,
    library: Library,
    options: BuildOptions | None = None,
    *,
    constants: Mapping[str, torch.Tensor] | None = None,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> Engine:
    """Builds the engine of a graph.

    Args:
        graph: a graph of which TensorRT supports every node.
        library: the TensorRT to build with.
        options: how.
        constants: as :func:`~rewright.backends.tensorrt.emitter.emit` takes them.
        watcher: is told of the phases of the build.
        stop: stops the build when asked.

    Raises:
        ConversionError: a node can't be converted.
        UnsupportedError: a size has no maximum.
        EngineError: TensorRT could not build it, or was stopped.
        KeyboardInterrupt: Ctrl-C was pressed; the build has stopped.
    """
    options = options or BuildOptions()
    emitted = emit(graph, library, constants, Naming() if options.refit else None)
    return build_network(emitted, options, watcher=watcher, stop=stop)


def build_network(
    emitted: Emitted,
    options: BuildOptions,
    *,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> Engine:
    """Builds the engine of a network; see :func:`build_engine`."""
    stop = stop or Stop()
    return interruptible(lambda: build_here(emitted, options, watcher, stop), stop)


Job = Callable[[Stop, "Watcher | None"], Engine]
"""Builds one engine; stops when asked, and tells of its phases."""


def build_together(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> list[Engine]:
    """Runs several builds, some at a time; the first failure stops the rest.

    TensorRT builds without Python's lock. Memory is what bounds `workers`: a build takes two to
    three times the bytes of its weights.

    Args:
        jobs: the builds.
        workers: how many at a time; by default as many as there are cores, up to four.
        watcher: is told of the phases of all builds, from several threads.
        stop: stops all when asked.

    Raises:
        EngineError: one could not be built.
        KeyboardInterrupt: Ctrl-C was pressed; all builds have stopped.
    """
    stop = stop or Stop()
    workers = workers or min(os.cpu_count() or 1, 4, len(jobs)) or 1

    def build(job: Job) -> Engine:
        try:
            return job(stop, watcher)
        except BaseException:
            stop.ask()
            raise

    def build_all() -> list[Engine]:
        with ThreadPoolExecutor(workers, "tensorrt-build") as pool:
            futures = [pool.submit(build, job) for job in jobs]
            wait(futures)
        failed = [f for f in futures if f.exception() is not None and not _was_stopped(f)]
        return [future.result() for future in (failed or futures)]

    return interruptible(build_all, stop)


def _was_stopped(future: Future[Engine]) -> bool:
    """Whether a build ended only because another had failed."""
    return isinstance(future.exception(), BuildStopped)


class BuildStopped(EngineError):
    """A build was stopped before it had ended."""


def build_here(
    emitted: Emitted, options: BuildOptions, watcher: Watcher | None, stop: Stop
) -> Engine:
    """Builds the engine of a network in this thread, where no Ctrl-C is heard; see above."""
    net, library = emitted.net, emitted.net.library
    if stop.asked:
        raise _stopped(emitted)
    builder = net.builder
    config = builder.create_builder_config()
    count = add_profiles(builder, config, emitted.graph, emitted.inputs)
    configure(config, library, options)
    config.progress_monitor = monitor(library.module, stop, watcher)
    start = time.perf_counter()
    with timing_cache(config, options.timing_cache), watching() as errors:
        serialized = builder.build_serialized_network(net.definition, config)
        log = tuple(errors())
    if serialized is None:
        raise _failure(emitted, log, stop)
    seconds = time.perf_counter() - start
    try:
        data = bytes(serialized)
    except MemoryError as error:
        raise _no_memory(emitted) from error
    LOG.info(
        "built @%s: %d layers, %.1f MB, %.1f s", emitted.graph.name,
        net.definition.num_layers, len(data) / 1e6, seconds,
    )  # fmt: skip
    naming = net.naming
    return Engine(
        data, library.name, emitted.inputs, emitted.outputs, count, net.definition.num_layers,
        seconds, log, options.version_compatible, naming.form() if naming else "",
    )  # fmt: skip


def _stopped(emitted: Emitted) -> BuildStopped:
    name = emitted.graph.name
    return BuildStopped(f"the build of @{name} was stopped", engine=name)


def _no_memory(emitted: Emitted, log: tuple[str, ...] = ()) -> EngineError:
    name = emitted.graph.name
    said = f": {' | '.join(log)}" if log else ""
    return EngineError(
        f"there is no memory for the engine of @{name}{said}",
        engine=name,
        hint="a build takes two to three times the bytes of its weights: leave some modules in "
        "Torch by torch_executed_modules, or build on a machine with more memory",
    )


_NO_MEMORY: Final = ("outofmemory", "out of memory", "bad_alloc")
"""What TensorRT says where memory ends, depending on where it does."""


def _failure(emitted: Emitted, log: tuple[str, ...], stop: Stop) -> EngineError:
    name, library = emitted.graph.name, emitted.net.library
    if stop.asked:
        return _stopped(emitted)
    if any(word in text.lower() for text in log for word in _NO_MEMORY):
        return _no_memory(emitted, log)
    hint = (
        "layers are named by module path, node and op: leave the one that the text names in Torch, "
        "by torch_executed_nodes or torch_executed_ops"
    )
    if emitted.net.naming is not None and any("CUDA_SUCCESS" in text for text in log):
        hint = NEEDS_DRIVER
    return EngineError(
        f"{library.name} could not build @{name}: {' | '.join(log) or 'it does not say why'}",
        engine=name,
        hint=hint,
    )
