"""Pure forms of ops that mutate, as operators of torch's own dispatcher.

    mylib::op_(Tensor(a!) x, int n) -> Tensor
        becomes  rewright_mylib::op_(Tensor x, int n) -> (Tensor, Tensor)

Torch's compilers take such an operator whole. Shown clones and an op that mutates them, they take
the clones for needless: Inductor of torch 2.13 drops the write where the clone was one of a view
of an input.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from torch._ops import OpOverload

from rewright.errors import UnsupportedError
from rewright.ir.ops import Op, functional_form, get_op, mutated_params

_ALIAS: Final = re.compile(r'("(?:[^"\\]|\\.)*")|\([a-z0-9|*]+!?(?: -> [a-z0-9|*]+)?\)')
"""The mark of an alias in a schema's text, ``(a!)``; strings, which are kept, come first."""

_RETURNED: Final = {"Tensor": "Tensor", "Optional[Tensor]": "Tensor[]", "List[Tensor]": "Tensor[]"}
"""How the new value of a parameter is returned, by its kind; None becomes an empty list."""

_PREFIX: Final = "rw.functional."

_KEPT_TAGS: Final = frozenset(
    "needs_exact_strides needs_fixed_stride_order needs_contiguous_strides flexible_layout "
    "nondeterministic_seeded nondeterministic_bitwise data_dependent_output dynamic_output_shape "
    "cudagraph_unsafe pt2_compliant_tag".split()
)
"""What holds of a pure form if it holds of the op: how it is called, not how it mutates."""

_lock: Final = threading.Lock()
_libraries: Final[dict[str, Any]] = {}  # by namespace; torch forgets what a lost one registered


def dispatched_form(op: Op) -> OpOverload | None:
    """The operator of torch, registered once for this process, that computes a functional form.

    Args:
        op: any op.

    Returns:
        None where `op` is no functional form (``rw.functional.mylib.op``). Otherwise the operator;
        its results, once lists among them are taken apart, are those of `op`.

    Raises:
        UnsupportedError: something besides tensors and lists of them is mutated.
    """
    if not op.name.startswith(_PREFIX):
        return None
    with _lock:
        return _registered(get_op(op.name.removeprefix(_PREFIX)).target)


@cache
def _registered(target: OpOverload) -> OpOverload:
    namespace, _, name = target._schema.name.partition("::")
    overload = str(target._overloadname)
    full = name if overload == "default" else f"{name}.{overload}"
    owner = f"rewright_{namespace}"
    if owner not in _libraries:
        _libraries[owner] = torch.library.Library(owner, "FRAGMENT")  # type: ignore[no-untyped-call]
    library, compute = _libraries[owner], _function(target)
    tags = tuple(tag for tag in target.tags if tag.name in _KEPT_TAGS)
    library.define(full + _pure_signature(target), tags=tags)
    library.impl(full, compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{owner}::{full}", compute, lib=library)
    found: OpOverload = getattr(getattr(getattr(torch.ops, owner), name), overload)
    return found


def _pure_signature(target: OpOverload) -> str:
    """``(Tensor x, int n) -> (Tensor, Tensor)``."""
    text = _ALIAS.sub(lambda found: found[1] or "", str(target._schema))
    head, _, returned = text.rpartition(" -> ")
    parts = returned[1:-1] if returned.startswith("(") else returned
    kinds = zip(parts.split(", "), target._schema.returns, strict=False)
    results = [kind for kind, item in kinds if item.alias_info is None]
    results += [_returned_kind(target, index) for index in mutated_params(target)]
    return f"{head[head.index('(') :]} -> ({', '.join(results)})"


def _returned_kind(target: OpOverload, index: int) -> str:
    param = get_op(target).params[index]
    if param.kind not in _RETURNED:
        raise UnsupportedError(
            f"{get_op(target).name} mutates {param.name!r}, a {param.kind}",
            hint="only tensors and lists of tensors can be made pure",
        )
    return _RETURNED[param.kind]


def _function(target: OpOverload) -> Callable[..., Any]:
    """What the operator computes."""
    original, form = get_op(target), functional_form(target)
    fresh = sum(item.alias_info is None for item in target._schema.returns)
    mutated = [original.params[index] for index in mutated_params(target)]

    def compute(*args: Any, **kwargs: Any) -> Any:
        given = original.bind(args, kwargs)
        results = iter(form.target(*args, **kwargs))
        made = [next(results) for _ in range(fresh)]
        for param in mutated:
            value = None if given.get(param.name) is None else next(results)
            if _RETURNED[param.kind] == "Tensor":
                made.append(value)
            else:
                made.append([] if value is None else list(value) if _is_list(value) else [value])
        return made[0] if len(made) == 1 else tuple(made)

    return compute


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
