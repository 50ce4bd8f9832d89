"""A compiled program built again from its graph: elsewhere, or with weights of its own."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from rewright.backends.torch.build import build
from rewright.backends.torch.prepare import lacks_sources, prepared_now
from rewright.frontends.jit_call import OverlapCheck
from rewright.ir.retarget import retargeted


def moved(program: Any, device: str, *, copies: bool = False) -> Any:
    """A program that computes the same on `device`. No pass runs; engines are had as in a compile.

    Args:
        program: a CompiledProgram.
        device: ``cpu``, ``cuda:0``.
        copies: whether its weights are copies even where they are there already.

    Raises:
        SettingsError: the program's target has no such device.
        EngineError: an engine can't be built, or can't run there and must.
    """
    with torch.inference_mode(False), torch.no_grad():
        return _moved(program, device, copies)


def _moved(program: Any, device: str, copies: bool) -> Any:
    from rewright.targets import target_of

    graph = retargeted(program.graph, device)
    if copies:
        for constant in graph.constants.values():
            if constant.data is not None:
                constant.data = constant.data.clone()
    settings = attrs.evolve(program.settings, device=device)
    signature = program.signature
    attached = target_of(settings).attach(graph, settings)
    overlap = OverlapCheck.of_signature(graph, signature)
    inspect = overlap.refuse if overlap is not None else None
    # Without sources, what was prepared of them is there, and comes along.
    prepared = prepared_now(graph) if lacks_sources(graph) else None
    built = build(graph, signature, settings, inspect, attached, prepared=prepared)
    segments = tuple(attached.values())
    return type(program)(
        graph, signature, settings, built, segments, program.partition, program.precision
    )
