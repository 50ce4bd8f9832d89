"""What torch's exporters want to know beside a module: examples, and which sizes vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sympy
import torch
from torch.export import Dim
from torch.utils._pytree import (
    BUILTIN_TYPES,
    SUPPORTED_NODES,
    GetAttrKey,
    MappingKey,
    TreeSpec,
    tree_structure,
    tree_unflatten,
)

from rewright.backends.torch.trees import children, class_of, is_leaf
from rewright.errors import InputError
from rewright.ir.fakes import example_sizes
from rewright.ir.graph import Graph
from rewright.ir.signature import Signature
from rewright.ir.sizes import evaluate, hull, is_true
from rewright.ir.trees import child_keys
from rewright.ir.types import ScalarType, TensorType, Type

_PLAIN: Final = (tuple, list, dict)
_NUMBERS: Final[Mapping[str, type]] = {"int": int, "float": float, "bool": bool}


def example_leaves(graph: Graph, signature: Signature) -> list[Any]:
    """Arguments of the right types, zeros at typical sizes, flat.

    Args:
        graph: a program.
        signature: how it is called.
    """
    ranges = {symbol: info.ranges for symbol, info in graph.symbols.items()}
    sizes = example_sizes(ranges, typical=True)
    leaves = []
    for argument in signature.arguments:
        if argument.input is None:
            leaves.append(argument.literal)
        else:
            leaves.append(_example(graph.inputs[argument.input].type, sizes, graph.device))
    return leaves


def _example(found: Type, sizes: Mapping[sympy.Symbol, int], device: str) -> Any:
    match found:
        case TensorType(dtype=dtype, shape=dims):
            shape = [int(evaluate(dim, sizes)) for dim in dims]
            return torch.zeros(shape, dtype=dtype, device=found.device or device)
        case ScalarType(kind, expr):
            value = 1 if expr is None else evaluate(expr, sizes)
            return _NUMBERS[kind](value)
    return None


def nested(signature: Signature, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`leaves` as the arguments of a call."""
    if signature.in_spec is None:
        return tuple(leaves), {}
    args, kwargs = tree_unflatten(list(leaves), signature.in_spec)
    return tuple(args), dict(kwargs)


def dynamic_leaves(graph: Graph, signature: Signature) -> list[Any] | None:
    """For every leaf of the arguments what ``torch.export.export`` wants to know of its sizes.

    None where no size varies. A size that isn't linear in one symbol is for torch to find out.
    """
    dims = _Dims(graph)
    leaves: list[Any] = []
    for argument in signature.arguments:
        found = None if argument.input is None else graph.inputs[argument.input].type
        match found:
            case TensorType(shape=shape):
                varying = {at: dims.of(dim) for at, dim in enumerate(shape) if _varies(dim)}
                leaves.append(varying or None)
            case ScalarType("int", expr) if expr is None or _varies(expr):
                leaves.append(Dim.DYNAMIC)
            case _:
                leaves.append(None)
    return leaves if any(leaf is not None for leaf in leaves) else None


def _varies(dim: Any) -> bool:
    return isinstance(dim, sympy.Basic)


class _Dims:
    """The ``Dim`` of each symbol, one for all places."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._made: dict[sympy.Symbol, Any] = {}

    def of(self, expr: Any) -> Any:
        """What says that a dimension is `expr`."""
        symbols = sorted(expr.free_symbols, key=str)
        if len(symbols) != 1 or not expr.is_polynomial(*symbols):
            return Dim.AUTO
        (symbol,) = symbols
        polynomial = sympy.Poly(expr, symbol)
        if polynomial.degree() != 1 or not is_true(polynomial.LC() > 0):
            return Dim.AUTO
        factor, rest = (int(c) for c in polynomial.all_coeffs())
        made = self._symbol(symbol)
        if factor != 1:
            made = factor * made
        return made + rest if rest else made

    def _symbol(self, symbol: sympy.Symbol) -> Any:
        if symbol not in self._made:
            known = hull(self.graph.symbols[symbol].ranges)
            self._made[symbol] = Dim(symbol.name, min=known.min or 0, max=known.max)
        return self._made[symbol]


def dynamic_shapes(graph: Graph, signature: Signature) -> tuple[Any, ...] | None:
    """What varies, nested as ``torch.export.export`` wants it: by argument, in order."""
    leaves = dynamic_leaves(graph, signature)
    if leaves is None:
        return None
    if signature.in_spec is None:
        return tuple(leaves)
    left = iter(leaves)
    args, kwargs = (_shapes(spec, left) for spec in children(signature.in_spec))
    return (*args, *kwargs.values())


def _shapes(spec: TreeSpec, leaves: Iterator[Any]) -> Any:
    """`leaves`, nested as torch wants the sizes of what is nested like `spec`.

    An object of a registered class is the list of its parts there: it could not be made of sizes.
    """
    if is_leaf(spec):
        return next(leaves)
    parts = [_shapes(child, leaves) for child in children(spec)]
    if spec.type in BUILTIN_TYPES:
        return SUPPORTED_NODES[spec.type].unflatten_fn(parts, spec.context)
    return parts


# --------------------------------------------------------------------------- results


def plain_spec(spec: TreeSpec) -> TreeSpec:
    """`spec` without classes of anybody's: what has named fields becomes a dict, others tuples."""
    return tree_structure(_plain(spec))


def _plain(spec: TreeSpec) -> Any:
    if is_leaf(spec):
        return 0
    parts = [_plain(child) for child in children(spec)]
    kind = class_of(spec)
    if kind is list:
        return parts
    names = list(spec.context) if kind is dict else [*_field_names(spec, kind)]
    if len(names) == len(parts) and all(isinstance(name, str) for name in names):
        return dict(zip(names, parts, strict=True))
    if kind is dict:
        raise InputError(
            "the result is a dict with keys that are no strings",
            hint="torch's formats keep no others; return a list",
        )
    return tuple(parts)


def _field_names(spec: TreeSpec, kind: type) -> Iterator[str]:
    """The names of the fields of a container of some class; none where it has none."""
    if kind in _PLAIN:
        return
    for key in child_keys(spec):
        if isinstance(key, MappingKey):
            yield key.key
        elif isinstance(key, GetAttrKey):
            yield key.name


def is_plain(spec: TreeSpec | None) -> bool:
    """Whether `spec` is made of tuples, lists and dicts only."""
    if spec is None or is_leaf(spec):
        return True
    return spec.type in _PLAIN and all(is_plain(child) for child in children(spec))
