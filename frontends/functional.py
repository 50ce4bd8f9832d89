"""Views and mutations made pure while a graph is imported.

Every tensor that torch's graph names is an :class:`Alias`: a chain of views down from a
:class:`Storage`, which holds the storage's current value. A read replays the chain where the
storage has changed since; a write puts the new value of the view back into its base, step by
step, by the inverse of each view (:data:`INVERSES`). Nothing is retraced: what a step gives was
recorded by torch.
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
from rewright.ir.ops import Op
from rewright.ir.types import TensorType, Type


class Emit(Protocol):
    """Adds a node to the graph being imported, its types inferred unless they are given."""

    def __call__(
        self, op: str | Op, /, *args: Any, types: tuple[Type, ...] | None = None, **kwargs: Any
    ) -> Any: ...


@attrs.define(eq=False)
class Storage:
    """Memory that several tensors of torch's graph may share.

    Attributes:
        value: its current value, as the tensor that owns it sees it.
        origin: the input or constant that it belongs to, or None where the graph made it.
        version: grows with every write.
        fakes: which storages torch's fake tensors have for it.
    """

    value: Value
    origin: Value | None = None
    version: int = 0
    fakes: set[int] = attrs.field(factory=set)


class _Base:
    def __repr__(self) -> str:
        return "the base"


BASE: Final = _Base()
"""Stands for the parent of an alias among the arguments of its view."""


@attrs.define(eq=False)
class View:
    """One view: how an alias comes from its parent.

    Attributes:
        op: the pure op that computes it; None where the alias is its parent, renamed.
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
    def rest(self) -> dict[str, Any]:
        """The arguments without the parent, where that is the first one."""
        return {name: item for name, item in self.arguments.items() if item is not BASE}


@attrs.define(eq=False)
class Alias:
    """A tensor of torch's graph: a storage, or a view of another alias.

    Attributes:
        storage: the memory it looks at.
        parent, view: the alias it was made from, and how; both None for the whole storage.
    """

    storage: Storage
    parent: Alias | None = None
    view: View | None = None
    _value: Value | None = None
    _version: int = -1

    @classmethod
    def fresh(cls, value: Value, origin: Value | None = None) -> Alias:
        """A tensor with memory of its own."""
        return cls(Storage(value, origin))

    def derive(self, view: View, value: Value) -> Alias:
        """The alias that `view` makes of this one, whose present value is `value`."""
        return Alias(self.storage, self, view, value, self.storage.version)

    def read(self, emit: Emit) -> Value:
        """The present value."""
        if self.parent is None or self.view is None:
            return self.storage.value
        if self._version != self.storage.version or self._value is None:
            self._value = _apply(self.view, self.parent.read(emit), emit)
            self._version = self.storage.version
        return self._value

    def replay(self, emit: Emit) -> Value:
        """The present value, as views of the storage's, even where a write left it at hand."""
        if self.parent is None or self.view is None:
            return self.storage.value
        if self.storage.version:
            self._version = -1
            self.parent.replay(emit)
        return self.read(emit)

    def write(self, value: Value, emit: Emit) -> None:
        """Makes `value` what this alias, and so its storage, holds.

        Raises:
            UnsupportedError: a view on the way has no inverse.
        """
        alias, new = self, value
        while alias.parent is not None and alias.view is not None:
            new = _unapply(alias.view, alias.parent.read(emit), new, emit)
            alias = alias.parent
        self.storage.value = new
        self.storage.version += 1
        self._value, self._version = value, self.storage.version

    def steps(self) -> list[View]:
        """The views from the storage to this alias, those that rename left out."""
        steps = []
        alias: Alias | None = self
        while alias is not None and alias.view is not None:
            if alias.view.op is not None:
                steps.append(alias.view)
            alias = alias.parent
        return steps[::-1]


def _apply(view: View, base: Value, emit: Emit) -> Value:
    if view.op is None:
        return base
    results = emit(view.op, types=view.types, **_with_base(view.arguments, base))
    return results[view.pick] if isinstance(results, tuple) else results


def _with_base(arguments: dict[str, Any], base: Value) -> dict[str, Any]:
    def put(item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(put(part) for part in item)
        return base if item is BASE else item

    return {name: put(item) for name, item in arguments.items()}


def _unapply(view: View, base: Value, new: Value, emit: Emit) -> Value:
    if view.op is None:
        return new
    inverse = INVERSES.get(view.op.name)
    if inverse is None or not view.is_plain:
        raise UnsupportedError(
            f"an in-place write goes through a view by {view.op.name}, which has no inverse here",
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
    dim = view.arguments.get("dim", 0)
    sizes = [t.shape[dim] for t in view.types if isinstance(t, TensorType)]
    start: Any = 0
    for size in sizes[: view.pick]:
        start = start + size
    return emit(
        "aten.slice_scatter",
        base,
        new,
        types=(base.type,),
        dim=dim,
        start=start,
        end=start + sizes[view.pick],
    )


def _one_slice(view: View, base: Value, new: Value, emit: Emit) -> Value:
    return emit(
        "aten.select_scatter",
        base,
        new,
        types=(base.type,),
        dim=view.arguments.get("dim", 0),
        index=view.pick,
    )


def _expanded(view: View, base: Value, new: Value, emit: Emit) -> Value:
    if base.type == view.types[0]:
        return new
    (wide,) = view.types
    if isinstance(wide, TensorType) and wide.numel == math.prod(_shape(base)):
        return emit("aten.reshape", new, _shape(base), types=(base.type,))
    raise UnsupportedError(
        "an in-place write goes to a tensor that expand() made: several of its elements are one",
        hint="clone() the expanded tensor before writing to it",
    )


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
    "aten._conj": _same_again,
    "aten._neg_view": _same_again,
    "aten.select.int": _by("aten.select_scatter", "dim", "index"),
    "aten.slice.Tensor": _by("aten.slice_scatter", "dim", "start", "end", "step"),
    "aten.diagonal": _by("aten.diagonal_scatter", "offset", "dim1", "dim2"),
    "aten.as_strided": _by("aten.as_strided_scatter", "size", "stride", "storage_offset"),
    "aten.narrow": _narrowed,
    "aten.split.Tensor": _one_part,
    "aten.split_with_sizes": _one_part,
    "aten.split.sizes": _one_part,
    "aten.chunk": _one_part,
    "aten.tensor_split.sections": _one_part,
    "aten.tensor_split.indices": _one_part,
    "aten.unbind.int": _one_slice,
    "aten.expand": _expanded,
    "aten.view_as_real": _as_real,
    "aten.view_as_complex": _as_complex,
    "aten.view.dtype": _bits,
}
"""For each view op: the base's new value after a write through the view."""


def step_attributes(view: View) -> Attributes:
    """The attributes of `view` without its operand, as a result's view chain keeps them."""
    return Attributes(view.rest)
