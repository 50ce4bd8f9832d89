"""Doing one rewrite: from a match to new nodes in the graph, or to nothing changed at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import attrs

from rewright.errors import InferenceError, RuleError
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.location import Location
from rewright.ir.sizes import Ranges, same_shape
from rewright.ir.sizes import same as same_size
from rewright.ir.types import ScalarType, TensorType, Type
from rewright.passes.facts import UnknownFact, ranges_of
from rewright.passes.guard import failed, handles
from rewright.passes.handles import Handle, Making, name_of
from rewright.passes.matcher import Match
from rewright.passes.ops import interpreting
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import Rule


@attrs.frozen
class Rewrite:
    """What a rule did at one place.

    Attributes:
        rule: the rule.
        graph: the graph (or region) that changed.
        root: the first of the nodes that were replaced; erased by now.
        old: the values that were replaced, one for each root.
        new: the values that stand in for them, in the same order.
        nodes: the nodes that the rule made, in order.
        loc: where they come from.
    """

    rule: type[Rule]
    graph: Graph
    root: Node
    old: tuple[Value, ...]
    new: tuple[Value, ...]
    nodes: tuple[Node, ...]
    loc: Location


def rewrite(rule: type[Rule], match: Match) -> Rewrite | NoMatch:
    """Replaces what `match` found by what `rule` says.

    The roots are erased; what only they used is left for the caller to sweep.

    Returns:
        What was done; or why `replace` refused, and then nothing has changed. It counts as
        refused, too, where the type of what it makes would depend on the sizes, or can't be
        shown to be the root's for all of them.

    Raises:
        RuleError: `replace` failed, or returned something of another type than the root's.
    """
    graph = match.roots[0].graph
    making = Making(graph, location_of(rule, match))
    try:
        with interpreting(making):
            returned = rule.call("replace", handles(match))
        new = returned if isinstance(returned, NoMatch) else _values(rule, match, returned)
        anchor = new if isinstance(new, NoMatch) else _anchor(match, making.nodes, new)
    except UnknownFact as unknown:
        new = anchor = NoMatch("`replace` can't be told: {0}", unknown)
    except Exception as error:
        making.discard()
        if isinstance(error, InferenceError) and error.guard is not None:
            return NoMatch("{0}", error.message)
        if isinstance(error, RuleError) and error.rule:
            raise
        raise failed(rule, match, "replace", error) from error
    if isinstance(anchor, NoMatch):
        making.discard()
        return anchor
    assert not isinstance(new, NoMatch)
    return _commit(rule, match, making, new, anchor)


def location_of(rule: type[Rule], match: Match) -> Location:
    """Where new nodes come from: the root's line, and all rules that had a part in it."""
    found = [node.loc for node in match.nodes if node.loc is not None]
    known = next((loc for loc in found if loc.file or loc.module), None)
    merged = known or (found[0] if found else Location())
    for loc in found:
        for earlier in loc.rules:
            merged = merged.made_by(earlier)
    return merged.made_by(rule.name)


# --------------------------------------------------------------------------- what was returned


def _values(rule: type[Rule], match: Match, returned: Any) -> tuple[Value, ...] | NoMatch:
    """The replacing values, checked; or of which no one knows whether they are like the roots."""
    several = isinstance(returned, tuple | list)
    items = tuple(returned) if several else (returned,)
    if len(items) != len(match.roots):
        raise _wrong(
            rule, match, f"`replace` returned {len(items)} values for {len(match.roots)} roots"
        )
    for item in items:
        if not isinstance(item, Handle):
            raise _wrong(
                rule,
                match,
                f"`replace` returned {'None' if item is None else repr(item)}",
                "return the value that stands in for the root, or NoMatch(reason)",
            )
    values = tuple(item.value for item in items)
    ranges = ranges_of(match.roots[0].graph)
    for old, new in zip(match.roots, values, strict=True):
        same = _same_type(old.type, new.type, ranges)
        if same is None:
            # A frontend may know more than the ranges say: Dynamo guards on `s0//32 == 1`.
            return NoMatch("no one can tell that {0} is {1} for all sizes", new.type, old.type)
        if not same:
            raise _wrong(
                rule,
                match,
                f"it would turn {name_of(old)}, a {old.type}, into a {new.type}",
                "cast or reshape in `replace`, or let `where` refuse what can't be kept",
            )
    return values


