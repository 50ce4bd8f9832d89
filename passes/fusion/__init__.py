"""Fusion: what many ops say together becomes one op of ours (``rw.*``).

============================  ===============================================================
pass                          rules
============================  ===============================================================
``fuse-products``             :mod:`~rewright.passes.fusion.linear`, and the spellings of
                              :mod:`~rewright.passes.fusion.convolution`
``fuse-convolutions``         what is folded into the weights of a convolution
``fuse-norms``                :mod:`~rewright.passes.fusion.normalization`
``fuse-activations``          :mod:`~rewright.passes.fusion.activations`, then
                              :mod:`~rewright.passes.fusion.gated`
``fuse-rotary``               :mod:`~rewright.passes.fusion.rotary`
``fuse-attention``            :mod:`~rewright.passes.fusion.attention`
``fuse``                      all of the above, in this order, in one go
``fuse-projections``          :mod:`~rewright.passes.fusion.projections`
``fuse-conv-relu``            :mod:`~rewright.passes.fusion.convolution_epilogues`
============================  ===============================================================

Why this order. Products come first: all that follows is written for one spelling of them. An
activation gets its name before a gate asks for it. Projections are merged last and by a pass of
their own: they need weights that are constants, so ``fold-constants`` goes before it (a transposed
weight is a recipe by then), and they cost bytes, so a pipeline may leave it out. Where a scale
could go into a weight or into an attention, attention takes it: that costs none.

    cse,fuse,dce                     what is said below is found
    cse,fuse,fold-constants,fuse-projections,fold-constants,cse,dce        the whole of it
"""

from __future__ import annotations

from rewright.passes.fusion import (
    activations,
    attention,
    convolution,
    convolution_epilogues,
    gated,
    linear,
    normalization,
    projections,
    rotary,
)
from rewright.passes.registry import register_pass
from rewright.passes.rule_pass import RulePass


@register_pass
class FuseProducts(RulePass):
    """linear, addmm, matmul, conv2d ...  ->  rw.linear, rw.matmul, rw.conv"""

    rules = (*linear.RULES, *convolution.SPELLINGS)


@register_pass
class FuseConvolutions(RulePass):
    """batch norm, bias and padding  ->  into the convolution"""

    rules = convolution.RULES


@register_pass
class FuseNorms(RulePass):
    """layer, RMS and group norms, from ops and formulas  ->  rw.layer_norm ..."""

    rules = normalization.RULES


@register_pass
class FuseActivations(RulePass):
    """activations spelled out, and gates  ->  gelu, silu ..., rw.gated"""

    rules = (*activations.RULES, *gated.RULES)


@register_pass
class FuseRotary(RulePass):
    """rotary embeddings spelled out  ->  rw.rope"""

    rules = rotary.RULES


@register_pass
class FuseAttention(RulePass):
    """attention, torch's and spelled out  ->  rw.attention"""

    rules = attention.RULES


@register_pass
class Fuse(RulePass):
    """all fusions that cost no bytes  ->  ops of ours"""

    rules = (
        *FuseProducts.rules,
        *FuseConvolutions.rules,
        *FuseNorms.rules,
        *FuseActivations.rules,
        *FuseRotary.rules,
        *FuseAttention.rules,
    )


@register_pass
class FuseConvRelu(RulePass):
    """relu(conv + residual)  ->  rw.conv_relu"""

    rules = convolution_epilogues.RULES


@register_pass
class FuseProjections(RulePass):
    """linears of one input  ->  one linear, split"""

    rules = projections.RULES
