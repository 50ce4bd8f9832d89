"""The guards of a rule: everything that keeps its pattern from matching more than it should.

For each guard a proof looks for an example that breaks this one and keeps all others, on which the
rule must not fire.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from rewright.passes.declaration import Spelling, root_nodes
from rewright.passes.patterns import Either, Literal, NodePattern, children, postorder, walk
from rewright.passes.variables import Attr, Const, Many, Maybe, Pattern, Scalar, Tensor, Variable


@attrs.frozen(eq=False)
class Guard:
    """One guard.

    Attributes:
        kind: ``constant``, ``dtype``, ``rank``, ``one_use``, ``kind``, ``where``, ``length`` (of
            a variable), ``stated`` (an attribute), ``same`` (a variable used twice), ``inside``
            (a node that others may not use).
        pattern: the variable, attribute or node that it is about.
        text: what it says.
    """

    kind: str
    pattern: Pattern
    text: str


def guards_of(spelling: Spelling, *, shared: bool) -> tuple[Guard, ...]:
    """The guards in a pattern; `where` of the rule itself is not among them.

    Args:
        spelling: a pattern of a rule.
        shared: whether its nodes may have other users.
    """
    found: list[Guard] = []
    for variable in spelling.variables.values():
        found += _of_variable(variable)
    roots = {id(node) for root in spelling.roots for node in root_nodes(root)}
    counts = _most_places(spelling)
    for item in walk(*spelling.roots):
        if isinstance(item, NodePattern):
            found += _of_node(item)
            if id(item) not in roots and not item.is_shared and not shared:
                found.append(Guard("inside", item, f"{item!r} has no other users"))
        elif isinstance(item, Tensor | Attr) and counts.get(id(item), 0) > 1:
            found.append(Guard("same", item, f"{item!r} is the same {counts[id(item)]} times"))
    return tuple(found)


def _most_places(spelling: Spelling) -> dict[int, int]:
    """At how many places of one match a pattern stands, by its id: alternatives exclude others."""
    known: dict[int, dict[int, frozenset[tuple[int, int]]]] = {}
    for item in postorder(*spelling.roots):
        places: dict[int, frozenset[tuple[int, int]]] = {}
        for number, part in enumerate(children(item)):
            found = known[id(part)] | {id(part): frozenset({(id(item), number)})}
            for key, new in found.items():
                old = places.get(key, frozenset())
                places[key] = max(old, new, key=len) if isinstance(item, Either) else old | new
        known[id(item)] = places
    totals: dict[int, frozenset[tuple[int, int]]] = {}
    for root in spelling.roots:
        for key, new in known[id(root)].items():
            totals[key] = totals.get(key, frozenset()) | new
    return {key: len(places) for key, places in totals.items()}


def _of_variable(variable: Variable) -> Iterator[Guard]:
    name = variable.name
    if isinstance(variable, Maybe | Many):
        if isinstance(variable, Many) and (variable.min > 1 or variable.max is not None):
            yield Guard("length", variable, f"{name} has the right length")
        yield from _of_variable(variable.inner)
        return
    if isinstance(variable, Const):
        yield Guard("constant", variable, f"{name} is constant")
    for kind in ("dtype", "rank", "one_use", "kind", "where"):
        if getattr(variable, kind, None):
            yield Guard(kind, variable, f"{name} has the right {kind.replace('_', ' ')}")


def _of_node(node: NodePattern) -> Iterator[Guard]:
    op = node.op.name
    for param, item in node.args.items():
        if isinstance(item, Literal) and item.value is not None:
            yield Guard("stated", item, f"{op}: {param} is {item!r}")


def relaxed(variable: Variable, guard: Guard | None) -> Variable:
    """`variable` without what `guard` says of it."""
    if guard is None:
        return variable
    if isinstance(variable, Maybe | Many):
        return attrs.evolve(variable, inner=relaxed(variable.inner, guard))
    if guard.pattern is not variable:
        return variable
    if guard.kind == "constant" and isinstance(variable, Const):
        return Tensor(
            variable.dtype, variable.rank, variable.one_use, variable.where, name=variable.name
        )
    if guard.kind in _EMPTY and isinstance(variable, Tensor | Attr | Scalar):
        changes: Any = {guard.kind: _EMPTY[guard.kind]}
        return attrs.evolve(variable, **changes)
    return variable


_EMPTY: Final = {"dtype": (), "rank": (), "kind": (), "one_use": False, "where": None}
