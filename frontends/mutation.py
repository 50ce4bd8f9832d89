"""In-place ops at import: the pure op that computes the new value, then a write to the alias.

add_(x, y)            ->  x = aten.add.Tensor(x, y)
add(x, y, out=o)      ->  o = aten.add.Tensor(x, y)
copy_(x, y)           ->  x = y                 (cast and expanded to x's type)
mylib.op_(x, ...)     ->  ..., x = rw.functional.mylib.op_(x, ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from rewright.errors import UnsupportedError
from rewright.frontends.functional import Alias
from rewright.frontends.views import BASE, View
from rewright.ir.builder import bind_operands
from rewright.ir.graph import Graph, Value
from rewright.ir.inference import infer_types
from rewright.ir.ops import Op, functional_form, get_op, mutated_params
from rewright.ir.types import TensorType, Type

if TYPE_CHECKING:
    from rewright.frontends.importer import Importer

_REFUSED: Final = frozenset(
    "aten.set_ aten.set_.source_Tensor aten.set_.source_Storage aten.resize_ aten.resize_as_ "
    "aten._resize_output_ aten.set_.source_Storage_storage_offset".split()
)
"""Ops that give a tensor other memory: nothing pure does what they do."""

_SPELLED: Final[Mapping[str, str]] = {
    "aten.normal_": "aten.normal_functional",
    "aten.zero_": "aten.zeros_like",
}
"""Pure counterparts whose names don't follow from torch's naming."""


def run(importer: Importer, op: Op, entries: dict[str, Any], value: Any) -> Any:
    """Imports an op that mutates arguments; returns its entry.

    Raises:
        UnsupportedError: an op that gives a tensor other memory, or a write through a view that
            has no inverse.
    """
    if op.name in _REFUSED:
        raise UnsupportedError(
            f"{op.name} gives a tensor other memory",
            hint="assign the new tensor to a new name instead",
        )
    if op.name == "aten.detach_":
        return entries["self"]
    if torch.Tag.inplace_view in op.target.tags:
        return _rename(importer, op, entries, value)
    if op.name == "aten.copy_":
        target = entries["self"]
        source = importer.argument(entries["src"])
        target.write(_fit(importer, source, target.read(importer.emit).type), importer.emit)
        return target
    pure = pure_counterpart(op.target)
    if pure is None:
        return _functional(importer, op, entries, value)
    written: list[Alias] = tree_leaves(
        [entries[op.params[i].name] for i in mutated_params(op.target)]
    )
    outs = {op.params[i].name for i in mutated_params(op.target)}
    named = {
        key: importer.argument(entry)
        for key, entry in entries.items()
        if not (key in outs and key not in {p.name for p in pure.params})
    }
    one_each = pure.results is None  # a list of tensors, each written anew (_foreach_mul_)
    types = tuple(alias.read(importer.emit).type for alias in written) if one_each else None
    results = importer.insert(pure, named, types)
    for alias, result in zip(written, results, strict=True):
        alias.write(_fit(importer, result, alias.read(importer.emit).type), importer.emit)
    return written[0] if len(written) == 1 else tuple(written)


def _rename(importer: Importer, op: Op, entries: dict[str, Any], value: torch.Tensor) -> Alias:
    """``x.unsqueeze_(0)``: from here on every name of this tensor means its view."""
    alias: Alias = entries["self"]
    if alias.parent is None and alias.storage.origin is not None:
        raise UnsupportedError(
            f"{op.name} changes the shape of an input or parameter itself",
            hint="use the form without the underscore",
        )
    pure = pure_counterpart(op.target)
    if pure is None:
        raise UnsupportedError(f"{op.name} has no form that leaves its operand as it is")
    rest = {key: importer.argument(e) for key, e in entries.items() if key != "self"}
    old = alias.read(importer.emit)
    types = (importer.type_of(value),)
    result = importer.insert(pure, {"self": old, **rest}, types)[0]
    renamed = alias.derive(View(pure, {"self": BASE, **rest}, types), result)
    for node, entry in importer.env.items():
        if entry is alias:
            importer.env[node] = renamed
    return renamed


def _functional(importer: Importer, op: Op, entries: dict[str, Any], value: Any) -> Any:
    """An op that mutates and has no pure counterpart: cloned, called, written back."""
    form = functional_form(op.target)
    named = importer.keep_layouts({k: importer.argument(e) for k, e in entries.items()})
    written: list[Alias] = []
    for index in mutated_params(op.target):
        entry = entries.get(op.params[index].name)
        written += list(entry) if isinstance(entry, tuple) else [] if entry is None else [entry]
    returned = value if isinstance(value, list | tuple) else (value,)
    fresh = [
        item
        for item, spec in zip(returned, op.target._schema.returns, strict=False)
        if spec.alias_info is None
    ]
    types = [importer.type_of(item) for item in fresh]
    types += [alias.read(importer.emit).type for alias in written]
    results = importer.insert(form, named, tuple(types))
    for alias, result in zip(written, results[len(fresh) :], strict=True):
        alias.write(result, importer.emit)
    made = iter([importer.fresh(r, v) for r, v in zip(results, fresh, strict=False)])
    writes = iter(written)
    outs = [
        next(made) if spec.alias_info is None else next(writes)
        for spec in op.target._schema.returns
    ]
    return tuple(outs) if len(outs) > 1 else outs[0] if outs else None


def _fit(importer: Importer, value: Value, wanted: Type) -> Value:
    """`value` cast and expanded to the type of the tensor that it is written into."""
    assert isinstance(value.type, TensorType)
    assert isinstance(wanted, TensorType)
    if value.type.dtype != wanted.dtype:
        cast = TensorType(wanted.dtype, value.type.shape, value.type.device)
        value = importer.emit("aten._to_copy", value, dtype=wanted.dtype, types=(cast,))
    if value.type != wanted:
        value = importer.emit("aten.expand", value, wanted.shape, types=(wanted,))
    return value


@lru_cache(maxsize=1024)
def pure_counterpart(target: OpOverload) -> Op | None:
    """The op that computes what `target` writes: ``aten.add.Tensor`` for ``aten.add_.Tensor``."""
    schema = target._schema
    namespace, _, name = schema.name.partition("::")
    known = _SPELLED.get(
        f"{namespace}.{name}"
        + ("" if target._overloadname == "default" else f".{target._overloadname}")
    )
    if known is not None:
        return get_op(known)
    if namespace != "aten":
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    outs = {a.name for a in schema.arguments if a.alias_info is not None and a.kwarg_only}
    wanted = [a.name for a in schema.arguments if a.name not in outs]
    for overload in (target._overloadname, *(packet.overloads() if packet else ())):
        found = getattr(packet, overload, None)
        if found is None or found._schema.is_mutable:
            continue
        if [a.name for a in found._schema.arguments] == wanted:
            return get_op(found)
    return None


def infer(graph: Graph, op: Op, named: Mapping[str, Any]) -> tuple[Type, ...]:
    """The types of a new node's results, by torch's rules."""
    operands, attributes, regions = bind_operands(named)
    ranges = {symbol: info.ranges for symbol, info in graph.symbols.items()}
    return infer_types(
        op,
        attributes,
        tuple(value.type for value in operands),
        ranges=ranges,
        device=graph.device,
        regions=regions,
    )
