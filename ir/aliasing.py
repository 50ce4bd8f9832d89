"""Which values of a graph may share memory when torch computes it.

Values of the IR are pure, but torch's views and many of its composites return their argument's
memory where they can. So before a program hands a tensor out as fresh, or overwrites an input,
it has to know what may lie under it. Each value is given its *roots*: the inputs, constants and
results whose memory it may use. Values whose roots are disjoint never share memory; others are
compared when the program runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import torch
from torch._ops import OpOverload

from rewright.ir.attributes import Operand, leaves
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.in_place import in_place
from rewright.ir.ops import Op
from rewright.ir.types import TensorType

Roots = Mapping[Value, frozenset[Value]]
"""For each value, whose memory it may use."""

UNDECLARED: Final = frozenset(
    "aten._unsafe_view aten.unsafe_split.Tensor aten.unsafe_split_with_sizes aten.unsafe_chunk "
    "aten.lift aten.lift_fresh".split()
)
"""Ops with kernels of their own that return an argument's memory and don't say so."""

FRESH: Final = frozenset(
    "linear matmul bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input "
    "conv_transpose3d.input layer_norm rms_norm group_norm batch_norm instance_norm softmax.int "
    "log_softmax.int scaled_dot_product_attention max_pool1d max_pool2d max_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d silu relu6 selu "
    "cross_entropy_loss outer where.Scalar where.ScalarSelf where.ScalarOther cosine_similarity "
    "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec upsample_bilinear2d.vec "
    "upsample_linear1d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec one_hot".split()
)
"""Composites of aten that always compute a new tensor, as most do; the frequent ones."""


FRESH_OURS: Final = frozenset(
    f"rw.{name}"
    for name in (
        "linear matmul conv conv_relu attention layer_norm rms_norm group_norm rope gated"
    ).split()
)
"""Ops of ours that always compute a new tensor, whatever implements them."""


def roots_of(graph: Graph, forms: Mapping[Node, Op] = MappingProxyType({})) -> Roots:
    """The roots of every value of `graph`; those of its regions are not looked into.

    Args:
        graph: the graph.
        forms: ops that nodes are taken to have in the place of their own.
    """
    roots: dict[Value, frozenset[Value]] = {}
    for value in (*graph.inputs, *graph.constants.values()):
        roots[value] = frozenset([value])
    for node in graph:
        op = forms.get(node, node.op)
        if (form := in_place(op)) is not None:
            lent: list[Value] = []
            for result, operand in form.taken(node):
                roots[result] = roots[operand]
        else:
            lent = [*_lent(node)]
        shared = frozenset[Value]().union(*(roots[value] for value in lent))
        for index, result in enumerate(node.results):
            if result in roots:
                continue
            own = result if is_declared(op) else node.results[0]
            roots[result] = shared | {own} if may_alias(op, index) else frozenset([own])
    return roots


def _lent(node: Node) -> Iterator[Value]:
    """The operands whose memory a result of `node` may use."""
    for name, attribute in node.attributes.items():
        if may_lend(node.op, name):
            for leaf in leaves(attribute):
                if isinstance(leaf, Operand):
                    value = node.operands[leaf.index]
                    if isinstance(value.type, TensorType):
                        yield value


@cache
def may_alias(op: Op, result: int) -> bool:
    """Whether result number `result` of `op` may use the memory of an operand."""
    if op.name in FRESH_OURS:
        return False
    if not isinstance(op.target, OpOverload):
        return True
    returns = op.target._schema.returns
    declared = returns[min(result, len(returns) - 1)].alias_info is not None
    return declared or not is_declared(op)


@cache
def may_lend(op: Op, param: str) -> bool:
    """Whether a result of `op` may use the memory of what is given for `param`."""
    if op.name in FRESH_OURS:
        return False
    if not is_declared(op):
        return True
    return any(
        argument.name == param and argument.alias_info is not None
        for argument in op.target._schema.arguments
    )


@cache
def is_declared(op: Op) -> bool:
    """Whether the schema of `op` tells all that its results may alias.

    A kernel's does. A composite may return its argument where there is nothing to do (``type_as``,
    ``dropout``), and for an op that isn't torch's own there is only its author's word.
    """
    if not isinstance(op.target, OpOverload) or op.name in UNDECLARED:
        return False
    namespace, _, name = op.name.partition(".")
    if namespace == "prims" or (namespace == "aten" and name in FRESH):
        return True
    return namespace == "aten" and not is_composite(op.target)


def is_composite(target: OpOverload) -> bool:
    """Whether torch computes `target` by calling other operators."""
    has_kernel: Any = torch._C._dispatch_has_kernel_for_dispatch_key
    name = str(target.name())  # type: ignore[no-untyped-call]
    return bool(has_kernel(name, "CompositeImplicitAutograd"))
