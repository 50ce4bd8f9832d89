"""Calls of aten's operators with sample arguments, from torch's own table of operators."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree


def overloads_of(op: Any) -> Iterator[tuple[OpOverload, tuple[Any, ...], dict[str, Any]]]:
    """The calls of aten's pure operators that an entry of torch's own test table comes to."""
    dtype = torch.float32 if torch.float32 in op.dtypes else torch.int64
    for number, sample in enumerate(op.sample_inputs("cpu", dtype)):
        if number == 4:
            return
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        at = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def run(*tensors: Tensor, leaves=leaves, spec=spec, at=at) -> Any:
            filled = list(leaves)
            for index, tensor in zip(at, tensors, strict=True):
                filled[index] = tensor
            first, args, kwargs = pytree.tree_unflatten(filled, spec)
            return op(first, *args, **kwargs)

        tensors = [leaves[index].detach() for index in at]
        try:
            traced = make_fx(run, pre_dispatch=True)(*tensors)
        except Exception:  # what can't be traced has no overloads to compare
            continue
        yield from Recorder(traced).calls(tensors)


class Recorder(torch.fx.Interpreter):
    """Notes the calls of pure operators while a traced graph runs."""

    def calls(self, tensors: list[Tensor]) -> list[Any]:
        self.found: list[Any] = []
        self.run(*tensors)
        return self.found

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        is_aten = isinstance(target, OpOverload) and target.namespace == "aten"
        if is_aten and not target._schema.is_mutable:
            self.found.append((target, args, kwargs))
        return super().call_function(target, args, kwargs)
