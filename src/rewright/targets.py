"""From a target to the backends that a program is partitioned for, and what they make of segments.

The passes know backends by their names only; here is what the names stand for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from rewright.errors import EngineError
from rewright.ir.segments import segments_of
from rewright.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from rewright.backends.tensorrt.build import Engine
    from rewright.backends.tensorrt.library import Choice, Library
    from rewright.backends.tensorrt.options import BuildOptions
    from rewright.backends.tensorrt.runtime import EngineRunner
    from rewright.backends.tensorrt.segment import Segment
    from rewright.ir.graph import Graph, Node
    from rewright.passes.partition.backend import SegmentBackend

_LOG: Final = logging.getLogger("rewright.tensorrt")


@attrs.frozen
class Target:
    """What a program is compiled for.

    Attributes:
        choice: the TensorRT that was chosen; None where only Torch runs the program.
    """

    choice: Choice | None = None

    @property
    def backends(self) -> Mapping[str, SegmentBackend]:
        """The backends that take segments, by name."""
        if self.choice is None or self.choice.library is None:
            return {}
        from rewright.backends.tensorrt.segment import TensorRT

        backend = TensorRT(self.choice.library)
        return {backend.name: backend}

    def attach(self, graph: Graph, settings: Settings) -> dict[Node, Segment]:
        """What TensorRT is to make of its segments of `graph`."""
        if self.choice is None or self.choice.library is None:
            return {}
        from rewright.backends.tensorrt.segment import NAME, Segment

        library, options = self.choice.library, _options(settings, self.choice)
        load = partial(_load, budget=settings.engine_weight_budget)
        return {
            node: Segment.of(node, library, options, load, settings.on_engine_error)
            for node in segments_of(graph)
            if node.attributes["backend"] == NAME
        }


def resolved(settings: Settings, device: str) -> Settings:
    """`settings` with the target that theirs stands for on `device`: 'auto' follows the GPU.

    With 'auto', a program on a GPU that an installed TensorRT supports gets engines, by the first
    of TensorRT for RTX and TensorRT that does; any other program runs in Torch. The log says in
    one line which, and why.

    Raises:
        SettingsError: a setting is about engines, and there are to be none.
        EngineError: the TensorRT that the target names can't be used.
    """
    made = settings
    gpu = _capability(device)
    if settings.uses_tensorrt or (settings.target == "auto" and gpu is not None):
        from rewright.backends.tensorrt.library import choose

        choice = choose(settings.target, gpu)
        if choice.library is not None and not settings.uses_tensorrt:
            built = ",".join(f"{major}.{minor}" for major, minor in choice.capabilities)
            flavor = choice.library.flavor
            made = attrs.evolve(settings, target=f"{flavor}:{built}" if built else flavor)
    else:
        words = "'rtx' and 'tensorrt' build engines, and 'auto' where the device is a GPU of theirs"
        _LOG.info("target %r on %s: no TensorRT: %s", settings.target, device, words)
    made.check_engines()
    return made


def _capability(device: str) -> tuple[int, int] | None:
    """The compute capability of `device`; None where it is no GPU of this machine."""
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(device)


def target_of(settings: Settings) -> Target:
    """The target that settings name, which are :func:`resolved`.

    Raises:
        SettingsError: there is no such target, or it has not what another setting asks for.
        EngineError: the TensorRT that it needs is missing, broken or too old.
    """
    if not settings.uses_tensorrt:
        return Target()
    from rewright.backends.tensorrt.library import choice_for
    from rewright.backends.tensorrt.options import check_options

    choice = choice_for(settings.target, None)
    if choice.library is not None:
        check_options(_options(settings, choice), choice.library)
    return Target(choice)


def _options(settings: Settings, choice: Choice) -> BuildOptions:
    from rewright.backends.tensorrt.options import BuildOptions

    return BuildOptions(
        capabilities=choice.capabilities,
        optimization_level=settings.engine_optimization_level,
        workspace=settings.engine_workspace,
        weight_streaming=settings.engine_weight_budget is not None,
        refit=settings.engine_refit,
        version_compatible=settings.engine_version_compatible,
        hardware_compatible=settings.engine_hardware_compatible,
        timing_cache=settings.engine_timing_cache,
    )


def _load(
    engine: Engine,
    library: Library,
    name: str,
    weights: Mapping[str, Tensor] | None = None,
    /,
    *,
    budget: int | None = None,
) -> EngineRunner:
    """Makes an engine run here.

    Raises:
        EngineError: it can't; says why.
    """
    import torch

    from rewright.backends.tensorrt.runtime import RunOptions, load_runner

    if not torch.cuda.is_available():
        raise EngineError(
            "torch finds no CUDA device here",
            hint="the engine runs on a machine that has one",
        )
    options = RunOptions(weight_budget=budget)
    return load_runner(engine, library, options, name=name, weights=weights)
