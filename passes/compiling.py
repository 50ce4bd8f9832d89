"""The passes of one compile: which pipeline, watched by which instruments.

Settings and the environment ask for instruments; a setting wins over a variable.

=======================  ===============  ====================================================
variable                 setting          value
=======================  ===============  ====================================================
``REWRIGHT_DUMP``        ``dump_ir``      ``all:DIR``, ``changed:DIR``, ``cse,fuse:DIR``; no DIR
                                          means standard error
``REWRIGHT_NUMERICS``    ``numerics``     ``1``, or a tolerance like ``1e-3``
``REWRIGHT_REPRODUCER``  ``reproducer``   a folder
``REWRIGHT_VERIFY``      ``verify_each``  ``1``
``REWRIGHT_TIMING``      ``timing``       ``1``
``REWRIGHT_BISECT``                       ``12``, ``12.5``: see ``rewright bisect``
=======================  ===============  ====================================================
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs
import torch

from rewright.errors import InputError, SettingsError
from rewright.ir.binding import bind_symbols
from rewright.ir.graph import Graph
from rewright.passes.fusion import FuseConvRelu
from rewright.passes.instruments import bisect
from rewright.passes.instruments.bisect import Bisect
from rewright.passes.instruments.dump import Dump, DumpSpec
from rewright.passes.instruments.numerics import Numerics, fitting_samples
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.instruments.reproducer import Reproducer
from rewright.passes.instruments.samples import Samples
from rewright.passes.instruments.timing import Timing
from rewright.passes.instruments.verify import VerifyEach
from rewright.passes.layout.channels_last import ChannelsLast
from rewright.passes.manager import Pipeline
from rewright.passes.partition.backend import SegmentBackend
from rewright.passes.partition.partition import Partition
from rewright.passes.partition.rest import OutlineTorch
from rewright.passes.pipelines import default_pipeline
from rewright.passes.precision.placing import with_precision
from rewright.passes.precision.truncate_double import with_truncation
from rewright.passes.registry import DEFAULT
from rewright.passes.reinplace.reinplace import Reinplace
from rewright.passes.rule import Exactness
from rewright.settings import Settings

_log: Final = logging.getLogger(__name__)


def run_pipeline(
    graph: Graph,
    settings: Settings,
    inputs: Sequence[Any] | None = None,
    backends: Mapping[str, SegmentBackend] = MappingProxyType({}),
) -> PassRun:
    """Runs the passes of a compile on `graph`, in place.

    Args:
        graph: a whole program, as a frontend gives it.
        settings: say which pipeline, and what watches it.
        inputs: example inputs of the graph, in its order, if there are some: what the instrument
            `numerics` runs it on.
        backends: those that the program is partitioned for, by name, the preferred one first.

    Returns:
        What was done; passes leave reports in it.

    Raises:
        PassError: a pass failed.
        ParseError: the setting `pipeline` is no pipeline.
        SettingsError: a setting or an environment variable is not right.
    """
    pipeline = pipeline_of(settings, backends)
    watch = Watch.of(settings, os.environ)
    return pipeline.run(
        graph,
        instruments=watch.instruments(graph, _usable(graph, inputs)) if watch != NOTHING else (),
        exactness=exactness_called(settings.exactness),
        backends=backends,
    )


def pipeline_of(settings: Settings, backends: Collection[str] = ()) -> Pipeline:
    """The pipeline of a compile. In the text of one, ``default`` stands for ours.

    Where the setting `precision` is given, it has that pass, too. Where there are `backends`, it
    ends in a partition, unless it has one already, and where Inductor runs the rest, that is
    outlined for it. Where it has ``reinplace``, that comes after all else.

    Raises:
        ParseError: the setting `pipeline` is no pipeline.
    """
    pipeline = with_precision(_chosen(settings, bool(backends)), settings)
    pipeline = with_truncation(pipeline, settings)
    if backends:
        pipeline = _partitioned(pipeline, settings, backends)
        has_rest = any(isinstance(step, OutlineTorch) for step in pipeline.passes())
        if settings.torch_backend == "inductor" and not has_rest:
            pipeline = pipeline.append(OutlineTorch())
    if any(isinstance(step, Reinplace) for step in pipeline.passes()):
        return pipeline.remove(Reinplace).append(Reinplace())  # nothing may move behind its back
    return pipeline


def _partitioned(pipeline: Pipeline, settings: Settings, backends: Collection[str]) -> Pipeline:
    stated = {option: getattr(settings, name) for name, option in _PARTITION.items()}
    if not any(isinstance(step, Partition) for step in pipeline.passes()):
        return pipeline.append(Partition(backends=tuple(backends), **stated))
    for name, option in _PARTITION.items():
        if stated[option] != getattr(Partition(), option):
            raise SettingsError(
                f"{name} is given, and so is a pipeline with a partition of its own",
                setting=name,
                hint=f"write partition{{{option}=...}} in the pipeline",
            )
    return pipeline


_PARTITION: Final = {
    "min_block_size": "min_block_size",
    "torch_executed_ops": "torch_ops",
    "torch_executed_modules": "torch_modules",
    "torch_executed_nodes": "torch_nodes",
    "require_full_compilation": "require_full",
}
"""The settings that are options of the pass `partition`, and the options."""


def _chosen(settings: Settings, has_engines: bool) -> Pipeline:
    ours = default_pipeline("tensorrt" if has_engines else "torch", settings.optimization_level)
    kinds = {type(step) for step in ours.passes()}
    by_inductor = settings.torch_backend == "inductor"  # it orders memory itself, inside
    if by_inductor and Reinplace in kinds:
        ours = ours.remove(Reinplace)
    if FuseConvRelu in kinds and "conv-relu" in settings.disabled_kernels:
        ours = ours.remove(FuseConvRelu)
    if ChannelsLast in kinds:
        depthwise = "depthwise" not in settings.disabled_kernels
        ours = ours.replace(ChannelsLast, ChannelsLast(edges=by_inductor, depthwise=depthwise))
    if settings.pipeline is None:
        return ours
    if isinstance(settings.pipeline, str):
        return Pipeline.parse(settings.pipeline, {DEFAULT: ours})
    if isinstance(settings.pipeline, Pipeline):
        return settings.pipeline
    raise SettingsError(
        f"the setting 'pipeline' is a {type(settings.pipeline).__name__}",
        setting="pipeline",
        hint="give a rewright.passes.Pipeline or its text",
    )


def exactness_called(word: str) -> Exactness:
    """The exactness that the word ``exact``, ``refold`` or ``fast-math`` stands for."""
    return Exactness[word.upper().replace("-", "_")]


# --------------------------------------------------------------------------- what watches


@attrs.frozen
class Watch:
    """What is to be watched.

    Attributes:
        dump: what to show of the graph.
        reproduce: whether to write what a failing pass was given.
        folder: where to; None for a new temporary folder.
        verify_each: whether to verify after each pass.
        numerics: whether to compare numbers after each pass.
        tolerance: how far they may move; None for the dtype's own.
        timing: whether to print where the time went.
        bisect: stops somewhere.
        target: what the program is compiled for, where that has backends.
    """

    dump: DumpSpec | None = None
    reproduce: bool = False
    folder: Path | None = None
    verify_each: bool = False
    numerics: bool = False
    tolerance: float | None = None
    timing: bool = False
    bisect: Bisect | None = None
    target: str | None = attrs.field(default=None, eq=False)

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> Watch:
        """What settings and environment variables ask for.

        Raises:
            SettingsError: one of them is not right.
        """
        _warn_of_misspelled(environment)
        dump = settings.dump_ir or environment.get("REWRIGHT_DUMP")
        source = "dump_ir" if settings.dump_ir else "REWRIGHT_DUMP"
        numerics = settings.numerics or _tolerance(environment)
        folder = settings.reproducer or environment.get("REWRIGHT_REPRODUCER")
        limit = environment.get(bisect.VARIABLE)
        spec = DumpSpec.parse(dump, source=source) if dump else None
        if folder is None and spec is not None and spec.folder is not None:
            folder = str(spec.folder)
        return cls(
            dump=spec,
            reproduce=bool(folder or numerics),
            folder=Path(folder).expanduser() if folder else None,
            verify_each=settings.verify_each or _flag(environment, "REWRIGHT_VERIFY"),
            numerics=numerics is not False,
            tolerance=None if isinstance(numerics, bool) else numerics,
            timing=settings.timing or _flag(environment, "REWRIGHT_TIMING"),
            bisect=bisect.from_environment(limit) if limit else None,
            target=settings.target if settings.uses_tensorrt else None,
        )

    def instruments(self, graph: Graph, samples: Samples | None) -> list[Instrument]:
        """The instruments, in an order in which the graph is shown before it is judged.

        Args:
            graph: what the passes are going to run on.
            samples: inputs to run it on; drawn to fit it where numbers are compared and there
                are none.
        """
        if self.numerics and samples is None:
            samples = fitting_samples(graph)
        made: list[Instrument] = []
        if self.bisect is not None:
            made.append(self.bisect)
        if self.dump is not None:
            made.append(Dump(self.dump, samples))
        if self.reproduce:
            made.append(Reproducer(self.folder, self.flags(), samples))
        if self.verify_each:
            made.append(VerifyEach())
        if self.numerics:
            made.append(Numerics(samples, self.tolerance))
        if self.timing:
            made.append(Timing())
        return made

    def flags(self) -> list[str]:
        """The arguments of ``rewright opt`` that ask for the same judges."""
        flags = ["--verify-each"] if self.verify_each else []
        if self.target is not None:
            flags += ["--target", self.target]
        if self.numerics:
            flags.append("--numerics")
        if self.numerics and self.tolerance is not None:
            flags += ["--tolerance", str(self.tolerance)]
        return flags


NOTHING: Final = Watch()

_FLAGS: Final = {"1": True, "true": True, "0": False, "false": False, "": False}


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "")
    if value.lower() not in _FLAGS:
        raise SettingsError(
            f"{name} is {value!r}", setting=name, hint="set it to 1, or leave it out"
        )
    return _FLAGS[value.lower()]


_VARIABLES: Final = (
    "DUMP", "VERIFY", "TIMING", "NUMERICS", "REPRODUCER", "BISECT", "CACHE_DIR", "CACHE_SIZE",
)  # fmt: skip
"""The environment variables that there are, without their ``REWRIGHT_``."""


def _warn_of_misspelled(environment: Mapping[str, str]) -> None:
    """Says in the log which variables look like ours and are not read."""
    for name in environment:
        stem = name.removeprefix("REWRIGHT_")
        if stem == name or stem in _VARIABLES:
            continue
        for meant in difflib.get_close_matches(stem, _VARIABLES, n=1, cutoff=0.75):
            text = "the environment variable %s is not read: did you mean REWRIGHT_%s?"
            _log.warning(text, name, meant)


def _tolerance(environment: Mapping[str, str]) -> bool | float:
    value = environment.get("REWRIGHT_NUMERICS", "")
    if value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    try:
        return float(value)
    except ValueError:
        raise SettingsError(
            f"REWRIGHT_NUMERICS is {value!r}",
            setting="REWRIGHT_NUMERICS",
            hint="set it to 1, or to a tolerance like 1e-3",
        ) from None


def _usable(graph: Graph, inputs: Sequence[Any] | None) -> Samples | None:
    """`inputs` on the graph's device, if they fit it (ranges may be narrower than examples)."""
    if inputs is None:
        return None
    placed = [i.to(graph.device) if isinstance(i, torch.Tensor) else i for i in inputs]
    try:
        bind_symbols(graph, placed)
    except InputError as error:
        _log.info("the example inputs are not used: %s", error)
        return None
    return Samples.given(graph, placed, "the example inputs")
