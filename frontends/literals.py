"""Numbers of a model's code that a tracer has made constants of.

``torch.tensor(0.0)`` in a forward is lifted to a tensor beside the weights; each call uses a fresh
copy of it, so none can change it: it is a number, and a graph that shows it is one that rules can
read. A tensor from outside of the model (a counter in a cache) has a name alike, and is no number:
it is used itself.
"""

from __future__ import annotations

import re
from typing import Final

import torch
import torch.fx

_FRESH: Final = torch.ops.aten.lift_fresh_copy.default

_LIFTED: Final = re.compile(r"(lifted_tensor_|_tensor_constant)\d+")
"""What torch.export, and ``make_fx``, call the tensors that they lift."""

_DTYPES: Final = frozenset(
    {torch.bool, torch.int32, torch.int64, torch.float16, torch.bfloat16}
    | {torch.float32, torch.float64}
)
"""Those that a Python number gives back bit by bit."""


def literal_number(
    node: torch.fx.Node, name: str, data: torch.Tensor | None
) -> bool | int | float | None:
    """The number that the constant `name` stands for; None if it is no number of the code's.

    Args:
        node: the constant in the FX graph.
        name: as the tracer calls it, below the module whose code it is in.
        data: its value, if it is known.
    """
    if data is None or data.dim() or data.dtype not in _DTYPES:
        return None
    if not all(user.target is _FRESH for user in node.users):
        return None
    if data.device.type == "meta" or not _LIFTED.fullmatch(name.rpartition(".")[2]):
        return None
    return data.item()
