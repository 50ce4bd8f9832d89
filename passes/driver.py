"""Applying rules to a graph until none applies.

A worklist starts with all nodes, the first on top. At each node the rules that may match are tried
in their order (:class:`~rewright.passes.index.RuleIndex`); the first that matches is applied. What
a rewrite may have made possible comes on top of the list again: the new nodes, those above a
changed value as far up as patterns reach down, and those around a value that lost a use. Nodes
that nothing uses are erased when met. So every match there is gets tried, in an order that depends
on nothing but the graph and the rules, and a graph that needs no rewrite is visited once.

Where matches overlap, the first one found wins: nodes in graph order, rules in their order. Its
nodes are gone then, and the other match with them.

Rewriting ends, or it is an error: every new node knows how many rewrites in a row led to it, each
of which replaced only what the ones before had made. A chain that is too long is rules undoing
each other (or one firing on its own output), and the error names them. So is an absurd total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Final, Protocol

import attrs

from rewright.errors import RuleError
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.location import Location
from rewright.passes.handles import name_of
from rewright.passes.index import RuleIndex, index_of
from rewright.passes.matcher import Match, Plan
from rewright.passes.reasons import NoMatch
from rewright.passes.rewriting import Rewrite, rewrite
from rewright.passes.rule import REFOLD, Exactness, Rule
from rewright.statistics import record

CHAIN_LIMIT: Final = 256
"""So many rewrites may follow from one another with nothing new coming in."""

_SHOWN: Final = 8
"""So many steps of a cycle are looked for, and shown."""


class Observer(Protocol):
    """What may watch a driver, and stop it from rewriting."""

    def may_rewrite(self, rule: type[Rule], match: Match) -> bool:
        """Whether `rule` may be applied to what it matched; False leaves the graph as it is."""

    def on_rewrite(self, done: Rewrite) -> None:
        """Called after each rewrite."""


@attrs.define
class Applied:
    """What :func:`apply_rules` did.

    Attributes:
        hits: how often each rule was applied, by name; rules that were not are left out.
        seconds: the time that matching and rewriting took, by rule; empty unless asked for.
        visits: how many times a node was looked at.
        erased: how many nodes were erased because nothing used them.
    """

    hits: Counter[str] = attrs.field(factory=Counter)
    seconds: dict[str, float] = attrs.field(factory=dict)
    visits: int = 0
    erased: int = 0

    @property
    def rewrites(self) -> int:
        """How many rewrites there were."""
        return self.hits.total()

    @property
    def changed(self) -> bool:
        """Whether the graph was changed."""
        return bool(self.hits or self.erased)

    def add_time(self, rule: type[Rule], seconds: float) -> None:
        """Adds to the time that `rule` took."""
        self.seconds[rule.name] = self.seconds.get(rule.name, 0.0) + seconds


def apply_rules(
    graph: Graph,
    rules: Sequence[type[Rule]],
    *,
    exactness: Exactness = REFOLD,
    observer: Observer | None = None,
    timed: bool = False,
    budget: int | None = None,
) -> Applied:
    """Applies `rules` to `graph` and its regions, in place, until none applies.

    Args:
        graph: what to rewrite. Its recipes (``graph.prepare``) are a graph of their own.
        rules: in order of declaration.
        exactness: the least exact rules that may fire.
        observer: is told of each rewrite, and may forbid it.
        timed: whether to measure the time that each rule takes.
        budget: the most rewrites; by default 64 for each node, and 10000.

    Raises:
        RuleError: rules undo each other or never end, or a rule is wrong; names the rules.
    """
    driver = _Driver(graph, index_of(tuple(rules), exactness), observer, timed, budget)
    driver.run()
    record(rewrites=driver.applied.rewrites)
    return driver.applied


@attrs.frozen
class _Step:
    """One rewrite of a chain."""

    rule: str
    root: str
    loc: Location | None
    before: _Step | None
    length: int

    def __str__(self) -> str:
        return f"{self.rule} at {self.root}" + (f" ({self.loc})" if self.loc else "")


class _Driver:
    """One run over one graph."""

    def __init__(
        self,
        graph: Graph,
        index: RuleIndex,
        observer: Observer | None,
        timed: bool,
        budget: int | None,
    ) -> None:
        nodes = list(graph.walk())
        self.index = index
        self.observer = observer
        self.timed = timed
        self.left = 64 * len(nodes) + 10_000 if budget is None else budget
        self.applied = Applied()
        self.work = nodes[::-1]
        self.waiting = set(nodes)
        self.made_by: dict[Node, _Step] = {}

    def run(self) -> None:
        """Empties the worklist."""
        self.erase(node for node in self.work if _is_dead(node))
        work, waiting, lookup = self.work, self.waiting, self.index.lookup
        visits = 0
        while work:
            node = work.pop()
            waiting.discard(node)
            if not node.is_attached:
                continue
            visits += 1
            plans = lookup(node)
            if plans:
                self.visit(node, plans)
        self.applied.visits = visits

    def visit(self, node: Node, plans: Sequence[Plan]) -> None:
        """Applies the first of `plans` that matches at `node`."""
        for plan in plans:
            started = perf_counter() if self.timed else 0.0
            match = plan.match(node)
            fired = match is not None and self.apply(plan.rule, match)
            if self.timed:
                self.applied.add_time(plan.rule, perf_counter() - started)
            if fired:
                return

    def apply(self, rule: type[Rule], match: Match) -> bool:
        """Rewrites what `match` found, unless somebody refuses."""
        if self.observer is not None and not self.observer.may_rewrite(rule, match):
            return False
        moved = dict.fromkeys(use.node for value in match.roots for use in value.uses)
        fed = dict.fromkeys(value for node in match.nodes for value in node.operands)
        done = rewrite(rule, match)
        if isinstance(done, NoMatch):
            return False
        self.applied.hits[rule.name] += 1
        self.erase((*(v.owner for v in fed if isinstance(v.owner, Node)), *reversed(done.nodes)))
        self.above(value for value in fed if self.may_be_inside(value))
        self.above((value for user in moved for value in user.results), level=2)
        self.push([user for user in moved if user.is_attached])
        self.push([node for node in done.nodes if node.is_attached])
        self.note(rule, match, done)
        if self.observer is not None:
            self.observer.on_rewrite(done)
        return True

    def note(self, rule: type[Rule], match: Match, done: Rewrite) -> None:
        """Remembers the rewrite that made the new nodes; ends what does not end by itself."""
        gone = [node for node in match.nodes if not node.is_attached]
        steps = [self.made_by.pop(node, None) for node in gone]
        earlier = None if None in steps else min((s for s in steps if s), key=lambda s: s.length)
        length = earlier.length + 1 if earlier else 1
        step = _Step(rule.name, done.root.op.name, done.root.loc, earlier, length)
        self.made_by.update(dict.fromkeys(done.nodes, step))
        self.left -= 1
        if length > CHAIN_LIMIT or self.left < 0:
            raise _endless(step, length > CHAIN_LIMIT, self.applied)

    # -- dead nodes

    def erase(self, nodes: Iterable[Node]) -> None:
        """Erases those of `nodes` that are dead, and what is dead without them."""
        pending = [*nodes]
        freed: list[Value] = []
        while pending:
            node = pending.pop()
            if not node.is_attached or not _is_dead(node):
                continue
            operands = node.operands
            node.erase()
            self.applied.erased += 1
            pending += [value.owner for value in operands if isinstance(value.owner, Node)]
            freed += operands
        if freed:
            self.above(value for value in dict.fromkeys(freed) if self.may_be_inside(value))

    # -- what to look at again

    def may_be_inside(self, value: Value) -> bool:
        """Whether one use less may make room for a match that has `value` inside."""
        if isinstance(value.owner, Node) and not value.owner.is_attached:
            return False
        return len(value.uses) <= self.index.most_uses

    def above(self, values: Iterable[Value], level: int = 1) -> None:
        """Puts on top the nodes above `values`, as far up as a pattern may reach down."""
        seen: set[Node] = set()
        found: list[Node] = []
        users = dict.fromkeys(user for value in values for user in value.users)
        while users:
            higher: dict[Node, None] = {}
            for user in users:
                if user in seen:
                    continue
                seen.add(user)
                there, further = self.index.reach(user.op)
                if there >= level:
                    found.append(user)
                if further >= level:
                    higher.update(dict.fromkeys(u for value in user.results for u in value.users))
            users = higher
            level += 1
        self.push(found)

    def push(self, nodes: Sequence[Node]) -> None:
        """Puts `nodes` on top of the worklist, the first uppermost."""
        for node in reversed(nodes):
            if node not in self.waiting and not node.is_terminator:
                self.waiting.add(node)
                self.work.append(node)


def _is_dead(node: Node) -> bool:
    """Whether nothing would miss `node`."""
    for value in node.results:
        if value.has_uses:
            return False
    if not node.results or not all(inner.is_pure for inner in _with_regions(node)):
        return False
    return all(info.binding.owner is not node for info in node.graph.symbols.values())


def _with_regions(node: Node) -> Iterator[Node]:
    yield node
    for region in node.regions:
        yield from region.walk()


# --------------------------------------------------------------------------- what does not end


def _endless(last: _Step, is_chain: bool, applied: Applied) -> RuleError:
    """The error that names the rules that chase each other."""
    chain = _chain(last)
    period = _period(chain)
    cycle = chain[-period:] if period else chain[-_SHOWN:]
    names = list(dict.fromkeys(step.rule for step in cycle))
    if is_chain and period and len(names) == 1:
        what = f"rule {names[0]} keeps firing on its own output"
    elif is_chain and period:
        what = f"rules {' and '.join(names)} undo each other"
    elif is_chain:
        what = f"rules {', '.join(names)} keep rewriting what they made"
    else:
        what = f"{applied.hits.total()} rewrites and no end, the last by {', '.join(names)}"
    return RuleError(
        f"{what}:\n" + "\n".join(f"    {step}" for step in cycle),
        rule=names[0],
        where=last.loc,
        hint="let the `where` of one refuse what the other makes, or put them into passes that "
        "are not repeated together",
    )


def _chain(last: _Step) -> list[_Step]:
    """The steps that led to `last`, in order."""
    steps: list[_Step] = []
    step: _Step | None = last
    while step is not None and len(steps) <= CHAIN_LIMIT:
        steps.append(step)
        step = step.before
    return steps[::-1]


def _period(steps: Sequence[_Step]) -> int:
    """After how many steps the end of a chain repeats itself; 0 if it doesn't."""
    keys = [(step.rule, step.root) for step in steps[len(steps) // 2 :]]
    for period in range(1, min(len(keys) // 2, _SHOWN) + 1):
        if keys[period:] == keys[:-period]:
            return period
    return 0


# --------------------------------------------------------------------------- why not


def explain(graph: Graph, rule: type[Rule], node: Node | None = None) -> list[str]:
    """Why `rule` fires where it does and not elsewhere, one line for each node.

    Args:
        graph: is not changed.
        rule: a rule.
        node: the node to ask about; by default all whose op the rule starts from.
    """
    index = index_of((rule,), rule.exactness)
    asked = [n for n in graph.walk() if index.of_op(n.op)] if node is None else [node]
    return [_explain(rule, index, n) for n in asked]


def _explain(rule: type[Rule], index: RuleIndex, node: Node) -> str:
    name = name_of(node.results[0]) if node.results else "a node"
    place = f" ({node.loc.file}:{node.loc.line})" if node.loc and node.loc.file else ""
    at = f"{name} {node.op.name}{place}"
    plans = index.of_op(node.op)
    if not plans:
        return f"rule {rule.name} did not fire at {at}: it does not start from {node.op.name}"
    refusals: list[tuple[int, NoMatch]] = []
    for plan in plans:
        if plan.match(node, refusals) is not None:
            return f"rule {rule.name} matches at {at}"
    _, furthest = max(refusals, key=lambda refusal: refusal[0])
    return f"rule {rule.name} did not fire at {at}: {furthest}"
