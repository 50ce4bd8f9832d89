"""Eager's strides of a graph's tensors, where torch's fake kernels state others.

A result's layout is its kernel's choice, and torch records what the *fake* kernel says. For a few
operators (:data:`MISSTATED`) that is wrong once an operand is not contiguous: there the real kernel
is asked, on zeros of the recorded layout, and what follows from its answer is derived on fake
tensors. Graphs without such a node cost nothing, and symbolic shapes stay as torch recorded them:
which layout a kernel chooses may depend on the size. Where torch.export dropped a ``contiguous()``
that its fake kernels called needless, the result is as in ``ep.module()``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.fx
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

_aten: Final = torch.ops.aten

_ANYWHERE: Final = ("cpu", "cuda")

MISSTATED: Final[Mapping[Any, tuple[str, ...]]] = {
    _aten.roll.default: _ANYWHERE,
    _aten.one_hot.default: _ANYWHERE,
    _aten.batch_norm.default: _ANYWHERE,
    _aten.index.Tensor: _ANYWHERE,
    # cuDNN takes the layout of the operand or of the weight by rules of its own.
    _aten.conv1d.default: ("cuda",),
    _aten.conv2d.default: ("cuda",),
    _aten.conv2d.padding: ("cuda",),
    _aten.conv3d.default: ("cuda",),
    _aten.conv_transpose2d.input: ("cuda",),
}
"""The operators, and the kinds of device on which the fake kernel may be wrong."""

Place = Callable[[torch.device], torch.device]


def restated(module: torch.fx.GraphModule, place: Place) -> dict[torch.fx.Node, Any]:
    """Fake tensors with eager's strides, for the nodes whose recorded strides may be wrong.

    Args:
        module: FX with torch's ``meta["val"]``.
        place: where a tensor of the graph will really be.
    """
    mode = FakeTensorMode()
    found: dict[torch.fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        doubtful = node.target in MISSTATED
        if not doubtful and not (found and any(arg in found for arg in node.all_input_nodes)):
            continue
        operands = {arg: found.get(arg, arg.meta.get("val")) for arg in node.all_input_nodes}
        if not all(_is_static(item) for item in operands.values()):
            continue
        if doubtful and _has_a_choice(node, operands, place):
            result = _chosen(node, operands, mode, place)
        elif operands.keys() & found.keys():
            result = _derived(node, operands, mode)
        else:
            continue
        if result is not None:
            found[node] = result
    return found


def _is_static(value: Any) -> bool:
    return all(
        isinstance(leaf, bool | int | float)
        if not isinstance(leaf, torch.Tensor)
        else all(type(size) is int for size in (*leaf.shape, *leaf.stride()))
        for leaf in tree_leaves(value)
    )


def _has_a_choice(node: torch.fx.Node, operands: Mapping[torch.fx.Node, Any], place: Place) -> bool:
    """Whether the fake kernel may be wrong: contiguous operands leave the real one no choice."""
    tensors = [leaf for leaf in tree_leaves([*operands.values()]) if isinstance(leaf, torch.Tensor)]
    return any(
        not leaf.is_contiguous() and place(leaf.device).type in MISSTATED[node.target]
        for leaf in tensors
    )


def _chosen(
    node: torch.fx.Node, operands: Mapping[torch.fx.Node, Any], mode: FakeTensorMode, place: Place
) -> Any:
    """What the real kernel returns, as a fake tensor; None where it can't run."""
    result = _run(node, {k: tree_map(lambda t: _zeros(t, place), v) for k, v in operands.items()})
    with mode:
        return tree_map(_like, result)


def _derived(
    node: torch.fx.Node, operands: Mapping[torch.fx.Node, Any], mode: FakeTensorMode
) -> Any:
    with mode:
        return _run(node, {key: tree_map(_like, item) for key, item in operands.items()})


def _run(node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
    if node.target is not operator.getitem and not isinstance(node.target, OpOverload):
        return None
    target: Callable[..., Any] = node.target
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        with torch.no_grad():
            return target(*args, **kwargs)
    except Exception:  # an operator that needs real data: the strides stay as recorded
        return None


def _zeros(value: Any, place: Place) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    made = torch.empty_strided(
        value.shape, value.stride(), dtype=value.dtype, device=place(value.device)
    )
    return made if 0 in value.stride() else made.zero_()


def _like(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
