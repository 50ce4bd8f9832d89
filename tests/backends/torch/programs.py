"""Programs from text, for the tests of this folder."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import rewright
from rewright.compiler import compile_graph
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.ir.signature import Argument, Signature
from rewright.program import CompiledProgram
from rewright.settings import Settings


def random_data(graph: Graph) -> None:
    """Gives every source of a parsed graph data."""
    for constant in graph.constants.values():
        if constant.is_source:
            shape = tuple(constant.type.shape)
            constant.data = torch.randn(shape).to(constant.type.dtype)


def flat_signature(graph: Graph, late: tuple[str, ...] = ()) -> Signature:
    """Flat arguments: the inputs of the graph, then the sources called `late`."""
    arguments = [Argument(value.hint, input=at) for at, value in enumerate(graph.inputs)]
    return Signature((*arguments, *(Argument(name, constant=name) for name in late)))


def program(
    text: str,
    constants: Mapping[str, Tensor] | None = None,
    *,
    late: tuple[str, ...] = (),
    backend: str = "eager",
    optimization_level: int = 0,
    **options: Any,
) -> CompiledProgram:
    """The program of a graph's text, and that something was compiled.

    Args:
        text: of the graph.
        constants: the data of sources; random by default.
        late: the sources that are arguments.
        backend: the level.
        optimization_level: of the passes; 0 leaves to the backend what it is given.
        options: of Inductor.
    """
    graph = parse_graph(text)
    random_data(graph)
    for name, data in (constants or {}).items():
        graph.constants[name].data = data
    for name in late:
        graph.constants[name].data = None
    settings = Settings(
        torch_backend=backend, optimization_level=optimization_level, inductor_options=options
    )
    before = rewright.stats()
    made = compile_graph(graph, flat_signature(graph, late), settings)
    done = rewright.stats() - before
    assert (done.graphs, done.nodes, done.segments, done.fallbacks) == (
        1,
        sum(1 for _ in graph.walk()),
        1,
        0,
    )
    return made


def shares(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are in one memory."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
