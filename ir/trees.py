"""What can be known of a tree from its spec alone: subtrees, and what their places are called."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import SUPPORTED_NODES, SequenceKey, TreeSpec


def children(spec: TreeSpec) -> list[TreeSpec]:
    """The subtrees of `spec` (older torch has no method for them)."""
    return spec.children() if hasattr(spec, "children") else list(spec.children_specs)


def is_leaf(spec: TreeSpec) -> bool:
    """Whether `spec` stands for one value."""
    return spec.num_nodes == 1 and spec.num_leaves == 1


def child_keys(spec: TreeSpec) -> list[Any]:
    """How a caller gets from an object of `spec` to each of its subtrees, as torch's keys.

    Places of classes that don't say are numbered.
    """
    below = children(spec)
    with_keys = getattr(SUPPORTED_NODES.get(spec.type), "flatten_with_keys_fn", None)
    found: list[Any] = []
    if with_keys is not None:
        # Only an object is asked for its keys, so one is made. The class is somebody else's, and
        # may refuse in any way.
        try:
            found = [key for key, _ in with_keys(_made(spec))[0]]
        except Exception:
            found = []
    if len(found) != len(below):
        return [SequenceKey(number) for number in range(len(below))]
    return found


def _made(spec: TreeSpec) -> Any:
    """An object of `spec`, with tensors for leaves: a cache of keys takes nothing else."""
    if is_leaf(spec):
        return torch.empty(0)
    return SUPPORTED_NODES[spec.type].unflatten_fn([*map(_stand_in, children(spec))], spec.context)


def _stand_in(spec: TreeSpec) -> Any:
    """An object of `spec`; a leaf where its class refuses, so that what is around it is made."""
    try:
        return _made(spec)
    except Exception:
        return torch.empty(0)
