"""The JIT frontend: the backend that ``torch.compile(model, backend="rewright")`` calls.

Torch finds :func:`rewright_backend` by its entry point; nothing has to be imported. Dynamo
traces the user's Python, guards it and hands a graph over for each stretch between breaks. Here
that graph is retraced to ATen level with composite operators whole (AOTAutograd, which would
take them apart, isn't used), imported and compiled.

What Dynamo can't trace never comes here, so that error is Dynamo's own: an operator without a
fake implementation and, under ``fullgraph=True``, sparse and strided nested tensors. Without
``fullgraph`` such tensors break the graph, and what takes them runs in eager mode.

A compiled graph serves several instances of a module: its parameters are inputs, bound to the
program's sources at every call.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.fx

from rewright.caller import warn
from rewright.errors import DetachedWarning, EngineError, RewrightError, SettingsError
from rewright.frontends.autocast import OFF, ambient_autocast, autocast_set_to, resolve_autocast
from rewright.frontends.compat import outside_dynamo, raise_through_dynamo, retrace
from rewright.frontends.importer import import_fx
from rewright.frontends.jit_call import JitCall, OverlapCheck, as_ours, warn_of_eager
from rewright.frontends.jit_inputs import (
    JitInput,
    describe_inputs,
    placeholders_of,
    refuse_gradients,
    refuse_unsupported,
    signature_of,
)
from rewright.frontends.symbols import SymbolTable
from rewright.frontends.transforms import flatten_transforms, refuse_gradient_transforms
from rewright.ir.graph import Graph
from rewright.settings import Settings

_log: Final = logging.getLogger(__name__)

_LEAST_DYNAMIC: Final = 2
"""Dynamo compiles sizes 0 and 1 apart: a symbol of its graphs is at least this."""


def rewright_backend(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compiles one graph of Dynamo's; what ``torch.compile(backend="rewright")`` calls.

    Args:
        gm: the graph, at the level of torch functions.
        example_inputs: its flat inputs: tensors, parameters and buffers among them, and
            symbolic sizes.
        mode: of torch.compile: see :meth:`Settings.from_mode`.
        options: of torch.compile: settings by name.

    Returns:
        A function of the flat inputs that returns the flat outputs. Where the graph can't be
        compiled and ``on_error="eager"``, it is the graph itself, after one warning.

    Raises:
        SettingsError: `mode` or `options` are not right.
        RewrightError: with ``on_error="raise"``, why the graph can't be compiled.
    """
    frame = sys._getframe()
    try:
        settings = _settings(mode, options)
    except SettingsError as error:
        raise_through_dynamo(error, frame)
    try:
        return _compile(gm, example_inputs, settings)
    except Exception as error:
        _log.debug("a graph failed to compile", exc_info=True)
        failure = as_ours(error)
    if isinstance(failure, SettingsError) or not _falls_back(settings, failure):
        raise_through_dynamo(failure, frame)
    warn_of_eager(failure)
    return gm.forward


def _settings(mode: str | None, options: Mapping[str, Any] | None) -> Settings:
    if mode and options:
        raise SettingsError(
            "mode and options are both given",
            setting="mode",
            hint="a mode stands for some options: give them all as options",
        )
    return Settings.from_mode(mode) if mode else Settings.from_options(options or {})


def _falls_back(settings: Settings, failure: RewrightError) -> bool:
    """Whether a graph that can't be compiled runs in eager mode."""
    names = ("on_error", "on_engine_error") if isinstance(failure, EngineError) else ("on_error",)
    return all(getattr(settings, name) != "raise" for name in names)


def _compile(
    gm: torch.fx.GraphModule, example_inputs: Sequence[Any], settings: Settings
) -> Callable[..., Any]:
    from rewright.compiler import compile_graph

    inputs = describe_inputs(gm, example_inputs)
    refuse_unsupported(inputs, example_inputs)
    if _runs_with_grad(gm) and (trainable := refuse_gradients(inputs, example_inputs)):
        _warn_detached(trainable)
    refuse_gradient_transforms(gm.graph.nodes)
    around = ambient_autocast()  # Dynamo guards it
    retraced = retrace(gm, example_inputs)
    with outside_dynamo(), torch.no_grad(), autocast_set_to(OFF):
        module = flatten_transforms(resolve_autocast(retraced.module, around))
        floats = _unwrap_floats(module, inputs)
        graph = import_fx(
            module,
            placeholders_of(inputs),
            symbols=SymbolTable(retraced.ranges, retraced.hints, _LEAST_DYNAMIC),
        )
        _check_device(graph, settings)
        overlap = OverlapCheck.of(graph, inputs)
        program = compile_graph(graph, signature_of(inputs), settings)
    # Engines are built when parameters first come, and may fail then.
    is_made_late = bool(program.segments) and _falls_back(settings, EngineError(""))
    if overlap is None and not floats and not is_made_late:
        return program
    eager = gm.forward if overlap is not None or is_made_late else None
    return JitCall(program, floats, overlap, eager, settings.on_error)


def _unwrap_floats(module: torch.fx.GraphModule, inputs: Sequence[JitInput]) -> tuple[int, ...]:
    """Makes numbers of the floats that Dynamo passes as tensors; returns which ones.

    Such a tensor is only ever asked for its ``item()``, which becomes the input itself.
    """
    made = []
    for index, node in enumerate(module.graph.find_nodes(op="placeholder")):
        items = list(node.users)
        if not inputs[index].wrapped_float or not items or not all(map(_is_item, items)):
            continue
        node.meta["val"] = items[0].meta["val"]
        for item in items:
            item.replace_all_uses_with(node)
            module.graph.erase_node(item)
        made.append(index)
    return tuple(made)


def _is_item(node: torch.fx.Node) -> bool:
    return node.target is torch.ops.aten.item.default


def _check_device(graph: Graph, settings: Settings) -> None:
    """Refuses a device that is not the one that the model is on."""
    wanted = torch.device(settings.device) if settings.device else None
    found = torch.device(graph.device)
    if wanted is None or wanted == found or (wanted.index is None and wanted.type == found.type):
        return
    raise SettingsError(
        f"device is {settings.device!r}, but the model and its inputs are on {graph.device}",
        setting="device",
        hint=f"move them with .to({settings.device!r}): torch.compile runs where the tensors are",
    )


# --------------------------------------------------------------------------- gradients

_warned: Final = threading.Event()


def _runs_with_grad(gm: torch.fx.GraphModule) -> bool:
    """Whether an operator of the graph runs with gradients enabled."""
    enabled = torch.is_grad_enabled()
    for node in gm.graph.nodes:
        if node.target is torch._C._set_grad_enabled:
            enabled = bool(node.args[0])
        elif enabled and node.op.startswith("call_"):
            return True
    return False


def _warn_detached(trainable: Sequence[str]) -> None:
    if _warned.is_set():
        return
    _warned.set()
    more = f" and {len(trainable) - 1} more" if len(trainable) > 1 else ""
    warn(
        f"the parameter {trainable[0]}{more} can be trained, but Rewright compiles inference: "
        "outputs are detached, and no gradient flows back. Call the model under "
        "torch.no_grad() or torch.inference_mode(), or freeze it with model.requires_grad_(False)",
        DetachedWarning,
    )
