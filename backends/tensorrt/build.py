"""Engines: built from a graph, or from a network that is already defined."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import attrs
import torch

from rewright.backends.tensorrt.emitter import Emitted, Port, emit
from rewright.backends.tensorrt.enums import MemoryPoolType, ProfilingVerbosity
from rewright.backends.tensorrt.library import Capability, Library
from rewright.backends.tensorrt.log import LOG, watching
from rewright.backends.tensorrt.profiles import add_profiles
from rewright.backends.tensorrt.progress import Stop, Watcher, interruptible, monitor
from rewright.errors import EngineError
from rewright.ir.graph import Graph


@attrs.frozen
class BuildOptions:
    """How an engine is built.

    Attributes:
        capabilities: the compute capabilities to build for (TensorRT for RTX); empty: all.
        optimization_level: TensorRT's, 0 to 5; None: its default.
        workspace: the most scratch memory that a layer may use, in bytes; None: TensorRT's.
        weight_streaming: whether weights may be streamed from the host at run time.
        detailed: whether the engine keeps details of its layers, for inspection.
    """

    capabilities: tuple[Capability, ...] = ()
    optimization_level: int | None = None
    workspace: int | None = None
    weight_streaming: bool = False
    detailed: bool = False


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
    """

    data: bytes = attrs.field(repr=lambda data: f"{len(data)} bytes")
    library: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: int
    layers: int
    seconds: float
    log: tuple[str, ...]


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
    emitted = emit(graph, library, constants)
    return build_network(emitted, options or BuildOptions(), watcher=watcher, stop=stop)


def build_network(
    emitted: Emitted,
    options: BuildOptions,
    *,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> Engine:
    """Builds the engine of a network; see :func:`build_engine`."""
    stop = stop or Stop()
    return interruptible(lambda: _build(emitted, options, watcher, stop), stop)


def build_networks(
    emitted: Sequence[Emitted],
    options: BuildOptions,
    *,
    workers: int = 2,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> list[Engine]:
    """Builds the engines of several networks, some at a time; the first failure stops the rest.

    TensorRT builds without Python's lock. Memory is what bounds `workers`: a build takes two to
    three times the bytes of its weights.

    Args:
        emitted: the networks.
        options: how each is built.
        workers: how many at a time.
        watcher: is told of the phases of all builds, from several threads.
        stop: stops all when asked.

    Raises:
        EngineError: one could not be built.
        KeyboardInterrupt: Ctrl-C was pressed; all builds have stopped.
    """
    stop = stop or Stop()

    def build(item: Emitted) -> Engine:
        try:
            return _build(item, options, watcher, stop)
        except BaseException:
            stop.ask()
            raise

    def build_all() -> list[Engine]:
        with ThreadPoolExecutor(workers, "tensorrt-build") as pool:
            futures = [pool.submit(build, item) for item in emitted]
            wait(futures)
        failed = [f for f in futures if f.exception() is not None and not _was_stopped(f)]
        return [future.result() for future in (failed or futures)]

    return interruptible(build_all, stop)


def _was_stopped(future: Future[Engine]) -> bool:
    """Whether a build ended only because another had failed."""
    return isinstance(future.exception(), BuildStopped)


class BuildStopped(EngineError):
    """A build was stopped before it had ended."""


def _build(emitted: Emitted, options: BuildOptions, watcher: Watcher | None, stop: Stop) -> Engine:
    net, library = emitted.net, emitted.net.library
    if stop.asked:
        raise _stopped(emitted)
    builder = net.builder
    config = builder.create_builder_config()
    count = add_profiles(builder, config, emitted.graph, emitted.inputs)
    _configure(config, library, options)
    config.progress_monitor = monitor(library.module, stop, watcher)
    start = time.perf_counter()
    with watching() as errors:
        serialized = builder.build_serialized_network(net.definition, config)
        log = tuple(errors())
    if serialized is None:
        raise _failure(emitted, log, stop)
    seconds = time.perf_counter() - start
    data = bytes(serialized)
    LOG.info(
        "built @%s: %d layers, %.1f MB, %.1f s", emitted.graph.name,
        net.definition.num_layers, len(data) / 1e6, seconds,
    )  # fmt: skip
    return Engine(data, library.name, emitted.inputs, emitted.outputs, count,
                  net.definition.num_layers, seconds, log)  # fmt: skip


def _configure(config: Any, library: Library, options: BuildOptions) -> None:
    trt = library.module
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace is not None:
        config.set_memory_pool_limit(library.enum(MemoryPoolType.WORKSPACE), options.workspace)
    if options.detailed:
        config.profiling_verbosity = library.enum(ProfilingVerbosity.DETAILED)
    if options.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if options.capabilities:
        if not _builds_for_others(library):
            raise EngineError(f"{library.name} builds for the GPU of this machine only")
        for major, minor in options.capabilities:
            if (major, minor) not in library.capabilities():
                raise EngineError(f"{library.name} can't build for {major}.{minor}")
        config.num_compute_capabilities = len(options.capabilities)
        for index, (major, minor) in enumerate(options.capabilities):
            member = getattr(trt.ComputeCapability, f"SM{major}{minor}")
            if not config.set_compute_capability(member, index):
                raise EngineError(f"{library.name} can't build for {major}.{minor}")


def _builds_for_others(library: Library) -> bool:
    return library.has("IBuilderConfig.num_compute_capabilities") and library.has(
        "IBuilderConfig.set_compute_capability"
    )


def _stopped(emitted: Emitted) -> BuildStopped:
    name = emitted.graph.name
    return BuildStopped(f"the build of @{name} was stopped", engine=name)


def _failure(emitted: Emitted, log: tuple[str, ...], stop: Stop) -> EngineError:
    name, library = emitted.graph.name, emitted.net.library
    if stop.asked:
        return _stopped(emitted)
    return EngineError(
        f"{library.name} could not build @{name}: {' | '.join(log) or 'it does not say why'}",
        engine=name,
        hint="layers are named by module path, node and op: the text names the one at fault",
    )
