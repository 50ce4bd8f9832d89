"""How engines are built: the options, which TensorRT has each, and how a build is told.

================================  =============================  ==============================
option                            setting                        which library
================================  =============================  ==============================
`capabilities`                    ``target="rtx:8.9"``           `tensorrt_rtx`
`optimization_level`              `engine_optimization_level`    both
`workspace`                       `engine_workspace`             both
`weight_streaming`                `engine_weight_budget`         both
`refit`                           `engine_refit`                 both; building one with
                                                                 `tensorrt_rtx` takes a CUDA
                                                                 driver
`version_compatible`              `engine_version_compatible`    `tensorrt`
`hardware_compatible`             `engine_hardware_compatible`   `tensorrt`
`timing_cache`                    `engine_timing_cache`          `tensorrt`
================================  =============================  ==============================
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from rewright.backends.tensorrt.enums import MemoryPoolType, ProfilingVerbosity
from rewright.backends.tensorrt.library import Capability, Library
from rewright.backends.tensorrt.needs import Feature
from rewright.errors import EngineError, SettingsError


@attrs.frozen
class BuildOptions:
    """How an engine is built. All of it is part of the key that an engine is kept under.

    Attributes:
        capabilities: the compute capabilities to build for (TensorRT for RTX); empty: all.
        optimization_level: TensorRT's, 0 to 5; None: its default.
        workspace: the most scratch memory that a layer may use, in bytes; None: TensorRT's.
        weight_streaming: whether weights may be streamed from the host at run time.
        detailed: whether the engine keeps details of its layers, for inspection.
        refit: whether the weights can be changed later, without another build.
        version_compatible: whether later versions of TensorRT may run the engine, too.
        hardware_compatible: which other GPUs may: ``ampere+`` or ``same-capability``; None: those
            of the same model.
        timing_cache: a file that keeps how fast kernels were, from build to build.
    """

    capabilities: tuple[Capability, ...] = ()
    optimization_level: int | None = None
    workspace: int | None = None
    weight_streaming: bool = False
    detailed: bool = False
    refit: bool = False
    version_compatible: bool = False
    hardware_compatible: str | None = None
    timing_cache: str | None = None


@attrs.frozen
class _Limited:
    """An option that not every TensorRT has.

    Attributes:
        setting: what users call it.
        flavor: which flavor has it.
        words: what it is, in words that complete "... has no".
        reason: why the other flavor has not.
    """

    setting: str
    flavor: str
    words: str
    reason: str


LIMITED: Final = {
    "version_compatible": _Limited(
        "engine_version_compatible", "tensorrt", "engines for other versions of it",
        "engines of TensorRT for RTX are run by the version that built them",
    ),
    "hardware_compatible": _Limited(
        "engine_hardware_compatible", "tensorrt", "levels of hardware compatibility",
        "engines of TensorRT for RTX run on every GPU that it supports, or those that the target "
        "lists: 'rtx:8.9,12.0'",
    ),
    "timing_cache": _Limited(
        "engine_timing_cache", "tensorrt", "timing cache",
        "TensorRT for RTX times no kernels as it builds",
    ),
}  # fmt: skip
"""The options that only one flavor has."""

_LEVELS: Final = {
    "ampere+": Feature("HardwareCompatibilityLevel.AMPERE_PLUS"),
    "same-capability": Feature("HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"),
}
"""TensorRT's names for the levels of hardware compatibility."""


def check_options(options: BuildOptions, library: Library) -> None:
    """Refuses what `library` has not.

    Raises:
        SettingsError: says which setting, why, and which flavor has it.
    """
    for name, limited in LIMITED.items():
        if getattr(options, name) and limited.flavor != library.flavor:
            raise SettingsError(
                f"{library.name} has no {limited.words}",
                setting=limited.setting,
                hint=f"{limited.reason}; target={limited.flavor!r} has it",
            )
    level = options.hardware_compatible
    if level is not None and not library.has(_LEVELS[level].path):
        raise SettingsError(
            f"{library.name} has no hardware compatibility {level!r}",
            setting="engine_hardware_compatible",
            hint="TensorRT 10.9 has it",
        )


def configure(config: Any, library: Library, options: BuildOptions) -> None:
    """Tells a build its options.

    Raises:
        SettingsError: `library` has no such option.
        EngineError: it can't build for a compute capability.
    """
    check_options(options, library)
    trt = library.module
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace is not None:
        config.set_memory_pool_limit(library.enum(MemoryPoolType.WORKSPACE), options.workspace)
    if options.detailed:
        config.profiling_verbosity = library.enum(ProfilingVerbosity.DETAILED)
    if options.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if options.refit:
        # Only the weights that are marked: literals stay what the kernels were chosen for.
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible is not None:
        member = _LEVELS[options.hardware_compatible].path.partition(".")[2]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, member)
    if options.capabilities:
        _set_capabilities(config, library, options.capabilities)


def _set_capabilities(config: Any, library: Library, wanted: tuple[Capability, ...]) -> None:
    if not _builds_for_others(library):
        raise EngineError(
            f"{library.name} builds for the GPU of this machine only",
            hint="TensorRT for RTX builds for GPUs by name: target='rtx:8.9'",
        )
    for major, minor in wanted:
        if (major, minor) not in library.capabilities():
            raise EngineError(f"{library.name} can't build for {major}.{minor}")
    config.num_compute_capabilities = len(wanted)
    for index, (major, minor) in enumerate(wanted):
        member = getattr(library.module.ComputeCapability, f"SM{major}{minor}")
        if not config.set_compute_capability(member, index):
            raise EngineError(f"{library.name} can't build for {major}.{minor}")


def _builds_for_others(library: Library) -> bool:
    return library.has("IBuilderConfig.num_compute_capabilities") and library.has(
        "IBuilderConfig.set_compute_capability"
    )
