"""Ops that put their result where an operand is: ``rw.in_place.aten.index_copy``.

    %new = rw.in_place.aten.index_copy(@cache, 2, %at, %keys)

means what ``aten.index_copy`` means, and is computed by it wherever values are all that matters:
inference, the interpreter, other backends. The name adds a permission: the result may take the
memory of the operand, since nobody reads that any more (:mod:`rewright.ir.memory` knows what that
takes, and the verifier checks it). Generated code then calls ``index_copy_``.

There is such a form of

* each operator of aten that has an in-place twin of the same signature (torch's schemas say which);
* the ops that put a value into a view (``slice_scatter``): the view is taken, and written to;
* functional forms of operators that mutate (``rw.functional.mylib.op``): the operator itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import attrs
import torch
from torch._ops import OpOverload

from rewright.ir.attributes import Operand
from rewright.ir.graph import Node, Value
from rewright.ir.ops import Op, Trait, get_op, mutated_params

PREFIX: Final = "rw.in_place."
_FUNCTIONAL: Final = "rw.functional."

_VIEWS: Final[Mapping[str, str]] = {
    "aten.slice_scatter": "aten.slice.Tensor",
    "aten.select_scatter": "aten.select.int",
    "aten.diagonal_scatter": "aten.diagonal",
}
"""Ops that put ``src`` into a view of ``self``, and the op that makes the view."""


@attrs.frozen(eq=False)
class InPlace:
    """How an op is computed in the memory of operands.

    Attributes:
        op: the op, ``rw.in_place.aten.index_copy``.
        pure: what it computes, ``aten.index_copy``.
        by: torch's operator that does it in place; None for one that writes into a view.
        view: the op whose view is written to, or None.
        params: the parameters whose memory results take, one for each of the last results.
    """

    op: Op
    pure: Op
    by: Op | None
    view: Op | None
    params: tuple[str, ...]

    def taken(self, node: Node) -> Iterator[tuple[Value, Value]]:
        """The results of `node` that take an operand's memory, each with that operand."""
        count = len(node.results) - len(self.params)
        for result, name in zip(node.results[count:], self.params, strict=True):
            operand = node.attributes[name]
            assert isinstance(operand, Operand)
            yield result, node.operands[operand.index]


_forms: Final[dict[str, InPlace | None]] = {}  # by the name of the pure op


def in_place(op: Op) -> InPlace | None:
    """How `op` is computed, if it is one of ``rw.in_place``; None of any other."""
    return _forms.get(op.name.removeprefix(PREFIX)) if op.name.startswith(PREFIX) else None


def in_place_form(pure: Op) -> InPlace | None:
    """How `pure` can be computed in place; None if it can't."""
    if pure.name not in _forms:
        _forms.setdefault(pure.name, _find(pure))  # the first one stays, whatever thread found it
    return _forms[pure.name]


def _find(pure: Op) -> InPlace | None:
    by: Op | None = _twin(pure)
    view: Op | None = None
    params: tuple[str, ...] = ()
    if pure.name in _VIEWS:
        by, view, params = None, get_op(_VIEWS[pure.name]), ("self",)
    elif by is not None:
        params = (pure.params[0].name,)
    elif pure.name.startswith(_FUNCTIONAL):
        by = get_op(pure.name.removeprefix(_FUNCTIONAL))
        params = _mutated(by)
    if not params:
        return None
    op = attrs.evolve(pure, name=PREFIX + pure.name, doc=f"{pure.doc or pure.name}, in place")
    return InPlace(op, pure, by, view, params)


def _mutated(op: Op) -> tuple[str, ...]:
    """The tensors that `op` mutates, if it does nothing else."""
    fresh = any(item.alias_info is None for item in op.target._schema.returns)
    mutated = [op.params[index] for index in mutated_params(op.target)]
    if fresh or any(param.kind != "Tensor" for param in mutated):
        return ()
    return tuple(param.name for param in mutated)


@cache
def _twin(pure: Op) -> Op | None:
    """The operator of aten that does in place what `pure` does: ``aten.index_copy_``."""
    target = pure.target
    if not isinstance(target, OpOverload) or target.namespace != "aten" or pure.results != 1:
        return None
    packet = getattr(torch.ops.aten, f"{target._schema.name.removeprefix('aten::')}_", None)
    twin = getattr(packet, target._overloadname, None)
    if not isinstance(twin, OpOverload) or Trait.RANDOM in pure.traits or not pure.params:
        return None
    if torch.Tag.inplace_view in twin.tags or not _same_signature(target, twin):
        return None
    return get_op(twin)


def _same_signature(pure: OpOverload, twin: OpOverload) -> bool:
    """Whether `twin` takes what `pure` takes, and writes to the first of it alone."""
    first, *rest = twin._schema.arguments
    if first.alias_info is None or not first.alias_info.is_write or str(first.type) != "Tensor":
        return False
    if any(item.alias_info is not None for item in (*rest, *pure._schema.returns)):
        return False
    described = [
        [(item.name, str(item.type), item.default_value, item.kwarg_only) for item in arguments]
        for arguments in (pure._schema.arguments, twin._schema.arguments)
    ]
    return described[0] == described[1]
