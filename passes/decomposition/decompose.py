"""Takes apart what nothing later knows whole, by torch's own definitions.

    %y = op(%x)    ->  what torch's decomposition of op calls, in the imported normal form

An op is taken apart where

* the normal form ``decomposed`` (:mod:`rewright.ir.stages`) bans it: composite ops, but for those
  that rules and backends know;
* the compile names it in `apart`;
* there are backends besides Torch, none of them takes the node, and one takes *everything* that it
  is made of: what would stay in Torch anyway, stays whole.

And never where the compile names it in `whole`. Policies are functions of this shape, so what a
backend can take is asked of the backend, node by node, and no list here says it:

    def must_go(node: Node) -> str | None:
        \"\"\"Why `node` is to be taken apart; None where it may stay whole.\"\"\"

Source lines stay, sizes stay exact, and nothing is assumed about them: where a decomposition would
need a guard, there is none. What had to go and could not is in the report of the pass, with the
reason, and the graph does not count as ``decomposed`` then; `strict` makes that an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from rewright.errors import UnsupportedError
from rewright.ir.attributes import map_leaves
from rewright.ir.builder import bind_operands
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.location import Location
from rewright.ir.stages import KEPT, STAGES, check_stage, is_composite
from rewright.passes.decomposition.tracing import Ref, Refusal, Template, same_type, template_of
from rewright.passes.facts import ranges_of
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass
from rewright.statistics import record

_log: Final = logging.getLogger(__name__)

Policy: TypeAlias = "Callable[[Node], str | None]"
"""Why a node is to be taken apart; None where it may stay whole."""

STAGE: Final = "decomposed"
_DEPTH: Final = 4
"""So often what an op is made of is taken apart again, to please a backend."""


@attrs.frozen
class Left:
    """A node that was to be taken apart, and stays.

    Attributes:
        op: the name of its op.
        where: the user's line and module; empty where unknown.
        wanted: why it was to go.
        reason: why it could not.
    """

    op: str
    where: str
    wanted: str
    reason: str

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.op}{place} stays whole: {self.reason} (it {self.wanted})"


@register_pass
@attrs.frozen
class Decompose(Pass):
    """op(x)  ->  what torch makes it of, where nothing later knows it whole

    Attributes:
        whole: names of ops that stay.
        apart: names of ops that go wherever they can.
        backends: whether to ask backends: not before what they would not take has been fused.
        strict: whether it is an error if one stays that the normal form does not have.
    """

    whole: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    backends: bool = True
    strict: bool = False

    def run(self, graph: Graph, context: PassContext) -> None:
        """Takes apart what has to be, in `graph`, its regions and its recipes."""
        work = _Work(self, context)
        work.run(graph)
        if graph.has_recipes:
            work.run(graph.prepare)
        context.reports[self.name] = tuple(work.left)
        for item in work.left:
            _log.info("%s", item)
        banned = check_stage(graph, STAGE)
        if banned and self.strict:
            raise UnsupportedError(
                f"{len(banned)} nodes can't be decomposed: " + "; ".join(map(str, work.left)),
                op=banned[0].node.op.name,
                where=str(banned[0].node.loc or ""),
                hint="leave out `strict`, and they run in torch, whole",
            )
        if not banned:
            _has_reached(graph)


def _has_reached(graph: Graph) -> None:
    """Notes that `graph`, its regions and its recipes are decomposed, if they are not beyond."""
    order = [*STAGES]
    recipes = [graph.prepare] if graph.has_recipes else []
    regions = [r for part in (graph, *recipes) for node in part.walk() for r in node.regions]
    for part in (graph, *recipes, *regions):
        if order.index(part.stage) < order.index(STAGE):
            part.stage = STAGE


# --------------------------------------------------------------------------- policies


def by_normal_form(node: Node) -> str | None:
    """What the normal form does not have."""
    if node.op.name in KEPT or not is_composite(node.op):
        return None
    return "is made of simpler ops, and nothing later knows it whole"


def by_name(names: Iterable[str]) -> Policy:
    """What the compile names."""
    chosen = frozenset(names)
    return lambda node: "is to be taken apart" if node.op.name in chosen else None


def by_backends(backends: Sequence[Any]) -> Policy:
    """What no backend takes: each says yes or no by its `refuse`."""

    def must_go(node: Node) -> str | None:
        reasons = [(backend.name, backend.refuse(node)) for backend in backends]
        if any(reason is None for _, reason in reasons):
            return None
        return "; ".join(f"is nothing for {name}: {reason}" for name, reason in reasons) or None

    return must_go


# --------------------------------------------------------------------------- the work


class _Work:
    """One run of the pass."""

    def __init__(self, options: Decompose, context: PassContext) -> None:
        self.options = options
        self.context = context
        self.required: tuple[Policy, ...] = (by_normal_form, by_name(options.apart))
        asked = tuple(context.backends.values()) if options.backends else ()
        self.wanted = by_backends(asked)
        self.left: list[Left] = []

    def run(self, graph: Graph) -> None:
        """Takes apart the nodes of `graph` and of its regions."""
        none: frozenset[Hashable] = frozenset()
        pending = [(node, none) for node in graph.walk()][::-1]
        while pending:
            node, above = pending.pop()
            if node.op.name in self.options.whole:
                continue
            known = _call_of(node)
            why = next(filter(None, (policy(node) for policy in self.required)), None)
            made: list[Node] | Refusal
            if why is None and (why := self.wanted(node)) is not None:
                useless = self.would_not_help(node, _DEPTH)
                made = self.replace(node, above) if useless is None else Refusal(useless)
            elif why is not None:
                made = self.replace(node, above)
            else:
                continue
            if isinstance(made, Refusal):
                self.left.append(Left(node.op.name, str(node.loc or ""), why, made.reason))
            else:
                pending += [(part, above | {known}) for part in reversed(made)]

    def replace(self, node: Node, above: frozenset[Hashable]) -> list[Node] | Refusal:
        """Puts what `node`, a part of the calls `above`, is made of in its place; the new nodes."""
        if _call_of(node) in above:
            return Refusal("it is made of itself")
        template = _template(node)
        if isinstance(template, Refusal):
            return template
        made, results = insert(template, node)
        self.count(node)
        substitute(node, results)
        return made

    def would_not_help(self, node: Node, depth: int) -> str | None:
        """Why no backend would take all that `node` is made of; None where one does."""
        template = _template(node)
        if isinstance(template, Refusal):
            return template.reason
        graph = node.graph
        made, _ = insert(template, node)
        try:
            for part in made:
                why = self.wanted(part)
                if why is not None and (not depth or self.would_not_help(part, depth - 1)):
                    return f"it is made of {part.op.name}, which {why}"
            return None
        finally:
            graph.erase(made)

    def count(self, node: Node) -> None:
        self.context.applied.hits[f"decompose-{node.op.name}"] += 1
        record(rewrites=1)


def _call_of(node: Node) -> Hashable:
    """What tells a call from others of its op: torch defines some ops by themselves, smaller."""
    return node.op, node.attributes.key, tuple(value.type for value in node.operands)


def _template(node: Node) -> Template | Refusal:
    """What `node` is made of, if its results keep their types."""
    graph = node.graph
    if node.regions:
        return Refusal("it has regions")
    if any(info.binding.owner is node for info in graph.symbols.values()):
        return Refusal("it gives a size that something mentions")
    ranges = ranges_of(graph)
    template = template_of(
        node.op,
        node.attributes,
        [value.type for value in node.operands],
        ranges=ranges,
        device=graph.device,
    )
    if isinstance(template, Refusal):
        return template
    for value, found in zip(node.results, template.types, strict=False):
        if value.has_uses and not same_type(value.type, found, ranges):
            return Refusal(f"a {value.type} would become a {found}")
    if len(template.results) < len(node.results):
        return Refusal(f"it has {len(node.results)} results, and {len(template.results)} are made")
    return template


def insert(template: Template, node: Node) -> tuple[list[Node], list[Value]]:
    """Puts the nodes of `template` before `node`; they, and what stands for its results."""
    graph, loc = node.graph, (node.loc or Location()).made_by("decompose")
    made: list[Node] = []

    def value(ref: Ref) -> Value:
        return node.operands[ref.index] if ref.step is None else made[ref.step].results[ref.index]

    def put(leaf: Any) -> Any:
        return value(leaf) if isinstance(leaf, Ref) else leaf

    for step in template.steps:
        named = {name: map_leaves(item, put) for name, item in step.arguments.items()}
        operands, attributes, _ = bind_operands(step.op.bind((), named))
        made.append(graph.insert(Node(step.op, operands, attributes, step.types, loc=loc), node))
    return made, [value(ref) for ref in template.results]


def substitute(node: Node, results: Sequence[Value]) -> None:
    """Makes `results` stand for those of `node`, which goes."""
    fresh = set(node.operands)
    for old, new in zip(node.results, results, strict=False):
        if new not in fresh and not new.hint:
            new.hint = old.hint
        old.replace_all_uses(new)
    node.erase()
