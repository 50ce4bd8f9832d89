"""Tensors that are more than a dtype and a shape are refused, in words, by both frontends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch._subclasses import FakeTensor

from rewright.errors import UnsupportedError

_DENSE: Final = "pass a dense tensor: {name}.to_dense()"

_LAYOUTS: Final[Mapping[torch.layout, tuple[str, str]]] = {
    torch.sparse_coo: ("a sparse tensor (COO)", _DENSE),
    torch.sparse_csr: ("a sparse tensor (CSR)", _DENSE),
    torch.sparse_csc: ("a sparse tensor (CSC)", _DENSE),
    torch.sparse_bsr: ("a sparse tensor (BSR)", _DENSE),
    torch.sparse_bsc: ("a sparse tensor (BSC)", _DENSE),
    torch._mkldnn: ("a tensor in oneDNN's own layout (to_mkldnn)", _DENSE),  # type: ignore[attr-defined]
}
"""What a tensor of each layout is, and what to pass instead."""

_PADDED: Final = "pad it: torch.nested.to_padded_tensor({name}, 0.0), and pass a mask if need be"


def refuse_layout(tensor: torch.Tensor, name: str, code: str = "x") -> None:
    """Refuses a tensor whose elements don't lie in strides.

    Args:
        tensor: real, or torch's fake of it.
        name: how the message calls it: ``the input mask``.
        code: how its user writes it, for what to do: ``mask``.

    Raises:
        UnsupportedError: a sparse, nested or mkldnn tensor.
    """
    if tensor.is_nested:
        jagged = " (jagged)" if tensor.layout is torch.jagged else ""
        what, instead = f"a nested tensor{jagged}", _PADDED
    elif tensor.layout is torch.strided:
        return
    else:
        unknown = (f"a tensor of the layout {tensor.layout}", "pass a dense tensor")
        what, instead = _LAYOUTS.get(tensor.layout, unknown)
    raise UnsupportedError(
        f"{name} is {what}, which can't be compiled", hint=instead.format(name=code)
    )


def refuse_class(tensor: torch.Tensor, name: str, code: str = "x") -> None:
    """Refuses a tensor of a class that has operators of its own.

    Raises:
        UnsupportedError: a DTensor, or another class with a ``__torch_dispatch__``.
    """
    kind = type(tensor)
    if kind.__name__ == "DTensor":
        raise UnsupportedError(
            f"{name} is a DTensor, a part of a tensor on several devices",
            hint=f"compile what runs on one device: pass {code}.to_local()",
        )
    own = kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    if own and not issubclass(kind, FakeTensor):
        raise UnsupportedError(
            f"{name} is a {kind.__name__}, a tensor class with operators of its own",
            hint="pass a plain torch.Tensor",
        )
