"""What of a program goes into its artifact, and how many bytes each part has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from rewright.artifact.parts import Part
from rewright.backends.torch.liveness import plan
from rewright.backends.torch.prepare import recipe_sources
from rewright.ir.attributes import Opaque, leaves
from rewright.ir.graph import Constant, Graph, Node
from rewright.ir.ops import SEGMENT
from rewright.ir.printer import print_graph
from rewright.ir.types import OpaqueType, TensorType

TRUSTED: Final = frozenset(
    "aten prims rw higher_order quantized quantized_decomposed torchvision".split()
)
"""The namespaces of operators that compute, and do nothing else, when a program is called."""

BANNED: Final = frozenset(["aten.from_file"])
"""Operators among these that reach outside: a file."""

_FUNCTIONAL: Final = "rw.functional."


@attrs.frozen
class Kinds:
    """The constants of a program, by what they are for.

    Attributes:
        weights: the sources that a call reads.
        prepared: the prepared constants that a call reads.
        sources: the sources that only recipes read: without them a program runs, and can't be
            refitted.
        left_out: what only segments read, where these have no fallback.
    """

    weights: tuple[Constant, ...]
    prepared: tuple[Constant, ...]
    sources: tuple[Constant, ...]
    left_out: tuple[Constant, ...]

    def stored(self) -> Mapping[str, tuple[Constant, ...]]:
        """Those that are stored, by kind."""
        return {"weights": self.weights, "prepared": self.prepared, "sources": self.sources}


def kinds_of(graph: Graph, *, fallback: bool = True, sources: bool = True) -> Kinds:
    """How the constants of `graph` are stored.

    Args:
        graph: the graph of a program.
        fallback: whether its segments can run in Torch.
        sources: whether it is to be refitted.
    """
    read = plan(graph).constants
    left_out = () if fallback else tuple(c for c in read if not _is_read_by_torch(c))
    kept = [c for c in read if c not in left_out]
    only_prepared = [c for c in recipe_sources(graph) if c not in kept]
    return Kinds(
        tuple(c for c in kept if c.is_source),
        tuple(c for c in kept if not c.is_source),
        tuple(only_prepared) if sources and fallback else (),
        left_out,
    )


def _is_read_by_torch(constant: Constant) -> bool:
    graph = constant.graph
    return (
        constant in graph.targets
        or any(spec.alias is constant for spec in graph.results)
        or any(user.graph is graph and user.op is not SEGMENT for user in constant.users)
    )


def nodes_of(graph: Graph) -> list[Node]:
    """Every node of a program, those of regions and recipes too."""
    return [*graph.walk(), *(graph.prepare.walk() if graph.has_recipes else ())]


def opaque_part(graph: Graph) -> tuple[str, Node | None] | None:
    """What of a program has no text, and the node that holds it; None where all has."""
    for node in nodes_of(graph):
        for leaf in (leaf for item in node.attributes.values() for leaf in leaves(item)):
            if isinstance(leaf, Opaque):
                return f"{node.op.name} takes a Python object ({leaf.label})", node
    for value in graph.inputs:
        if isinstance(value.type, OpaqueType):
            return f"the input {value.hint} is a Python object ({value.type})", None
    return None


def op_names(graph: Graph) -> list[str]:
    """The operators that a program mentions, by the names of those that compute."""
    names = {node.op.name for node in nodes_of(graph)}
    names |= {step.op.name for spec in graph.results for step in spec.views}
    return sorted(name.removeprefix(_FUNCTIONAL) for name in names)


def parts_of(graph: Graph, kinds: Kinds, engines: Iterable[int]) -> dict[str, Part]:
    """How much there is of each of :data:`~rewright.artifact.parts.PARTS`.

    Args:
        graph: the graph of a program.
        kinds: its constants.
        engines: the bytes of each of its engines.
    """
    known = [*engines]
    tensors = {**kinds.stored(), "left_out": kinds.left_out}
    return {
        **{kind: Part(len(found), _bytes_of(found)) for kind, found in tensors.items()},
        "engines": Part(len(known), sum(known)),
        "graph": Part(sum(1 for _ in graph.walk()), len(text_of(graph))),
    }


def text_of(graph: Graph) -> bytes:
    """The graph as it stands in a file."""
    return f"{print_graph(graph)}\n".encode()


def held_kinds(graph: Graph, *, fallback: bool = True) -> Kinds:
    """The constants of a program, without the sources that its file did not have.

    Just in time nothing has data: weights come with each call.
    """
    kinds = kinds_of(graph, fallback=fallback)
    if all(constant.data is None for constant in graph.constants.values()):
        return kinds
    held = tuple(c for c in kinds.sources if c.data is not None and not c.data.is_meta)
    return attrs.evolve(kinds, sources=held)


def _bytes_of(constants: tuple[Constant, ...]) -> int:
    types = (constant.type for constant in constants)
    return sum(int(t.nbytes) for t in types if isinstance(t, TensorType) and t.is_static)
