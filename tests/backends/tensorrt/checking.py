"""How converters are checked: a real network, evaluated, against torch; and a real engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from rewright.backends.tensorrt.build import build_network
from rewright.backends.tensorrt.declaration import supports
from rewright.backends.tensorrt.emitter import Emitted, emit
from rewright.backends.tensorrt.library import Library, load
from rewright.backends.tensorrt.options import BuildOptions
from rewright.frontends.export import import_exported
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.testing import evaluate_network

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""The largest error against torch, of a result's largest number."""


@functools.cache
def rtx() -> Library:
    """TensorRT for RTX, or a skip where it is not installed."""
    pytest.importorskip("tensorrt_rtx")
    return load("rtx")


def import_function(
    function: Callable[..., Any], args: Sequence[Any], dynamic: Any = None
) -> Graph:
    """The graph of a function of tensors, in the form in which frontends give it."""

    class Module(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    shapes = None if dynamic is None else (tuple(dynamic),)
    exported = torch.export.export(
        Module().eval(), tuple(args), dynamic_shapes=shapes, strict=False
    )
    return import_exported(exported, None)[0]


def refusals(graph: Graph, library: Library) -> list[str]:
    """Why nodes of `graph` can't be in a network."""
    found = ((node, supports(node, library)) for node in graph)
    return [f"{node.op.name}: {refusal}" for node, refusal in found if refusal is not None]


def evaluate(emitted: Emitted, args: Sequence[Any]) -> list[torch.Tensor]:
    """The outputs of a network for the inputs of its graph."""
    given = dict(zip(emitted.graph.inputs, args, strict=True))
    inputs = {port.name: _tensor(given[port.value]) for port in emitted.inputs}
    outputs = evaluate_network(emitted.net.definition, inputs, emitted.net.weights)
    return [outputs[port.name] for port in emitted.outputs]


def _tensor(value: Any) -> torch.Tensor:
    return value.contiguous() if isinstance(value, torch.Tensor) else torch.tensor(value)


def assert_same(made: Sequence[torch.Tensor], expected: Sequence[Any], slack: float = 1.0) -> None:
    """Asserts equal numbers: exactly for integers and bools, else within the dtype's tolerance."""
    assert len(made) == len(expected)
    for ours, theirs in zip(made, expected, strict=True):
        theirs = torch.as_tensor(theirs)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if not theirs.dtype.is_floating_point:
            assert torch.equal(ours, theirs)
            continue
        bound = TOLERANCE[theirs.dtype] * slack
        finite = theirs[theirs.isfinite()].float().abs()
        scale = max(float(finite.max()) if finite.numel() else 1.0, 1.0)
        torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound * scale, equal_nan=True)


def check_graph(
    graph: Graph,
    calls: Sequence[Sequence[Any]],
    *,
    build: bool = True,
    constants: Mapping[str, torch.Tensor] | None = None,
    slack: float = 1.0,
) -> Emitted:
    """Asserts that the network of `graph` gives what the graph gives, in each call."""
    emitted = emit(graph, rtx(), constants)
    for args in calls:
        expected = interpret(graph, list(args)).outputs
        assert_same(evaluate(emitted, args), expected, slack)
    if build:
        engine = build_network(emitted, BuildOptions(optimization_level=0))
        assert len(engine.data) > 1000
    return emitted


def check(
    function: Callable[..., Any], *calls: Sequence[Any], dynamic: Any = None, build: bool = True,
    slack: float = 1.0,
) -> Emitted:  # fmt: skip
    """Asserts that a function of tensors is converted whole, and rightly in each call."""
    graph = import_function(function, calls[0], dynamic)
    assert refusals(graph, rtx()) == []
    return check_graph(graph, calls, build=build, slack=slack)
