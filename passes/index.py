"""Which rules may match at a node: looked up, not tried one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from rewright.errors import RuleError
from rewright.ir.graph import Node
from rewright.ir.ops import Op
from rewright.passes.matcher import Plan
from rewright.passes.outline import producers
from rewright.passes.pattern_compiler import compile_rule
from rewright.passes.rule import REFOLD, Exactness, Rule, is_rule

_compiled: Final[dict[type[Rule], tuple[Plan, ...]]] = {}


def plans_of(rule: type[Rule]) -> tuple[Plan, ...]:
    """The programs of a rule, made when first asked for."""
    if rule not in _compiled:
        _compiled[rule] = compile_rule(rule)
    return _compiled[rule]


class RuleIndex:
    """Rules in the order in which they are tried, by the op of a root and what feeds it.

    Order: higher priority first, then the order of `rules`; of one rule, the order of its
    patterns, and of one pattern with several roots, the order of those.

    Args:
        rules: Rule classes.
        exactness: rules that are less exact are left out.

    Raises:
        RuleError: something is no rule, or two rules have one name.
    """

    def __init__(self, rules: Sequence[type[Rule]], exactness: Exactness = REFOLD) -> None:
        _check(rules)
        allowed = [rule for rule in rules if rule.exactness <= exactness]
        self.rules = tuple(sorted(allowed, key=lambda rule: -rule.priority))
        self.plans = tuple(plan for rule in self.rules for plan in plans_of(rule))
        self.depth = max((plan.depth for plan in self.plans), default=0)
        self.most_uses = max((plan.most_uses for plan in self.plans), default=0)
        self._by_op: dict[Op, tuple[Plan, ...]] = {}
        self._reach: dict[Op, tuple[int, int]] = {}
        self._by_place: dict[tuple[Op, frozenset[Any]], tuple[Plan, ...]] = {}

    def lookup(self, node: Node) -> tuple[Plan, ...]:
        """What may match at `node`, in order."""
        key = (node.op, producers(node))
        found = self._by_place.get(key)
        if found is None:
            op, fed = key
            found = tuple(
                plan for plan in self.of_op(op) if any(needs.admit(op, fed) for needs in plan.needs)
            )
            self._by_place[key] = found
        return found

    def of_op(self, op: Op) -> tuple[Plan, ...]:
        """What may start from a node of `op`, in order."""
        found = self._by_op.get(op)
        if found is None:
            found = tuple(p for p in self.plans if any(n.admits_op(op) for n in p.needs))
            self._by_op[op] = found
        return found

    def reach(self, op: Op) -> tuple[int, int]:
        """How far below a node of `op` a change may matter: to matches there, and further up."""
        found = self._reach.get(op)
        if found is None:
            there = (plan.depth for plan in self.of_op(op))
            above = (below for plan in self.plans for takes, below in plan.inside if takes(op))
            found = self._reach[op] = (max(there, default=0), max(above, default=0))
        return found


def _check(rules: Iterable[Any]) -> None:
    names: dict[str, Any] = {}
    for rule in rules:
        if not is_rule(rule):
            raise RuleError(
                f"{rule!r} is no rule",
                hint="pass classes derived from Rule that have a `pattern`, not instances",
            )
        other = names.setdefault(rule.name, rule)
        if other is not rule:
            raise RuleError(
                f"two rules are called {rule.name}",
                rule=rule.name,
                where=f"{other.location} and {rule.location}",
                hint="give one of them another `name`",
            )


@lru_cache(maxsize=64)
def index_of(rules: tuple[type[Rule], ...], exactness: Exactness) -> RuleIndex:
    """The index of `rules`, remembered."""
    return RuleIndex(rules, exactness)
