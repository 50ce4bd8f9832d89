"""The compile driver: verify a graph, run the passes, build what runs.

Frontends import (:mod:`rewright.frontends`), this module composes: everything that is compiled,
by either way in, goes through :func:`compile_graph`. One thread compiles at a time: torch's tracing
and Inductor are not made for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rewright.backends.torch.build import Inspect, build
from rewright.backends.torch.inductor import start_workers
from rewright.errors import SettingsError
from rewright.frontends.autocast import OFF, State, ambient_autocast, autocast_set_to
from rewright.frontends.compat import tracing_lock
from rewright.frontends.export import example_inputs, export, import_exported
from rewright.frontends.jit_call import OverlapCheck
from rewright.ir.graph import Graph
from rewright.ir.signature import Signature
from rewright.ir.verifier import verify
from rewright.passes.compiling import run_pipeline
from rewright.program import CompiledProgram
from rewright.settings import Settings
from rewright.statistics import record
from rewright.targets import resolved, target_of

if TYPE_CHECKING:
    import torch

__all__ = ["compile", "compile_exported", "compile_graph"]


def compile(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    inputs: Sequence[Any] | None = None,
    **settings: Any,
) -> CompiledProgram:
    """Exports and compiles a model; under autocast, with the casts that it makes.

    Args:
        model: a module in eval mode.
        args: example arguments.
        kwargs: example arguments by name.
        dynamic_shapes: as ``torch.export.export`` takes them.
        inputs: as :func:`compile_exported` takes them.
        settings: fields of :class:`~rewright.settings.Settings`, by name.

    Raises:
        SettingsError: a setting is unknown or illegal.
        CompileError: the model can't be compiled.
    """
    chosen = Settings.from_options(settings)
    with tracing_lock():
        exported = export(model, args, dict(kwargs or {}), dynamic_shapes)
    return _compile_exported(exported, inputs, chosen, ambient_autocast())


def compile_exported(
    exported_program: torch.export.ExportedProgram,
    inputs: Sequence[Any] | None = None,
    **settings: Any,
) -> CompiledProgram:
    """Compiles an exported program, which is not changed and whose weights are not copied.

    Args:
        exported_program: what ``torch.export.export`` returned.
        inputs: for each tensor argument a tensor or an :class:`~rewright.Input`, which give
            sizes their ranges; by default the ranges are the export's.
        settings: fields of :class:`~rewright.settings.Settings`, by name.

    Raises:
        SettingsError: a setting is unknown or illegal.
        InputError: `inputs` don't fit the program.
        CompileError: the program can't be compiled.
    """
    return _compile_exported(exported_program, inputs, Settings.from_options(settings))


def _compile_exported(
    exported: torch.export.ExportedProgram,
    inputs: Sequence[Any] | None,
    settings: Settings,
    around: State = OFF,
) -> CompiledProgram:
    _check_device(settings)
    with tracing_lock(), autocast_set_to(OFF):
        graph, signature = import_exported(exported, inputs, device=settings.device, around=around)
        examples = example_inputs(exported, signature, inputs)
        overlap = OverlapCheck.of_signature(graph, signature)
        inspect = overlap.refuse if overlap is not None else None
        return compile_graph(graph, signature, settings, examples, inspect=inspect)


def _check_device(settings: Settings) -> None:
    import torch

    if settings.device and settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(
            f"device is {settings.device!r}, but torch finds no CUDA device here",
            setting="device",
            hint="leave device out to run where the program was exported",
        )


def compile_graph(
    graph: Graph,
    signature: Signature,
    settings: Settings,
    examples: Sequence[Any] | None = None,
    *,
    inspect: Inspect | None = None,
) -> CompiledProgram:
    """Compiles a graph, which then belongs to the program.

    Args:
        graph: a whole program, as a frontend gives it.
        signature: how it is called.
        settings: how it is compiled.
        examples: inputs of the graph, where there are some, for passes that are being watched.
        inspect: is given the flat arguments of every call once they fit, and may raise.

    Raises:
        CompileError: it is not well formed, a pass failed, or the backend can't take it.
    """
    with tracing_lock():
        verify(graph)
        settings = resolved(settings, graph.device)
        if settings.torch_backend == "inductor":
            start_workers(graph.device)
        target = target_of(settings)
        run = run_pipeline(graph, settings, examples, target.backends)
        attached = target.attach(graph, settings)
        built = build(graph, signature, settings, inspect, attached)
    record(graphs=1, nodes=sum(1 for _ in graph.walk()), segments=len(attached) or 1)
    return CompiledProgram(
        graph,
        signature,
        settings,
        built,
        tuple(attached.values()),
        run.reports.get("partition"),
        run.reports.get("precision"),
    )
