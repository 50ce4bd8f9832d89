"""A pass made from a list of rules.

    @register_pass
    class MyFusions(RulePass):
        \"\"\"What my model needs.\"\"\"

        rules = (FuseThis, FuseThat)

It applies its rules until none applies. Pipelines can leave rules out:
``my-fusions{without=[fuse-that]}``, ``my-fusions{only=[fuse-this]}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs

from rewright.errors import PassError, did_you_mean
from rewright.ir.graph import Graph
from rewright.passes.manager import Pass, PassContext
from rewright.passes.rule import Rule, is_rule


@attrs.frozen
class RulePass(Pass):
    """Applies `rules` until none applies.

    Attributes:
        rules: in order of declaration.
        only: names of the rules to apply; all of them where empty.
        without: names of rules to leave out.
    """

    rules: ClassVar[Sequence[type[Rule]]] = ()

    only: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    without: tuple[str, ...] = attrs.field(default=(), kw_only=True)

    def __attrs_post_init__(self) -> None:
        known = [rule.name for rule in self.rules]
        for name in (*self.only, *self.without):
            if name not in known:
                raise PassError(
                    f"pass {self.name} has no rule {name!r}",
                    pass_name=self.name,
                    hint=did_you_mean(name, known),
                )

    def run(self, graph: Graph, context: PassContext) -> None:
        """Applies the chosen rules to `graph`."""
        context.apply_rules(graph, self.chosen())

    def chosen(self) -> tuple[type[Rule], ...]:
        """The rules to apply, in order."""
        return tuple(
            rule
            for rule in self.rules
            if rule.name not in self.without and (not self.only or rule.name in self.only)
        )

    @classmethod
    def all_rules(cls) -> tuple[type[Rule], ...]:
        """The rules of this pass.

        Raises:
            PassError: something in `rules` is no rule.
        """
        for rule in cls.rules:
            if not is_rule(rule):
                raise PassError(
                    f"pass {cls.name} lists {rule!r}, which is no rule",
                    pass_name=cls.name,
                    hint="list classes derived from Rule that have a `pattern`, not instances",
                )
        return tuple(cls.rules)
