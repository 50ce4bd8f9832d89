"""From an engine's bytes to something that makes execution contexts, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs
import torch

from rewright.backends.tensorrt.asking import Asker
from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.device import Device
from rewright.backends.tensorrt.execution import Context
from rewright.backends.tensorrt.library import Library, version_of
from rewright.backends.tensorrt.log import JOURNAL, LOG
from rewright.backends.tensorrt.needs import Feature
from rewright.backends.tensorrt.slots import Slot, read_slots
from rewright.errors import EngineError, SettingsError

Specialization = Literal["lazy", "eager", "none"]
_SPECIALIZATIONS: Final = ("lazy", "eager", "none")


@attrs.frozen(kw_only=True)
class RunOptions:
    """How an engine is run. What a library has not is refused at loading.

    Attributes:
        contexts: the most execution contexts kept: so many calls can be put on streams at once,
            and more wait for them.
        shares_scratch: whether a run's scratch memory is torch's, taken for that run and these
            shapes, rather than each context's own, kept, and enough for all shapes.
        shapes: of so many combinations of input shapes is remembered what they lead to.
        weight_budget: the most bytes of weights kept on the GPU, where the engine was built to
            stream them; None: all.
        runtime_cache: what :meth:`EngineRunner.runtime_cache` gave in an earlier process: kernels
            that need no compiling again (TensorRT for RTX). One of another machine or version is
            not used.
        specialization: when kernels are compiled for the shapes that come (TensorRT for RTX):
            ``lazy`` in the background, ``eager`` before the first run with them, or ``none``;
            None: TensorRT's default, which is ``lazy``.
        internal_graphs: whether TensorRT captures its own CUDA graphs (TensorRT for RTX).
    """

    contexts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    shares_scratch: bool = False
    shapes: int = attrs.field(default=256, validator=attrs.validators.ge(1))
    weight_budget: int | None = None
    runtime_cache: bytes | None = attrs.field(default=None, repr=False)
    specialization: Specialization | None = None
    internal_graphs: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuses a specialization that there is none of."""
        if self.specialization not in (None, *_SPECIALIZATIONS):
            raise SettingsError(
                f"there is no specialization {self.specialization!r}",
                setting="specialization",
                hint=f"known: {', '.join(_SPECIALIZATIONS)}",
            )


@attrs.define(eq=False)
class Loaded:
    """An engine in TensorRT's hands.

    Attributes:
        runtime: TensorRT's runtime, which must outlive the engine.
        cuda_engine: TensorRT's engine.
        inputs: its inputs, in the graph's order.
        outputs: its outputs, in the graph's order.
        asker: calls TensorRT for it.
        device: where it runs.
        spare: memory for the addresses of empty tensors, which may not be null.
        shares_scratch: as the option.
        runtime_config: what contexts are made with; None where this version has no such thing.
        runtime_cache: the kernels that were compiled; None for engines that hold theirs.
    """

    runtime: Any
    cuda_engine: Any
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    asker: Asker
    device: Device
    spare: torch.Tensor
    shares_scratch: bool
    runtime_config: Any = None
    runtime_cache: Any = None

    def new_context(self) -> Context:
        """A new execution context.

        Raises:
            EngineError: TensorRT could make none.
        """
        args: tuple[Any, ...] = ()
        if self.runtime_config is not None:
            args = (self.runtime_config,)
        elif self.shares_scratch:
            args = (_users_memory(self.asker.library),)
        create = self.cuda_engine.create_execution_context
        # TensorRT for RTX compiles kernels here: what it can't do on this GPU shows only now.
        execution = self.asker.ask("make an execution context", create, *args)
        return Context(
            execution, self.inputs, self.outputs, self.asker, self.device, self.spare,
            self.shares_scratch,
        )  # fmt: skip


def _users_memory(library: Library) -> Any:
    """TensorRT's name for scratch memory that it is given."""
    return library.module.ExecutionContextAllocationStrategy.USER_MANAGED


def load_engine(engine: Engine, asker: Asker, device: Device, options: RunOptions) -> Loaded:
    """Loads an engine.

    Args:
        engine: the engine.
        asker: has the TensorRT to load it with.
        device: where it is to run.
        options: how.

    Raises:
        EngineError: it can't run here; says why.
        SettingsError: an option that this TensorRT, or this engine, has not.
    """
    library, name = asker.library, asker.name
    refusal = _refusal(engine, library, device)
    if refusal is not None:
        raise EngineError(
            f"the engine of @{name} can't run here: {refusal}",
            engine=name,
            hint="compile for the machine that the program runs on, and there",
        )
    with device.active():
        # torch makes the CUDA context that TensorRT needs to be there.
        spare = torch.empty(device.alignment, dtype=torch.uint8, device=device.torch_device)
        runtime = library.module.Runtime(library.logger)
        if engine.version_compatible:
            runtime.engine_host_code_allowed = True  # it brings the runtime that it needs
        position = JOURNAL.position
        cuda_engine = runtime.deserialize_cuda_engine(engine.data)
        if cuda_engine is None:
            found = _diagnosis(runtime, engine.data, library)
            raise asker.failure("load the engine", position, ", ".join(found))
        if options.weight_budget is not None:
            _limit_weights(cuda_engine, options.weight_budget, asker)
        inputs, outputs = read_slots(cuda_engine, library, engine.inputs, engine.outputs, name)
        loaded = Loaded(
            runtime, cuda_engine, inputs, outputs, asker, device, spare, options.shares_scratch
        )
        _configure(loaded, options)
    return loaded


