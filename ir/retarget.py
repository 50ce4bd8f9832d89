"""A program moved to another device: its values, its constants and the devices it names."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from rewright.ir.graph import Constant, Graph
from rewright.ir.types import TensorType, Type


def retargeted(graph: Graph, device: str) -> Graph:
    """A copy of `graph` that runs on `device`, its sources copied there where they must be.

    What lives on the program's own device moves; what lives elsewhere stays there.

    Args:
        graph: a whole program.
        device: ``cpu``, ``cuda:0``.
    """
    moved, old = graph.copy(), torch.device(graph.device)
    retarget(moved, device)
    for constant in moved.constants.values():
        _take_along(constant, old, torch.device(device))
    return moved


def retarget(graph: Graph, device: str) -> None:
    """Makes `graph` a program for `device`, in place; the data of constants is not touched."""
    home = torch.device(graph.device)
    if device == graph.device:
        return

    def put(leaf: Any) -> Any:
        at_home = isinstance(leaf, torch.device) and leaf == home
        return torch.device(device) if at_home else leaf

    pending = [graph, *((graph.prepare,) if graph.has_recipes else ())]
    while pending:
        part = pending.pop()
        part.device = device
        for value in (*part.inputs, *part.constants.values()):
            value.type = _at_home(value.type, device)
        for node in part:
            node.attributes = node.attributes.map(put)
            for value in node.results:
                value.type = _at_home(value.type, device)
            pending += node.regions
    graph.results = tuple(
        attrs.evolve(
            spec,
            views=tuple(attrs.evolve(v, attributes=v.attributes.map(put)) for v in spec.views),
        )
        for spec in graph.results
    )
    graph._touch()


def _at_home(found: Type, device: str) -> Type:
    """Another device than the program's is said; what was at home, or is now, is not."""
    if isinstance(found, TensorType) and found.device == device:
        return attrs.evolve(found, device=None)
    return found


def _take_along(constant: Constant, old: torch.device, new: torch.device) -> None:
    data = constant.data
    elsewhere = isinstance(constant.type, TensorType) and constant.type.device is not None
    if data is not None and data.device == old and not elsewhere:
        constant.data = data.to(new)
