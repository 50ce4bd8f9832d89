"""Views as values: how one tensor comes from another, and what a write through it does.

A view is a pure op with its operand left open (:class:`View`). To apply it gives the view's value;
its inverse (:data:`INVERSES`) puts a new value of the view back into the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
import torch

from rewright.errors import UnsupportedError
from rewright.ir.attributes import Attributes
from rewright.ir.graph import Value
from rewright.ir.ops import Op, get_op
from rewright.ir.types import TensorType, Type


class Emit(Protocol):
    """Adds a node to the graph being imported, its types inferred unless they are given."""

    def __call__(
        self, op: str | Op, /, *args: Any, types: tuple[Type, ...] | None = None, **kwargs: Any
    ) -> Any: ...


class _Base:
    def __repr__(self) -> str:
        return "the base"


BASE: Final = _Base()
"""Stands for the parent of an alias among the arguments of its view."""

ALIAS: Final = get_op("aten.alias")
"""Makes a new tensor with the memory of its operand."""


@attrs.define(eq=False)
class View:
    """One view: how an alias comes from its parent.

    Attributes:
        op: the pure op that computes it; None where the alias is its parent, under another name.
            :data:`ALIAS` where it is a new tensor that looks at the same elements.
        arguments: its arguments by name, with :data:`BASE` in the place of the parent.
        types: the types of all its results.
        pick: which result the alias is.
    """

    op: Op | None
    arguments: dict[str, Any]
    types: tuple[Type, ...]
    pick: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the parent is simply the first argument."""
        return next(iter(self.arguments.values()), BASE) is BASE

    @property
    def is_rename(self) -> bool:
        """Whether the alias has the parent's value, element by element."""
        return self.op is None or self.op is ALIAS

    @property
    def rest(self) -> dict[str, Any]:
        """The arguments without the parent, where that is the first one."""
        return {name: item for name, item in self.arguments.items() if item is not BASE}


def apply_view(view: View, base: Value, emit: Emit) -> Value:
    """What `view` shows of `base`."""
    if view.op is None or view.is_rename:
        return base
    results = emit(view.op, types=view.types, **_with_base(view.arguments, base))
    return results[view.pick] if isinstance(results, tuple) else results