def _refusal(engine: Engine, library: Library, device: Device) -> str | None:
    """Why `engine` can't run, as far as that is known before TensorRT is asked."""
    if engine.library != library.name and not _is_portable(engine, library):
        return f"it was built with {engine.library}, and here is {library.name}"
    refusal = device.refusal()
    if refusal is not None:
        return refusal
    supported, found = library.capabilities(), device.capability()
    if supported and found not in supported:
        shown = ", ".join(f"{major}.{minor}" for major, minor in supported)
        return f"{library.name} supports {shown}, and this GPU is a {found[0]}.{found[1]}"
    return None


def _is_portable(engine: Engine, library: Library) -> bool:
    """Whether an engine of another version was made for this one, too."""
    package, _, version = engine.library.partition(" ")
    ours = library.name.partition(" ")[0]
    return engine.version_compatible and package == ours and version_of(version) <= library.version


_DIAGNOSED: Final = (
    Feature("Runtime.get_engine_validity"),
    Feature("EngineValidity"),
    Feature("EngineInvalidityDiagnostics"),
)


def _diagnosis(runtime: Any, data: bytes, library: Library) -> Sequence[str]:
    """What TensorRT finds wrong with an engine, where it can tell."""
    if not all(library.has(feature.path) for feature in _DIAGNOSED):
        return ()
    trt = library.module
    validity, bits = runtime.get_engine_validity(data)
    if validity != trt.EngineValidity.INVALID:
        return ()
    known = trt.EngineInvalidityDiagnostics.__members__.items()
    return [name for name, member in known if int(bits) & int(member)]


def _limit_weights(cuda_engine: Any, budget: int, asker: Asker) -> None:
    if not cuda_engine.streamable_weights_size:
        raise SettingsError(
            f"the engine of @{asker.name} can't stream its weights",
            setting="weight_budget",
            hint="build it with weight_streaming=True",
        )
    # Must be set before the first context exists.
    asker.tell("limit the weights", setattr, cuda_engine, "weight_streaming_budget_v2", budget)


def _configure(loaded: Loaded, options: RunOptions) -> None:
    """Makes what contexts are made with, where this TensorRT has something to set there."""
    asker, library, trt = loaded.asker, loaded.asker.library, loaded.asker.library.module
    _check_settings(library, options)
    if not library.has("ICudaEngine.create_runtime_config") or not _has(library, "runtime_cache"):
        return
    ask, tell = asker.ask, asker.tell
    runtime_config = ask("make a runtime configuration", loaded.cuda_engine.create_runtime_config)
    if options.shares_scratch:
        choose = runtime_config.set_execution_context_allocation_strategy
        tell("choose the memory", choose, _users_memory(library))
    if options.specialization is not None:
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        chosen = getattr(strategies, options.specialization.upper())
        name = "dynamic_shapes_kernel_specialization_strategy"
        tell("set the specialization", setattr, runtime_config, name, chosen)
    if options.internal_graphs:
        captured = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        tell("set the CUDA graphs", setattr, runtime_config, "cuda_graph_strategy", captured)
    runtime_cache = ask("make a runtime cache", runtime_config.create_runtime_cache)
    if options.runtime_cache and not runtime_cache.deserialize(options.runtime_cache):
        LOG.info("the runtime cache of @%s is of another machine or version: not used", asker.name)
    ask("set the runtime cache", runtime_config.set_runtime_cache, runtime_cache)
    loaded.runtime_config, loaded.runtime_cache = runtime_config, runtime_cache


_NEEDED: Final = {
    "specialization": (
        Feature("DynamicShapesKernelSpecializationStrategy"),
        Feature("IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy"),
    ),
    "internal_graphs": (
        Feature("CudaGraphStrategy"),
        Feature("IRuntimeConfig.cuda_graph_strategy"),
    ),
    "runtime_cache": (
        Feature("IRuntimeCache"),
        Feature("IRuntimeConfig.create_runtime_cache"),
        Feature("IRuntimeConfig.set_runtime_cache"),
        Feature("IRuntimeConfig.set_execution_context_allocation_strategy"),
    ),
}
"""What a library must have for an option."""


def _has(library: Library, option: str) -> bool:
    return all(library.has(feature.path) for feature in _NEEDED[option])


def _check_settings(library: Library, options: RunOptions) -> None:
    for option in _NEEDED:
        if getattr(options, option) and not _has(library, option):
            raise SettingsError(
                f"{library.name} has no {option}",
                setting=option,
                hint="it is for TensorRT for RTX, which compiles kernels as it runs",
            )


def serialized_cache(loaded: Loaded) -> bytes | None:
    """The kernels compiled so far; None where the engine holds its kernels itself.

    Raises:
        EngineError: TensorRT can't serialize them.
    """
    runtime_cache = loaded.runtime_cache
    if runtime_cache is None:
        return None
    return bytes(loaded.asker.ask("serialize the runtime cache", runtime_cache.serialize))


_REFIT: Final = Feature("SerializationFlag.INCLUDE_REFIT")
"""Without it, versions that know it serialize an engine that can't be refitted again."""


def serialized_engine(loaded: Loaded) -> bytes:
    """The engine's bytes, with the weights that it has now.

    Raises:
        EngineError: TensorRT can't serialize it.
    """
    asker, trt, cuda_engine = loaded.asker, loaded.asker.library.module, loaded.cuda_engine
    serialization = asker.ask("say what to serialize", cuda_engine.create_serialization_config)
    asker.ask("keep the weights", serialization.clear_flag, trt.SerializationFlag.EXCLUDE_WEIGHTS)
    if asker.library.has(_REFIT.path):
        asker.ask("keep it refittable", serialization.set_flag, trt.SerializationFlag.INCLUDE_REFIT)
    return bytes(
        asker.ask("serialize the engine", cuda_engine.serialize_with_config, serialization)
    )
