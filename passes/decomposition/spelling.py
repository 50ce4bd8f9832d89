"""How the imported normal form spells what a decomposition of torch's calls: pure, and in one way.

    view(x, size), flatten(x) ...       ->  reshape(x, shape of the result)
    clone(x), detach(x), alias(x) ...   ->  x
    convert_element_type(x, dtype) ...  ->  _to_copy(x, dtype=...), or x
    expand(x, [-1, ...])                ->  expand(x, shape of the result)
    add_(x, y)                          ->  add(x, y), and it is what x means from then on

The importer does as much with the ops of a user's program (``rewright.frontends.normalize``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch._ops import OpOverload

from rewright.ir.ops import Op, get_op, op_name


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


RESHAPES: Final = _aten(
    "view _unsafe_view reshape view_as reshape_as _reshape_alias flatten.using_ints unflatten.int "
    "view_copy _reshape_copy ravel"
)
"""Ops that keep the elements in order and only state another shape."""

IDENTITIES: Final = _aten(
    "clone contiguous detach detach_ alias lift lift_fresh lift_fresh_copy alias_copy detach_copy "
    "resolve_conj resolve_neg positive"
) | {"prims.clone", "prims.copy_strided"}
"""Ops that give back the same numbers."""

CASTS: Final = _aten(
    "to.dtype to.device to.dtype_layout to.other to.prim_Device to.prim_dtype to.prim_other "
    "_to_copy type_as"
) | {"prims.convert_element_type", "prims.device_put"}
"""Ops that change the dtype or the device, or nothing."""

EXPANDS: Final = _aten("expand expand_as expand_copy")

QUESTIONS: Final = _aten(
    "sym_size sym_size.int sym_stride sym_stride.int sym_numel sym_storage_offset size size.int "
    "stride stride.int numel dim is_contiguous is_contiguous.memory_format storage_offset "
    "sym_is_contiguous is_same_size is_non_overlapping_and_dense is_strides_like_format "
    "is_complex is_floating_point is_nonzero result_type.Tensor result_type.Scalar can_cast "
    "_assert_tensor_metadata"
) | {"prim.device", "prim.layout"}
"""What asks a tensor for its type, or checks it: answered while the decomposition is traced."""

_OF_MEMORY: Final[Mapping[str, tuple[Any, ...]]] = {
    "pin_memory": (None, False),
    "memory_format": (None, torch.contiguous_format, torch.preserve_format, torch.channels_last),
    "non_blocking": (False, True),
    "layout": (None, torch.strided),
    "requires_grad": (False,),
}
"""Arguments that say how memory lies and not what it holds, with the values that mean nothing."""


def without_memory(named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that say something about numbers."""
    return {
        name: item
        for name, item in named.items()
        if name not in _OF_MEMORY or item not in _OF_MEMORY[name]
    }


def pure_form(target: OpOverload) -> Op | None:
    """The op that computes what `target` writes to its first argument; None if there is none."""
    namespace, _, name = op_name(target).partition(".")
    packet, dot, overload = name.partition(".")
    if not packet.endswith("_") or packet.endswith("__"):
        return None
    found = getattr(getattr(torch.ops, namespace), packet[:-1], None)
    pure = getattr(found, overload if dot else "default", None)
    if not isinstance(pure, OpOverload) or pure._schema.is_mutable:
        return None
    kinds = [[str(a.type) for a in schema.arguments] for schema in (target._schema, pure._schema)]
    return get_op(pure) if kinds[0] == kinds[1] else None
