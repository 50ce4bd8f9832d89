"""The normal form of each stage: which ops may appear after it, and why the others may not.

=============  ====================================================================
stage          what holds
=============  ====================================================================
imported       values are pure: nothing mutates, copies for memory's sake, asks a tensor for its
               size, sets a mode, or trains
decomposed     and composite ops are gone, but for those that rules and backends know whole
fused          and what one op of ours says is said by that op
segment        the body of a segment of a fused graph: like that, with no segments inside
=============  ====================================================================

A form is data: a row for each reason, with the ops it is about. A graph names the last form that
it reached in ``Graph.stage``; :mod:`rewright.ir.verifier` holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import attrs
import torch

from rewright.errors import VerificationError, did_you_mean
from rewright.ir.graph import Graph, Node
from rewright.ir.ops import SEGMENT, Op


@attrs.frozen
class Ban:
    """Nodes that may not appear, and why.

    Attributes:
        reason: completes "aten.view may not appear: it ...".
        ops: names of ops; with `when`, all ops where empty.
        when: which nodes of those ops; all by default.
    """

    reason: str
    ops: frozenset[str] = frozenset()
    when: Callable[[Node], bool] = lambda _: True

    def holds_for(self, node: Node) -> bool:
        """Whether `node` is banned."""
        return (not self.ops or node.op.name in self.ops) and self.when(node)


@attrs.frozen
class Violation:
    """A node that may not appear in a graph of its stage."""

    node: Node
    reason: str

    def __str__(self) -> str:
        return f"{self.node.op.name} may not appear: it {self.reason}"


def _ops(names: str, prefix: str = "aten.") -> frozenset[str]:
    return frozenset(prefix + name for name in names.split())


# --------------------------------------------------------------------------- imported


def _trains(node: Node) -> bool:
    """Whether the flag that says "training" is set (and statistics are kept, for a batch norm)."""
    return any(_given(node, name) for name in ("train", "training")) and not (
        "running_mean" in node.attributes and node.attributes["running_mean"] is None
    )


def _given(node: Node, name: str) -> Any:
    try:
        return node.arg(name)
    except KeyError:
        return None


def _mutates(node: Node) -> bool:
    return bool(node.op.is_torch and node.op.target._schema.is_mutable)


_IMPORTED: Final = (
    Ban("mutates an argument; values are pure, and write-backs say what changes", when=_mutates),
    Ban(
        "is a view for its own sake, and values have no memory: aten.reshape says the same",
        _ops(
            "view _unsafe_view view_as view_copy reshape_as _reshape_alias _reshape_copy "
            "flatten.using_ints unflatten.int ravel"
        ),
    ),
    Ban(
        "gives back the same numbers, and values have no memory: its operand says the same",
        _ops(
            "detach detach_copy alias alias_copy clone contiguous lift lift_fresh "
            "lift_fresh_copy positive resolve_conj resolve_neg"
        ),
    ),
    Ban(
        "asks a tensor for what its type says: sizes are expressions in attributes",
        _ops(
            "sym_size sym_size.int sym_stride sym_stride.int sym_numel sym_storage_offset "
            "sym_is_contiguous size size.int stride stride.int numel dim is_contiguous "
            "is_contiguous.memory_format storage_offset _shape_as_tensor "
            "sym_constrain_range sym_constrain_range_for_size _assert_tensor_metadata"
        ),
    ),
    Ban(
        "sets a mode for a subgraph: what it wraps stands in the graph itself",
        _ops(
            "wrap_with_set_grad_enabled wrap_with_autocast wrap wrap_activation_checkpoint "
            "tag_activation_checkpoint strict_mode hints_wrapper invoke_subgraph",
            "higher_order.",
        ),
    ),
    Ban(
        "is the functional form of a mutation by torch's own means: "
        "rw.functional and write-backs say the same",
        _ops("auto_functionalized auto_functionalized_v2 with_effects", "higher_order."),
    ),
    Ban(
        "drops at random or updates batch statistics: this is training",
        _ops(
            "dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout "
            "batch_norm native_batch_norm cudnn_batch_norm _batch_norm_impl_index "
            "_native_batch_norm_legit _native_batch_norm_legit_functional "
            "rrelu rrelu_with_noise"
        ),
        when=_trains,
    ),
)

# --------------------------------------------------------------------------- decomposed

KEPT: Final = _ops(
    # what rules over ops of ours start from
    "linear matmul scaled_dot_product_attention layer_norm rms_norm group_norm batch_norm "
    "instance_norm conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding "
    "conv_transpose1d conv_transpose2d.input conv_transpose3d.input "
    # what backends take whole
    "reshape softmax.int log_softmax.int pad max_pool1d max_pool2d max_pool3d avg_pool1d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d.vec "
    "upsample_nearest2d.vec upsample_nearest3d.vec _upsample_nearest_exact2d.vec "
    "upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec "
    "upsample_bicubic2d.vec grid_sampler lstm.input gru.input item chunk "
    # what masks are read from
    "diff"
)
"""Composite ops that stay whole through decomposition."""


@lru_cache(maxsize=4096)
def is_composite(op: Op) -> bool:
    """Whether torch computes `op` by other ops (a ``CompositeImplicitAutograd`` kernel)."""
    return bool(
        op.is_torch
        and torch._C._dispatch_has_kernel_for_dispatch_key(
            op.target.name(), "CompositeImplicitAutograd"
        )
    )


def _should_be_decomposed(node: Node) -> bool:
    return is_composite(node.op) and node.op.name not in KEPT


_DECOMPOSED: Final = (
    *_IMPORTED,
    Ban("is made of simpler ops, and nothing later knows it whole", when=_should_be_decomposed),
)

# --------------------------------------------------------------------------- fused

_FUSED: Final = (
    *_DECOMPOSED,
    *(
        Ban(f"is {ours} in other words", _ops(names))
        for ours, names in {
            "rw.linear": "linear addmm",
            "rw.matmul": "matmul mm bmm mv dot",
            "rw.layer_norm": "layer_norm native_layer_norm",
            "rw.rms_norm": "rms_norm _fused_rms_norm",
            "rw.group_norm": "group_norm native_group_norm",
            "rw.conv": "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding "
            "conv_transpose1d conv_transpose2d.input conv_transpose3d.input convolution",
        }.items()
    ),
)

_NESTED: Final = Ban("is a segment, and segments don't nest", frozenset((SEGMENT.name,)))

_SEGMENT: Final = (*_FUSED, _NESTED)

STAGES: Final[dict[str, tuple[Ban, ...]]] = {
    "imported": _IMPORTED,
    "decomposed": _DECOMPOSED,
    "fused": _FUSED,
    "segment": _SEGMENT,
}
"""What may not appear in a graph that has reached each stage; each forbids what the last did."""


def check_stage(graph: Graph, stage: str) -> list[Violation]:
    """The nodes of `graph`, its recipes and regions that may not appear in a graph of `stage`.

    The bodies of segments are held to the same, and hold no segments.

    Raises:
        VerificationError: there is no such stage.
    """
    if stage not in STAGES:
        raise VerificationError(f"there is no stage {stage!r}", hint=did_you_mean(stage, STAGES))
    nodes = [*graph, *(graph.prepare if graph.has_recipes else ())]
    return list(_violations(nodes, STAGES[stage]))


def _violations(nodes: Iterable[Node], bans: tuple[Ban, ...]) -> Iterable[Violation]:
    for node in nodes:
        broken = next((ban for ban in bans if ban.holds_for(node)), None)
        if broken is not None:
            yield Violation(node, broken.reason)
        inner = (*bans, _NESTED) if node.op is SEGMENT else bans
        for region in node.regions:
            yield from _violations(region, inner)
