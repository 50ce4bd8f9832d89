"""The pass ``canonicalize``: what can be written in many ways is written in one.

Its rules stand by subject in :mod:`~rewright.passes.simplify.identities`, ``casts``, ``shapes``,
``slices``, ``logic`` and ``scalars``. They apply to the recipes of prepared constants, too.
"""

from __future__ import annotations

import attrs

from rewright.ir.graph import Graph
from rewright.passes.manager import PassContext
from rewright.passes.registry import register_pass
from rewright.passes.rule_pass import RulePass
from rewright.passes.simplify import casts, identities, logic, scalars, shapes, slices


@register_pass
@attrs.frozen
class Canonicalize(RulePass):
    """identities, chains of casts, shapes and slices, logic, numbers  ->  the shortest spelling"""

    rules = (
        *identities.RULES,
        *casts.RULES,
        *shapes.RULES,
        *slices.RULES,
        *logic.RULES,
        *scalars.RULES,
    )

    def run(self, graph: Graph, context: PassContext) -> None:
        """Applies the chosen rules to `graph` and its recipes."""
        super().run(graph, context)
        if graph.has_recipes:
            context.apply_rules(graph.prepare, self.chosen())
