"""The operators of torch's dispatcher that stand for compiled things.

    rewright::call           a whole program of this process, by its handle
    rewright::call_random    the same, of one that draws random numbers, as its tag says
    rewright::engine         an engine, with what is needed to run it, or to run without it

They are declared when torch is there, which costs nothing; what they compute loads with the first
call. None writes to its arguments: torch makes no such operator pure that returns a list.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

import torch

__all__ = ["NAMESPACE", "declare"]

NAMESPACE: Final = "rewright"


class _Operator(NamedTuple):
    """An operator: its signature, and where its kernels are, ``real`` and ``fake`` by prefix."""

    signature: str
    module: str
    function: str
    is_random: bool = False


_CALL: Final = "(Tensor[] tensors, Tensor[] buffers, SymInt[] sizes, str handle) -> Tensor[]"

_OPERATORS: Final[dict[str, _Operator]] = {
    "call": _Operator(_CALL, "call", "call"),
    "call_random": _Operator(_CALL, "call", "call", True),
    "engine": _Operator(
        "(Tensor[] tensors, SymInt[] sizes, Tensor engine, Tensor[] constants, str about)"
        " -> Tensor[]",
        "engine",
        "engine",
    ),
}

_library: list[Any] = []  # torch forgets what a lost one registered


def declare() -> None:
    """Declares them, once."""
    if _library:
        return
    library = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    _library.append(library)
    for name, declared in _OPERATORS.items():
        tags = [torch.Tag.pt2_compliant_tag]
        if declared.is_random:
            tags.append(torch.Tag.nondeterministic_seeded)
        library.define(name + declared.signature, tags=tuple(tags))  # type: ignore[no-untyped-call]
        real = _kernel(declared, "real")
        library.impl(name, real, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        qualified = f"{NAMESPACE}::{name}"
        torch.library.register_fake(qualified, _kernel(declared, "fake"), lib=library)
        torch.library.register_autograd(qualified, _no_gradients, lib=library)


def _kernel(declared: _Operator, kind: str) -> Callable[..., Any]:
    """A kernel, which loads when it is first called."""

    def kernel(*args: Any) -> Any:
        module = import_module(f"rewright.interop.{declared.module}")
        return getattr(module, f"{kind}_{declared.function}")(*args)

    return kernel


def _no_gradients(*_: Any) -> Any:
    """Says that there are none.

    Raises:
        UnsupportedError: always.
    """
    from rewright.errors import UnsupportedError

    raise UnsupportedError(
        "a compiled program computes no gradients",
        hint="call it under torch.no_grad(), or train the model that it was compiled from",
    )
