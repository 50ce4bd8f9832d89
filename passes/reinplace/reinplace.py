"""Computes what is written back where it is written to.

    %new = aten.index_copy(@cache, 2, %at, %keys); writeback @cache = %new
        ->  %new = rw.in_place.aten.index_copy(@cache, 2, %at, %keys); writeback @cache = %new

    and so on for all ops between what is written to and what is written, through views, too:
    %row = select(@cache, 0, 3); %put = index_put(%row, ...); %new = select_scatter(@cache, %put)

Nothing else is computed in place: values that nobody writes back keep memory of their own. A chain
stays as it is where something that it would overwrite is read later on, an op on the way has no
form in place (:mod:`rewright.ir.in_place`), or another source shares the memory.

It comes last, since a pass after it could move a read behind a write; compiles see to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs

from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.in_place import InPlace, in_place_form
from rewright.ir.memory import Memory, is_view
from rewright.ir.ops import Op
from rewright.ir.types import TensorType
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass


@register_pass
@attrs.frozen
class Reinplace(Pass):
    """writeback x = f(x)  ->  f computed in the memory of x"""

    def run(self, graph: Graph, context: PassContext) -> None:
        """Puts nodes of `graph` on the way to write-backs in place, as far as that is right."""
        shared = _shared(graph)
        chains = [
            chain
            for target, value in graph.writebacks
            if target is not value and target not in shared
            for chain in _chains(target, value)
        ]
        forms = _sound(graph, chains)
        for node, op in forms.items():
            _replace(node, op)


@attrs.frozen(eq=False)
class _Chain:
    """Nodes that are put in place together, or not at all.

    Attributes:
        forms: their ops in place.
        within: for what is computed in a view, the node that puts that into the whole, and the
            chain which has that node.
    """

    forms: dict[Node, Op]
    within: tuple[Node, _Chain] | None = None


def _shared(graph: Graph) -> set[Constant]:
    """The sources that share memory with others."""
    held = {
        c: c.data.untyped_storage().data_ptr()
        for c in graph.constants.values()
        if c.data is not None and not c.data.is_meta
    }
    count = Counter(held.values())
    return {constant for constant, address in held.items() if address and count[address] > 1}


# --------------------------------------------------------------------------- candidates


def _chains(target: Value, value: Value) -> Iterator[_Chain]:
    """The chain from `target` to `value`, if there is one, and those in views beside it."""
    forms = _between(target, value)
    if forms is None:
        return
    pending = [_Chain(forms)]
    for chain in pending:  # grows by those in views
        yield chain
        for node in chain.forms:
            form = in_place_form(node.op)
            if form is None or form.view is None:
                continue
            inner = _between(node.arg("self"), node.arg("src"))
            if inner:
                pending.append(_Chain(inner, (node, chain)))


def _between(start: Value, end: Value) -> dict[Node, Op] | None:
    """The nodes from `start` to `end` that can be put in place; None if one can't."""
    forms: dict[Node, Op] = {}
    value = end
    while value is not start:
        node = value.producer
        if node is None:
            return None
        if is_view(node):
            value = node.operands[0]
            continue
        form = in_place_form(node.op)
        operand = _taken(node, form, value) if form is not None else None
        if form is None or operand is None or operand.type != value.type:
            return None
        forms[node] = form.op
        value = operand
    return forms


def _taken(node: Node, form: InPlace, value: Value) -> Value | None:
    """The operand whose memory `value`, a result of `node`, would take."""
    given = (node.attributes.get(name) for name in form.params)
    if any(item is None for item in given) or not isinstance(value.type, TensorType):
        return None
    return dict(form.taken(node)).get(value)


# --------------------------------------------------------------------------- which are right


def _sound(graph: Graph, chains: list[_Chain]) -> dict[Node, Op]:
    """The ops in place of the chains that overwrite nothing that is read."""
    while True:
        forms = {node: op for chain in chains for node, op in chain.forms.items()}
        if not forms:
            return forms
        memory = Memory(graph, forms)
        wrong = {chain for chain in chains if _is_useless(chain, memory)}
        if not wrong:
            blamed = {conflict.writer for conflict in memory.conflicts()}
            wrong = {chain for chain in chains if not blamed.isdisjoint(chain.forms)}
        if not wrong:
            return forms
        chains = [chain for chain in chains if not wrong.intersection(_around(chain))]


def _is_useless(chain: _Chain, memory: Memory) -> bool:
    """Whether a chain in a view leaves its result elsewhere than where it belongs."""
    return chain.within is not None and not memory.is_settled(chain.within[0])


def _around(chain: _Chain) -> Iterator[_Chain]:
    """A chain, and those that it is in a view of."""
    inner: _Chain | None = chain
    while inner is not None:
        yield inner
        inner = inner.within[1] if inner.within is not None else None


def _replace(node: Node, op: Op) -> None:
    hints = [value.hint for value in node.results]
    types: list[Any] = [value.type for value in node.results]
    made = Node(op, node.operands, node.attributes, types, loc=node.loc, hints=hints)
    node.graph.insert(made, node)
    for old, new in zip(node.results, made.results, strict=True):
        old.replace_all_uses(new)
    node.erase()
