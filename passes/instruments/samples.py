"""Inputs to run a graph on: what a user gave, or drawn to fit its types, ranges and tables.

Integers that index something (token ids into an embedding, positions, classes) are drawn within
it: which inputs these are is read off the graph, by following indices back through ops that only
move or cast them.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import attrs
import sympy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rewright.errors import ArtifactError, InputError
from rewright.ir.attributes import Operand
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.ops import Trait
from rewright.ir.sizes import Dim, Range, evaluate, free_symbols
from rewright.ir.types import NoneType, ScalarType, TensorType

PathLike: TypeAlias = "str | os.PathLike[str]"

SHARED_SAMPLES: Final = "samples.safetensors"
"""The file with the inputs that the graphs of a folder share."""

_SIZE: Final = 4
"""A size that nothing is known of."""


@attrs.frozen
class Samples:
    """One set of inputs of a graph.

    Attributes:
        inputs: a tensor, number or None for each input, in order.
        constants: the data of sources that have none of their own, by name.
        origin: where they come from, for messages.
    """

    inputs: tuple[Any, ...]
    constants: Mapping[str, torch.Tensor] = attrs.field(factory=dict)
    origin: str = "the given inputs"

    @classmethod
    def given(
        cls, graph: Graph, inputs: Sequence[Any], origin: str = "the given inputs"
    ) -> Samples:
        """Inputs that somebody gave, and drawn data for sources that have none."""
        return cls(tuple(inputs), random_constants(graph, {}, {}), origin)


# --------------------------------------------------------------------------- files


def save_samples(samples: Samples, path: PathLike) -> None:
    """Writes the inputs to a file. What is no tensor or number can't be stored, and is left out."""
    tensors = {
        str(at): item.detach().cpu().contiguous().clone()
        for at, item in enumerate(samples.inputs)
        if isinstance(item, torch.Tensor)
    }
    others = {
        str(at): item
        for at, item in enumerate(samples.inputs)
        if isinstance(item, bool | int | float | None)
    }
    count = len(samples.inputs)
    metadata = {"count": str(count), "others": json.dumps(others), "origin": samples.origin}
    save_file(tensors, path, metadata=metadata)


