"""What generated programs call besides torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._ops import OpOverload

from rewright.errors import CheckError
from rewright.ir.calls import flat_results
from rewright.ir.ops import get_op

_AUTOCAST = ("cpu", "cuda")


def operator(name: str) -> Callable[..., Any]:
    """The function that computes the op called `name`, without the overload's Python wrapper."""
    target = get_op(name).target
    return target._op if isinstance(target, OpOverload) else target


def flat(returned: Any) -> tuple[Any, ...]:
    """What an operator returned, as the results of its node."""
    return flat_results(tuple(returned.values()) if isinstance(returned, dict) else returned)


def bind_all(constants: Any, *pairs: tuple[Any, Callable[..., Any]]) -> list[Any]:
    """What runs each segment that another backend took; made together, where the backend can.

    Args:
        constants: the program's tensors by name.
        pairs: what the backend made of each segment, and what runs it in Torch.
    """
    kinds = {type(made) for made, _ in pairs}
    together = getattr(kinds.pop(), "bind_all", None) if len(kinds) == 1 else None
    if together is not None:
        return list(together(pairs, constants))
    return [made.bind(constants, in_torch) for made, in_torch in pairs]


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without gradients and autocast, whatever is on around the call."""

    @wraps(function)
    def call(*args: Any) -> Any:
        on = [device for device in _AUTOCAST if torch.is_autocast_enabled(device)]
        for device in on:
            torch.set_autocast_enabled(device, False)
        try:
            with torch.no_grad():
                return function(*args)
        finally:
            for device in on:
                torch.set_autocast_enabled(device, True)

    return call


def check_failed(message: str, condition: str, where: str, **sizes: Any) -> NoReturn:
    """Says that a check of the model's own (``torch._check``) failed.

    Raises:
        CheckError: with the user's message, if there is one, and the sizes in the condition.
    """
    given = ", ".join(f"{name} is {value}" for name, value in sizes.items())
    raise CheckError(
        f"{message or 'a check that the model makes failed'}: {condition} is false"
        + (f", where {given}" if given else ""),
        where=where or None,
        hint="the numbers in the inputs decide this, not their shapes",
    )


def restride(tensor: Tensor, strides: Sequence[int]) -> Tensor:
    """`tensor` with `strides`: itself where only dims of size 1 differ, else a copy.

    Strides under which elements overlap come from ``expand`` (0) and are made by it. Others
    (windows of ``unfold``) can't be written to, so there the tensor stays as it is.
    """
    places = [*zip(tensor.shape, tensor.stride(), strides, strict=True)]
    if all(size == 1 or old == new for size, old, new in places):
        return tensor.as_strided(tensor.shape, tuple(strides))
    base = tensor
    for dim, (size, _, new) in enumerate(places):
        if new == 0 and size > 1:
            base = base.narrow(dim, 0, 1)
    if not is_writable(base.shape, strides):
        return tensor
    made = torch.empty_strided(base.shape, strides, dtype=base.dtype, device=base.device)
    return made.copy_(base).expand(tensor.shape)


def is_writable(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether no two elements of such a tensor are at the same place."""
    end = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if stride < end:
                return False
            end = stride * (size - 1) + end
    return True