def _wrong(rule: type[Rule], match: Match, what: str, hint: str | None = None) -> RuleError:
    root = match.roots[0]
    node = root.producer
    at = f"{name_of(root)} {node.op.name}" if node else name_of(root)
    place = f" ({node.loc})" if node and node.loc else ""
    return RuleError(
        f"rule {rule.name} at {at}: {what}",
        rule=rule.name,
        where=f"{rule.location}, at {at}{place}",
        hint=hint,
    )


def _same_type(old: Type, new: Type, ranges: Ranges) -> bool | None:
    """Whether two types are the same for all sizes; None where that can't be told."""
    match old, new:
        case TensorType(), TensorType() if (old.dtype, old.device) == (new.dtype, new.device):
            return same_shape(old.shape, new.shape, ranges)
        case ScalarType(expr=x), ScalarType(expr=y) if old.kind == new.kind and old != new:
            return False if x is None or y is None else same_size(x, y, ranges)
    return old == new


# --------------------------------------------------------------------------- where it goes


def _anchor(match: Match, made: Sequence[Node], new: Sequence[Value]) -> Node | NoMatch:
    """The node that new ones go in front of.

    One root: that root, before which all that it uses is known. Several: the first of them, or,
    where a later one uses what comes in between, the place right after that; then no root may be
    used before.
    """
    roots = list(dict.fromkeys(_producer(value) for value in match.roots))
    if len(roots) == 1:
        return roots[0]
    needed = {value.producer for value in (*new, *(v for node in made for v in node.operands))}
    if not needed.isdisjoint(roots):
        return NoMatch("a root of the match needs another")
    between = _between(roots)
    late = [index for index, node in enumerate(between) if node in needed]
    at = late[-1] + 1 if late else 0
    users = {user for value in match.roots for user in value.users} - set(match.nodes)
    early = next((node for node in between[:at] if node in users), None)
    if early is not None:
        return NoMatch("{0} uses a root before all operands are known", early)
    return between[at]


def _producer(value: Value) -> Node:
    assert isinstance(value.owner, Node)
    return value.owner


def _between(nodes: Sequence[Node]) -> list[Node]:
    """The nodes from the first to the last of `nodes`, in order. O(their distance)."""
    after: list[Node] = [nodes[0]]
    before: list[Node] = []
    missing = set(nodes[1:])
    for pair in zip_longest(nodes[0].following(), nodes[0].preceding()):
        for node, side in zip(pair, (after, before), strict=True):
            if node is not None:
                side.append(node)
                missing.discard(node)
        if not missing:
            break
    run = [*reversed(before), *after]
    ends = [index for index, node in enumerate(run) if node in nodes]
    return run[ends[0] : ends[-1] + 1]


# --------------------------------------------------------------------------- doing it


def _commit(
    rule: type[Rule], match: Match, making: Making, new: tuple[Value, ...], anchor: Node
) -> Rewrite:
    graph = making.graph
    fresh = set(making.nodes)
    for node in making.nodes:
        graph.insert(node, anchor)
    for old, value in zip(match.roots, new, strict=True):
        old.replace_all_uses(value)
        if value.producer in fresh and not value.hint:
            value.hint = old.hint
    roots = list(dict.fromkeys(_producer(value) for value in match.roots))
    graph.erase(_with_users(roots, match.nodes))
    return Rewrite(rule, graph, roots[0], match.roots, new, tuple(making.nodes), making.loc)


def _with_users(roots: Sequence[Node], matched: Sequence[Node]) -> list[Node]:
    """`roots`, and the nodes of the match that use results of theirs that were not replaced."""
    doomed = dict.fromkeys(roots)
    pending = list(roots)
    inside = set(matched)
    while pending:
        for value in pending.pop().results:
            for user in value.users:
                if user in inside and user not in doomed:
                    doomed[user] = None
                    pending.append(user)
    return list(doomed)
