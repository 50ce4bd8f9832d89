"""What can be told of a pattern without a graph: for indexing, and for finding further roots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from rewright.ir.graph import Constant, Node, Value
from rewright.ir.ops import Op, Trait
from rewright.passes.declaration import named_ops
from rewright.passes.matcher import Needs
from rewright.passes.patterns import (
    Either,
    NodePattern,
    OpVar,
    ResultPattern,
    children,
    postorder,
    walk,
)
from rewright.passes.variables import Const, Pattern, Tensor, Variable


def takes(pattern: NodePattern) -> Callable[[Op], bool]:
    """Whether an op may be that of `pattern`."""
    if isinstance(pattern.op, OpVar):
        return pattern.op.takes
    named = pattern.op
    return lambda op: op is named


def may_commute(pattern: NodePattern) -> bool:
    """Whether the first two operands may stand in either order."""
    ops = named_ops(pattern)
    commute = not ops or any(op.has(Trait.COMMUTATIVE) for op in ops)
    if not commute or isinstance(pattern.op, OpVar):
        return commute
    return list(pattern.args)[:2] == [param.name for param in pattern.op.params[:2]]


# --------------------------------------------------------------------------- sizes of a pattern


def depth(roots: Sequence[Pattern]) -> int:
    """The number of nodes on the longest path through a pattern."""
    known = _depths(roots)
    return max(known[id(root)] for root in roots)


def inside(roots: Sequence[Pattern]) -> tuple[tuple[NodePattern, int], ...]:
    """The nodes that stand below another in a pattern, each with the depth from it down."""
    known = _depths(roots)
    nodes = [item for item in walk(*roots) if isinstance(item, NodePattern)]
    below = dict.fromkeys(operand for node in nodes for operand in _makers(node))
    return tuple((node, known[id(node)]) for node in below)


def _depths(roots: Sequence[Pattern]) -> dict[int, int]:
    """The number of nodes on the longest path from each part of a pattern down, by its id."""
    known: dict[int, int] = {}
    for item in postorder(*roots):
        below = max((known[id(part)] for part in children(item)), default=0)
        known[id(item)] = below + isinstance(item, NodePattern)
    return known


def _makers(node: NodePattern) -> Iterator[NodePattern]:
    """The nodes that may make operands of `node`."""
    pending = [*children(node)]
    while pending:
        part = pending.pop()
        if isinstance(part, NodePattern):
            yield part
        else:
            pending.extend(children(part))


def most_uses(roots: Sequence[Pattern]) -> int:
    """The most uses that a match may make of a value that nobody else may use."""
    counts: dict[int, int] = {}
    limited = set()
    for item in walk(*roots):
        if not isinstance(item, Variable) or (isinstance(item, Tensor) and item.one_use):
            limited.add(id(item))
        for part in children(item):
            counts[id(part)] = counts.get(id(part), 0) + 1
    return max((counts.get(key, 0) for key in limited), default=0)


# --------------------------------------------------------------------------- what a root needs


def needs(root: NodePattern) -> Needs:
    """What a node and its operands must be, for `root` to have a chance."""
    operands = [_producers(part) for part in root.args.values()]
    known = tuple(wanted for wanted in operands if wanted is not None)
    if isinstance(root.op, OpVar) and not root.op.ops:
        return Needs(None, root.op.traits, known)
    return Needs(frozenset(named_ops(root)), frozenset(), known)


def _producers(pattern: Pattern) -> frozenset[Any] | None:
    """What may make a value that matches; None where it can't be told."""
    match pattern:
        case NodePattern():
            return frozenset(named_ops(pattern)) or None
        case ResultPattern(node, _):
            return _producers(node)
        case Const():
            return frozenset((Constant,))
        case Either(parts):
            known = [_producers(part) for part in parts]
            found = [item for item in known if item is not None]
            return frozenset().union(*found) if len(found) == len(known) else None
    return None


def producers(node: Node) -> frozenset[Any]:
    """What makes the operands of `node`: ops, and `Constant` for constants."""
    made: set[Any] = set()
    for value in node.operands:
        if isinstance(value.owner, Node):
            made.add(value.owner.op)
        elif isinstance(value, Constant):
            made.add(Constant)
    return frozenset(made)


# --------------------------------------------------------------------------- further roots

Path: TypeAlias = "tuple[NodePattern, ...]"


def ways(root: Pattern, before: Sequence[Pattern]) -> list[tuple[Pattern, Path]]:
    """How to come from what is matched already up to `root`.

    Returns:
        Pairs of a pattern that stands for a value in `before`, and the nodes from a user of that
        value up to the root; the shortest first.
    """
    known = {id(item) for item in walk(*before)}
    found = []
    pending: list[tuple[Pattern, Path]] = [(root, ())]
    while pending:
        pattern, path = pending.pop()
        if id(pattern) in known and path and _is_anchor(pattern):
            found.append((pattern, path))
            continue
        if isinstance(pattern, NodePattern):
            path = (pattern, *path)
        pending.extend((part, path) for part in children(pattern))
    return sorted(found, key=lambda way: len(way[1]))


def _is_anchor(pattern: Pattern) -> bool:
    if isinstance(pattern, Variable):
        return not pattern.is_attribute
    return isinstance(pattern, NodePattern | Either)


def climb(item: Any, path: Path) -> Iterator[Node]:
    """The nodes that can stand for the last of `path`, above `item`: a value, or a node."""
    if isinstance(item, Node):
        values: list[Value] = list(item.results)
    else:
        values = [item] if isinstance(item, Value) else []
    users: list[Node] = []
    for step in path:
        accepts = takes(step)
        users = [user for value in values for user in value.users if accepts(user.op)]
        values = [value for user in users for value in user.results]
    yield from users if path else ()