def load_samples(path: PathLike, graph: Graph) -> Samples:
    """The inputs in a file that :func:`save_samples` wrote, for `graph`.

    Raises:
        ArtifactError: the file can't be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found: dict[str, Any] = {**json.loads(metadata["others"]), **tensors}
        inputs = [found.get(str(at)) for at in range(int(metadata["count"]))]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"the inputs can't be read: {type(error).__name__}: {error}",
            path=path,
            hint="a dump has them as samples.safetensors",
        ) from None
    placed = [item.to(graph.device) if isinstance(item, torch.Tensor) else item for item in inputs]
    return Samples.given(graph, placed, metadata.get("origin", str(path)))


def find_samples(path: PathLike, graph: Graph) -> Samples | None:
    """The inputs kept beside the graph in `path`: its own, or those of its folder."""
    text = Path(path)
    own = text.with_name(f"{text.name.removesuffix('.ir')}.samples.safetensors")
    for candidate in (own, text.with_name(SHARED_SAMPLES)):
        if candidate.exists():
            return load_samples(candidate, graph)
    return None


# --------------------------------------------------------------------------- drawing


def random_samples(
    graph: Graph, *, seed: int = 0, sizes: Mapping[sympy.Symbol, int] = MappingProxyType({})
) -> Samples:
    """Inputs drawn to fit the types, ranges and tables of `graph`.

    Args:
        graph: a whole program.
        seed: of the random numbers.
        sizes: what symbols are to be; others are as their ranges say is typical.

    Raises:
        InputError: an input is an object that can't be drawn.
    """
    sizes = {
        symbol: sizes.get(symbol, _typical(info.ranges))
        for symbol, info in graph.symbols.items()
        if info.binding.producer is None
    }
    limits = index_limits(graph, sizes)
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(_draw_input(value, sizes, limits, graph, generator) for value in graph.inputs)
    return Samples(inputs, random_constants(graph, sizes, limits), "random inputs")


def _typical(ranges: Sequence[Range]) -> int:
    if not ranges:
        return _SIZE
    first = ranges[0]
    if first.opt is not None:
        return first.opt
    least = _SIZE if first.min is None else max(first.min, _SIZE)
    return least if first.max is None else min(least, first.max)


def _draw_input(
    value: Value,
    sizes: Mapping[sympy.Symbol, int],
    limits: Mapping[Value, int],
    graph: Graph,
    generator: torch.Generator,
) -> Any:
    match value.type:
        case TensorType() as wanted:
            return _draw(wanted, sizes, limits.get(value), graph, generator)
        case ScalarType(kind, expr):
            number = 1 if expr is None else evaluate(expr, sizes)
            return {"int": int, "float": float, "bool": bool}[kind](number)
        case NoneType():
            return None
    raise InputError(
        f"the input {value.hint or value.index} is an {value.type}, which can't be drawn",
        name=value.hint,
        hint="give inputs to run the graph on",
    )


def _draw(
    wanted: TensorType,
    sizes: Mapping[sympy.Symbol, int],
    limit: int | None,
    graph: Graph,
    generator: torch.Generator,
) -> torch.Tensor:
    """A tensor of a type: normal numbers, indices below `limit`, masks that are mostly true."""
    shape = [int(evaluate(dim, sizes)) for dim in wanted.shape]
    if wanted.dtype is torch.bool:
        drawn = torch.rand(shape, generator=generator) < 0.9
    elif wanted.dtype.is_floating_point or wanted.dtype.is_complex:
        kind = torch.complex64 if wanted.dtype.is_complex else torch.float32
        drawn = torch.randn(shape, generator=generator, dtype=kind)
    else:
        # An integer that indexes nothing is a flag or a mask more often than not.
        drawn = torch.randint(0, max(2 if limit is None else limit, 1), shape, generator=generator)
    return drawn.to(wanted.dtype).to(wanted.device or graph.device)


def random_constants(
    graph: Graph, sizes: Mapping[sympy.Symbol, int], limits: Mapping[Value, int]
) -> dict[str, torch.Tensor]:
    """Data for the sources of `graph` that have none, by name; each by its own seed.

    Matrices get a variance of one over their last size, what is used as a bias or mean lies around
    zero, and other vectors around one, which suits scales and variances.
    """
    made = {}
    for name, constant in graph.constants.items():
        if not constant.is_source or constant.data is not None:
            continue
        assert isinstance(constant.type, TensorType)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = _draw(constant.type, sizes, limits.get(constant), graph, generator)
        if drawn.is_floating_point() and drawn.dim() > 1:
            drawn = (drawn.float() / math.sqrt(max(drawn.shape[-1], 1))).to(drawn.dtype)
        elif drawn.is_floating_point() and not _is_offset(constant):
            drawn = (1 + 0.1 * drawn.float().tanh()).to(drawn.dtype)
        made[name] = drawn
    return made


_OFFSETS: Final = ("bias", "running_mean")


def _is_offset(constant: Constant) -> bool:
    """Whether an op takes `constant` as its bias or mean."""
    return any(
        isinstance(item, Operand) and item.index == use.index
        for use in constant.uses
        for name, item in use.node.attributes.items()
        if name in _OFFSETS
    )


# --------------------------------------------------------------------------- indices

_INDEXING: Final[dict[str, tuple[str, str]]] = {
    "aten.embedding": ("indices", "weight"),
    "aten.index_select": ("index", "self"),
    "aten.gather": ("index", "self"),
    "aten.scatter.src": ("index", "self"),
    "aten.scatter.value": ("index", "self"),
    "aten.scatter_add": ("index", "self"),
    "aten.index_add": ("index", "self"),
    "aten.index_copy": ("index", "self"),
    "aten.take_along_dim": ("indices", "self"),
}
"""Ops that index: the parameters with the indices and with what they index, along `dim`."""

_LISTS: Final = ("aten.index.Tensor", "aten.index_put")
"""Ops that index dimension after dimension, by a list."""

_CASTS: Final = ("aten._to_copy", "aten.to.dtype", "aten.clamp", "aten.clamp_min")


def index_limits(graph: Graph, sizes: Mapping[sympy.Symbol, int]) -> dict[Value, int]:
    """Below which number the elements of a value must stay, for values that index something.

    Args:
        graph: a whole program.
        sizes: the numbers of its symbols.
    """
    limits: dict[Value, int] = {}

    def lower(value: Any, limit: Dim | None) -> None:
        if isinstance(value, Value) and limit is not None and free_symbols([limit]) <= sizes.keys():
            known = int(evaluate(limit, sizes))
            limits[value] = min(limits.get(value, known), known)

    for node in reversed(graph):
        for value, limit in _indexed(node):
            lower(value, limit)
        known = [limits[value] for value in node.results if value in limits]
        if known:
            for value, limit in _passed_on(node, min(known)):
                lower(value, limit)
    return limits


def _indexed(node: Node) -> list[tuple[Any, Dim | None]]:
    """The operands of `node` that are indices, each with the size of what they index."""
    name = node.op.name
    if name in _INDEXING:
        indices, table = (node.arg(parameter) for parameter in _INDEXING[name])
        has_dim = any(param.name == "dim" for param in node.op.params)
        return [(indices, _size_of(table, node.arg("dim") if has_dim else 0))]
    if name in _LISTS:
        table = node.arg("self")
        return [(item, _size_of(table, at)) for at, item in enumerate(node.arg("indices"))]
    if name == "aten.one_hot":
        return [(node.arg("self"), node.arg("num_classes"))]
    return []


def _size_of(table: Any, dim: Any) -> Dim | None:
    known = isinstance(table, Value) and isinstance(table.type, TensorType)
    if not known or not isinstance(dim, int) or not -table.type.rank <= dim < table.type.rank:
        return None
    size: Dim = table.type.shape[dim]
    return size


def _passed_on(node: Node, limit: int) -> list[tuple[Value, int]]:
    """What the operands of `node` must stay below for its results to stay below `limit`."""
    values = [value for value in node.operands if not _is_number_constant(value)]
    if node.op.has(Trait.MOVEMENT) or node.op.name in _CASTS:
        return [(value, limit) for value in values]
    if node.op.name == "aten.where.self":
        return [(value, limit) for value in values[1:]]
    if node.op.name == "aten.add.Tensor":
        other = node.attributes.get("other")
        if isinstance(other, int):
            return [(value, max(limit - max(other, 0), 1)) for value in values]
        return [(value, max((limit + 1) // 2, 1)) for value in values]
    return []


def _is_number_constant(value: Value) -> bool:
    return isinstance(value, Constant) and value.data is not None
