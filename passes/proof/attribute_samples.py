"""Attributes for examples: by the name of the parameter, then by its kind."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import torch

from rewright.ir.ops import REQUIRED, Op, Param
from rewright.ir.sizes import Dim
from rewright.passes.proof.draw import Draw, Reject
from rewright.passes.proof.templates import KINDS, LEFT_OUT, NUMBERS, SPATIAL

DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def attribute(
    op: Op,
    param: Param,
    alias: str,
    shape: tuple[Dim, ...] | None,
    draw: Draw,
    results: int | None = None,
) -> Any:
    """An attribute for `param`.

    Args:
        op: the op.
        param: one of its parameters.
        alias: what the rule calls it, which may say more (``x + eps``).
        shape: the shape of its first operand, if that is known.
        draw: chance.
        results: how many results the node must have, where its op does not say.

    Raises:
        Reject: nothing sensible is known for it.
    """
    name, rank = param.name, len(shape or ())
    is_list = "List[" in param.kind or "Sequence[" in param.kind
    if name in LEFT_OUT:
        return False if param.default is REQUIRED else param.default
    if name == "dtype":
        return draw.choice((torch.float32, draw.dtype, draw.choice(DTYPES)))
    if name in _DIMENSIONS:
        return _dimensions(op, is_list, rank, draw)
    if name in SPATIAL:
        spatial = max(rank - 2, 1)
        return tuple(draw.choice(SPATIAL[name]) for _ in range(spatial))
    if name == "split_sizes" and shape is not None:
        return _parts(shape, results or draw.choice((2, 2, 3)), draw)
    if name in _OF_SHAPE and shape is not None:
        return _OF_SHAPE[name](shape, draw)
    for known in (f"{op.name}:{name}", name, alias):
        if known in NUMBERS:
            return draw.choice(NUMBERS[known])
    return _by_kind(param, is_list, rank, draw)


_DIMENSIONS: Final = frozenset("dim dims dim0 dim1 start_dim end_dim source destination".split())


def _dimensions(op: Op, is_list: bool, rank: int, draw: Draw) -> Any:
    rank = rank + 1 if op.name in ("aten.unsqueeze", "aten.stack") else rank
    if rank == 0:
        return () if is_list else 0
    if not is_list:
        return draw.choice(range(-rank, rank))
    if op.name == "aten.permute":
        return tuple(draw.random.sample(range(rank), rank))
    if draw.chance(0.6):
        return (-1,)
    return tuple(draw.random.sample(range(rank), draw.choice(range(1, min(rank, 2) + 1))))


def _same_numel(shape: tuple[Dim, ...], draw: Draw) -> tuple[Dim, ...]:
    """Another shape of as many elements: two dimensions merged, or one split off."""
    if len(shape) >= 2 and draw.chance(0.6):
        at = draw.choice(range(len(shape) - 1))
        merged: Any = shape[at] * shape[at + 1]
        return (*shape[:at], merged, *shape[at + 2 :])
    return draw.choice(((*shape, 1), (1, *shape), shape))


def _expanded(shape: tuple[Dim, ...], draw: Draw) -> tuple[Dim, ...]:
    grown = tuple(draw.size() if dim == 1 else dim for dim in shape)
    return grown if draw.chance(0.5) else (draw.size(), *grown)


def _parts(shape: tuple[Dim, ...], count: int, draw: Draw) -> tuple[int, ...]:
    """The sizes of so many parts of a dimension."""
    sizes = [dim for dim in shape if isinstance(dim, int) and dim >= count]
    if not sizes:
        raise Reject(f"no dimension can be split in {count}")
    size = draw.choice(sizes)
    cuts = (0, *sorted(draw.random.sample(range(1, size), count - 1)), size)
    return tuple(end - start for start, end in pairwise(cuts))


def _strides(shape: tuple[Dim, ...], draw: Draw) -> tuple[Dim, ...]:
    """Strides of a dense tensor, its dimensions in some order."""
    order = draw.random.sample(range(len(shape)), len(shape))
    strides: list[Any] = [1] * len(shape)
    step: Any = 1
    for dim in order:
        strides[dim] = step
        step = step * shape[dim]
    return tuple(strides)


_OF_SHAPE: Final[dict[str, Callable[[tuple[Dim, ...], Draw], Any]]] = {
    "shape": _same_numel,
    "size": _expanded,
    "strides": _strides,
    "normalized_shape": lambda shape, draw: shape[-1:],
    "repeats": lambda shape, draw: tuple(draw.choice((1, 2)) for _ in shape),
    "pad": lambda shape, draw: (draw.choice((0, 1)), draw.choice((0, 1, 2))),
    "output_size": lambda shape, draw: None,
    "scale_factors": lambda shape, draw: tuple(2.0 for _ in shape[2:]),
}


def _by_kind(param: Param, is_list: bool, rank: int, draw: Draw) -> Any:
    kind = next((kind for kind in KINDS if kind in param.kind), None)
    kind = "number" if kind is None and param.takes_tensors else kind
    if kind is None:
        if param.default is REQUIRED:
            raise Reject(f"no value is known for {param.name}: {param.kind}")
        return param.default
    if is_list:
        return tuple(draw.choice(KINDS[kind]) for _ in range(rank or 1))
    return draw.choice(KINDS[kind])
