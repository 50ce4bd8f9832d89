"""Passes with mistakes in them, for the instruments to find. Loaded with ``--load``, too."""

import attrs

from rewright.passes import EXACT, Attr, Maybe, Rule, Tensor, aten, rw
from rewright.passes.manager import Pass
from rewright.passes.registry import register_pass
from rewright.passes.rule_pass import RulePass


class RightLinear(Rule):
    """linear(x, w, b)  ->  rw.linear(x, w, b)"""

    def pattern(self, x, w, b: Maybe):
        return aten.linear(x, w, b)

    def replace(self, x, w, b):
        return rw.linear(x, w, b)


class RightGelu(Rule):
    """gelu(x)  ->  x * Phi(x)"""

    def pattern(self, x):
        return aten.gelu(x)

    def replace(self, x):
        return x * 0.5 * (1 + aten.erf(x * 0.5**0.5))


class DropMask(Rule):
    """attention(q, k, v, mask)  ->  attention(q, k, v)      in layer 7: which is wrong"""

    exactness = EXACT

    def pattern(self, q, k, v, mask: Tensor(), scale: Attr):
        return aten.scaled_dot_product_attention(q, k, v, mask, scale=scale)

    def where(self, q):
        node = q.value.producer
        return node is not None and "layer.7." in str(node.loc)

    def replace(self, q, k, v, scale):
        return aten.scaled_dot_product_attention(q, k, v, scale=scale)


class LeakyRelu(Rule):
    """relu(x)  ->  leaky_relu(x)      which is wrong for numbers below zero"""

    def pattern(self, x):
        return aten.relu(x)

    def replace(self, x):
        return aten.leaky_relu(x)


class AbsByMax(Rule):
    """abs(x)  ->  max(x, -x)"""

    def pattern(self, x):
        return aten.abs(x)

    def replace(self, x):
        return aten.maximum(x, -x)


@register_pass
class PlantedFusions(RulePass):
    """Two right rules, and one that forgets the mask."""

    rules = (RightLinear, RightGelu, DropMask)


@register_pass
class PlantedUnary(RulePass):
    """A right rule, and a wrong one."""

    rules = (AbsByMax, LeakyRelu)


@register_pass
@attrs.frozen
class PlantedCrash(Pass):
    """Fails at the first tanh.

    Attributes:
        depth: written into the message.
    """

    depth: int = 1

    def run(self, graph, context):
        for node in graph:
            if node.op.name == "aten.tanh":
                raise KeyError(f"no table for {node.op.name} at depth {self.depth}")


@register_pass
class PlantedBreak(Pass):
    """Gives every value the wrong dtype."""

    def run(self, graph, context):
        import torch

        for node in graph:
            for value in node.results:
                value.type = attrs.evolve(value.type, dtype=torch.float64)


@register_pass
class PlantedAmnesia(Pass):
    """Sums instead of squaring, without any rule."""

    def run(self, graph, context):
        from rewright.ir.builder import Builder

        for node in graph:
            if node.op.name == "aten.square":
                build = Builder(graph, before=node, loc=node.loc)
                node.result.replace_all_uses(build.call("aten.add.Tensor", *node.operands * 2))
                node.erase()