def _with_base(arguments: dict[str, Any], base: Value) -> dict[str, Any]:
    def put(item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(put(part) for part in item)
        return base if item is BASE else item

    return {name: put(item) for name, item in arguments.items()}


def write_through(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """What `base` holds after `new` was written through `view`.

    Raises:
        UnsupportedError: the view has no inverse, or several of its elements are one in memory.
    """
    if view.op is None or view.is_rename:
        return new
    inverse = INVERSES.get(view.op.name)
    if inverse is None:
        raise UnsupportedError(
            f"an in-place write goes through a view by {view.op.name}, which has no inverse",
            hint="write to the tensor itself, or clone() the view first",
        )
    return inverse(view, base, new, emit)


# --------------------------------------------------------------------------- the inverses

Inverse = Callable[[View, Value, Value, Emit], Value]
"""``(view, base, new, emit)``: the base's new value, after `new` was written through `view`."""


def _like_base(op: str) -> Inverse:
    """The view rearranges all elements: `op` brings them back to the base's shape."""

    def inverse(view: View, base: Value, new: Value, emit: Emit) -> Value:
        shape = _shape(base)
        return emit(op, new, shape, types=(base.type,))

    return inverse


def _permuted(view: View, base: Value, new: Value, emit: Emit) -> Value:
    dims = [dim % len(_shape(base)) for dim in view.arguments["dims"]]
    back = tuple(dims.index(at) for at in range(len(dims)))
    return emit("aten.permute", new, back, types=(base.type,))


def _moved(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """The view permutes: torch itself, asked with a size of its own for each dim, says how."""
    assert view.op is not None
    probe = torch.empty(tuple(range(2, 2 + len(_shape(base)))), device="meta")
    order = [size - 2 for size in view.op.target(probe, **view.rest).shape]
    back = tuple(order.index(at) for at in range(len(order)))
    return emit("aten.permute", new, back, types=(base.type,))


def _same_again(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """The view undoes itself (a transpose, a conjugate)."""
    assert view.op is not None
    return emit(view.op, new, types=(base.type,), **view.rest)


def _by(op: str, *names: str, **fixed: Any) -> Inverse:
    """The view selects: `op` puts `new` at the same place of the base."""

    def inverse(view: View, base: Value, new: Value, emit: Emit) -> Value:
        arguments = {n: view.arguments[n] for n in names if n in view.arguments}
        return emit(op, base, new, types=(base.type,), **fixed, **arguments)

    return inverse


def _linalg_diagonal(view: View, base: Value, new: Value, emit: Emit) -> Value:
    place = {"offset": 0, "dim1": -2, "dim2": -1, **view.rest}
    return emit("aten.diagonal_scatter", base, new, types=(base.type,), **place)


def _narrowed(view: View, base: Value, new: Value, emit: Emit) -> Value:
    start = view.arguments["start"]
    place = {
        "dim": view.arguments["dim"],
        "start": start,
        "end": start + view.arguments["length"],
    }
    return emit("aten.slice_scatter", base, new, types=(base.type,), **place)


def _one_part(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """One part of a split: a slice that starts where the parts before it end."""
    return _part(view, base, new, emit, view.arguments.get("dim", 0))


def _one_part_across(rank_to_dim: Callable[[int], int]) -> Inverse:
    """One part of a split along a dim that the op's name gives."""

    def inverse(view: View, base: Value, new: Value, emit: Emit) -> Value:
        return _part(view, base, new, emit, rank_to_dim(len(_shape(base))))

    return inverse


def _part(view: View, base: Value, new: Value, emit: Emit, dim: int) -> Value:
    sizes = [t.shape[dim] for t in view.types if isinstance(t, TensorType)]
    start: Any = sum(sizes[: view.pick], start=0)
    place = {"dim": dim, "start": start, "end": start + sizes[view.pick]}
    return emit("aten.slice_scatter", base, new, types=(base.type,), **place)


def _one_slice(view: View, base: Value, new: Value, emit: Emit) -> Value:
    return emit(
        "aten.select_scatter",
        base,
        new,
        types=(base.type,),
        dim=view.arguments.get("dim", 0),
        index=view.pick,
    )


def _windows(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """``unfold``: element `k` of every window is a slice of the base whose step is the windows'."""
    at, size, step = (view.arguments[n] for n in ("dimension", "size", "step"))
    (windows,) = view.types
    if step < size:
        raise _several_are_one(view, "its windows overlap")
    assert isinstance(windows, TensorType)
    assert isinstance(base.type, TensorType)
    if not base.type.rank:
        return emit("aten.reshape", new, (), types=(base.type,))
    dim = at % base.type.rank
    element = attrs.evolve(windows, shape=windows.shape[:-1])
    for k in range(size):
        part = emit("aten.select.int", new, dim=-1, index=k, types=(element,))
        place = {"start": k, "end": k + (windows.shape[dim] - 1) * step + 1, "step": step}
        base = emit("aten.slice_scatter", base, part, dim=dim, types=(base.type,), **place)
    return base


def _expanded(view: View, base: Value, new: Value, emit: Emit) -> Value:
    wide = view.types[view.pick]
    if base.type == wide:
        return new
    if isinstance(wide, TensorType) and wide.numel == math.prod(_shape(base)):
        return emit("aten.reshape", new, _shape(base), types=(base.type,))
    raise _several_are_one(view, "it repeats elements")


def _several_are_one(view: View, why: str) -> UnsupportedError:
    assert view.op is not None
    return UnsupportedError(
        f"an in-place write goes through a view by {view.op.name}, of which several elements are "
        f"one in memory: {why}",
        hint="clone() the view before writing to it",
    )


def _real_part(view: View, base: Value, new: Value, emit: Emit) -> Value:
    if base.type == view.types[0]:
        return new  # of a real tensor: the tensor itself
    imaginary = emit("aten.imag", base, types=view.types)
    return emit("aten.complex", new, imaginary, types=(base.type,))


def _imaginary_part(view: View, base: Value, new: Value, emit: Emit) -> Value:
    real = emit("aten.real", base, types=view.types)
    return emit("aten.complex", real, new, types=(base.type,))


def _unchanged(view: View, base: Value, new: Value, emit: Emit) -> Value:
    """The view has nothing to do: an op that copies in other cases."""
    return new


def _as_real(view: View, base: Value, new: Value, emit: Emit) -> Value:
    return emit("aten.view_as_complex", new, types=(base.type,))


def _as_complex(view: View, base: Value, new: Value, emit: Emit) -> Value:
    return emit("aten.view_as_real", new, types=(base.type,))


def _bits(view: View, base: Value, new: Value, emit: Emit) -> Value:
    assert isinstance(base.type, TensorType)
    return emit("aten.view.dtype", new, base.type.dtype, types=(base.type,))


def _shape(value: Value) -> tuple[Any, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.shape


INVERSES: Final[dict[str, Inverse]] = {
    "aten.reshape": _like_base("aten.reshape"),
    "aten.atleast_1d": _like_base("aten.reshape"),
    "aten.atleast_2d": _like_base("aten.reshape"),
    "aten.atleast_3d": _like_base("aten.reshape"),
    "aten.squeeze": _like_base("aten.reshape"),
    "aten.squeeze.dim": _like_base("aten.reshape"),
    "aten.squeeze.dims": _like_base("aten.reshape"),
    "aten.unsqueeze": _like_base("aten.reshape"),
    "aten.permute": _permuted,
    "aten.movedim.int": _moved,
    "aten.movedim.intlist": _moved,
    "aten.moveaxis.int": _moved,
    "aten.moveaxis.intlist": _moved,
    "aten.broadcast_to": _expanded,
    "aten.transpose.int": _same_again,
    "aten.swapaxes": _same_again,
    "aten.swapdims": _same_again,
    "aten.t": _same_again,
    "aten.numpy_T": _same_again,
    "aten.mT": _same_again,
    "aten.mH": _same_again,
    "aten.matrix_H": _same_again,
    "aten.adjoint": _same_again,
    "aten.conj": _same_again,
    "aten._conj": _same_again,
    "aten._neg_view": _same_again,
    "aten.select.int": _by("aten.select_scatter", "dim", "index"),
    "aten.slice.Tensor": _by("aten.slice_scatter", "dim", "start", "end", "step"),
    "aten.diagonal": _by("aten.diagonal_scatter", "offset", "dim1", "dim2"),
    "aten.linalg_diagonal": _linalg_diagonal,
    "aten.as_strided": _by("aten.as_strided_scatter", "size", "stride", "storage_offset"),
    "aten.narrow": _narrowed,
    "aten.split.Tensor": _one_part,
    "aten.split_with_sizes": _one_part,
    "aten.split.sizes": _one_part,
    "aten.chunk": _one_part,
    "aten.tensor_split.sections": _one_part,
    "aten.tensor_split.indices": _one_part,
    "aten.unsafe_split.Tensor": _one_part,
    "aten.unsafe_split_with_sizes": _one_part,
    "aten.unsafe_chunk": _one_part,
    "aten.hsplit.int": _one_part_across(lambda rank: min(rank - 1, 1)),
    "aten.hsplit.array": _one_part_across(lambda rank: min(rank - 1, 1)),
    "aten.vsplit.int": _one_part_across(lambda rank: 0),
    "aten.vsplit.array": _one_part_across(lambda rank: 0),
    "aten.dsplit.int": _one_part_across(lambda rank: 2),
    "aten.dsplit.array": _one_part_across(lambda rank: 2),
    "aten.unbind.int": _one_slice,
    "aten.unfold": _windows,
    "aten.expand": _expanded,
    "aten.meshgrid": _expanded,
    "aten.meshgrid.indexing": _expanded,
    "aten.real": _real_part,
    "aten.imag": _imaginary_part,
    "aten.conj_physical": _unchanged,
    "aten.sum_to_size": _unchanged,
    "aten.view_as_real": _as_real,
    "aten.view_as_complex": _as_complex,
    "aten.view.dtype": _bits,
}
"""For each view op: the base's new value after a write through the view."""


def step_attributes(view: View) -> Attributes:
    """The attributes of `view` without its operand, as a result's view chain keeps them."""
    return Attributes(view.rest)
