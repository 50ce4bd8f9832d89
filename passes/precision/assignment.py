"""The dtype that each node computes in, and why.

First what is settled by the node itself: what it may not change (it means its dtypes), what the
user keeps in f32, what is made from integers, what the table says. Then the nodes that follow
their neighbours, by sweeps to and fro: each takes the side on which fewer values change dtype at
it. So a reshape between a product and a softmax costs no cast, and a cast of an input stands in
front of what merely moves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs
import torch

from rewright.errors import InferenceError
from rewright.ir.attributes import Operand, leaves
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.inference import infer_types
from rewright.ir.ops import SCALAR, Trait
from rewright.passes.facts import ranges_of
from rewright.passes.partition.assignment import Overrides
from rewright.passes.precision.floats import (
    EXCHANGED,
    NARROW,
    float_of,
    floats_of,
    in_dtype,
    is_float_cast,
)
from rewright.passes.precision.reach import stated
from rewright.passes.precision.table import Kind, row_of

_SWEEPS: Final = 4
"""So often the nodes that follow are looked at, at most."""

_WHOLE: Final = {
    Trait.OPAQUE: "only torch knows what it does",
    Trait.RANDOM: "it draws random numbers, which depend on the dtype",
    Trait.EFFECT: "it has an effect",
    Trait.DATA_DEPENDENT: "the size of its result depends on its numbers",
}


@attrs.frozen
class Decision:
    """What a node computes in.

    Attributes:
        dtype: of its floating-point operands and results; None where they stay as they are.
        reason: why it is not the one that was asked for; empty where it is.
    """

    dtype: torch.dtype | None = None
    reason: str = ""


Decisions = Mapping[Node, Decision]


def decide(graph: Graph, wanted: torch.dtype, overrides: Overrides) -> Decisions:
    """For each node of `graph` that has to do with floating-point numbers, what it computes in.

    Args:
        graph: a whole program.
        wanted: ``f32``, ``f16`` or ``bf16``.
        overrides: what the user keeps in f32.

    Raises:
        PassError: `overrides` name an op that there is not.
    """
    overrides.check(graph)
    return _Deciding(graph, wanted, overrides).run()


@attrs.define(eq=False)
class _Deciding:
    graph: Graph
    wanted: torch.dtype
    overrides: Overrides
    made: dict[Node, Decision] = attrs.field(factory=dict)
    counted: set[Value] = attrs.field(factory=set)
    """What is made from integers and constants alone: positions, masks."""
    explicit: set[Value] = attrs.field(factory=set)
    """What the program computes in f32 although it has it in 16 bits."""

    def run(self) -> Decisions:
        following = []
        for node in self.graph:
            if node.op is SCALAR or not floats_of((*node.operands, *node.results)):
                continue
            self._note(node)
            decision = self._settled(node)
            if decision is None:
                following.append(node)
            else:
                self.made[node] = decision
        self._follow(following)
        return self.made

    # -- where numbers come from

    def _note(self, node: Node) -> None:
        floats = [v for v in node.operands if float_of(v) and not isinstance(v, Constant)]
        constants = any(isinstance(v, Constant) and float_of(v) for v in node.operands)
        if all(v in self.counted for v in floats) and (floats or not constants):
            self.counted.update(node.results)
        widens = bool(floats_of(node.operands) & NARROW)
        for value in node.results:
            derived = any(v in self.explicit for v in floats)
            if float_of(value) is torch.float32 and (widens or derived):
                self.explicit.add(value)

    # -- what is settled

    def _settled(self, node: Node) -> Decision | None:
        """What `node` computes in; None where it follows its neighbours."""
        meant = self._meant(node)
        if meant is not None:
            return Decision(None, meant)
        dtypes = floats_of((*node.operands, *node.results))
        asked = self.overrides.reason(node)
        if asked is not None or self.wanted is torch.float32:
            reason = (asked or "") if self.wanted is not torch.float32 else ""
            return Decision(*self._fitting(node, torch.float32, reason))
        if dtypes <= NARROW:
            return Decision(*self._fitting(node, self.wanted, ""))
        return self._lowered(node)

    def _meant(self, node: Node) -> str | None:
        """Why `node` means the dtypes that it has; None where it doesn't."""
        if is_float_cast(node):
            return "it is a cast"
        for trait, reason in _WHOLE.items():
            if node.op.has(trait) and not (trait is Trait.RANDOM and node.is_pure):
                return reason
        if node.regions:
            return "it holds a region, whose dtypes stay"
        dtypes = floats_of((*node.operands, *node.results))
        if not dtypes <= EXCHANGED:
            others = ", ".join(sorted(str(d).removeprefix("torch.") for d in dtypes - EXCHANGED))
            return f"it computes in {others}"
        if any(
            isinstance(leaf, torch.dtype) for a in node.attributes.values() for leaf in leaves(a)
        ):
            return "it states its dtype"
        if not floats_of(node.operands):
            return "it makes numbers from none"
        if self.wanted is not torch.float32 and torch.float32 in dtypes:
            derived = any(value in self.explicit for value in (*node.operands, *node.results))
            if dtypes & NARROW or derived:
                return "the program computes it in f32, next to 16 bits"
        return None

    def _lowered(self, node: Node) -> Decision | None:
        """What a node that computes in f32 goes down to; None where it follows."""
        row = row_of(node.op)
        if node.results and all(value in self.counted for value in node.results):
            return Decision(torch.float32, "it is made from integers and constants")
        if row.kind is Kind.KEEP:
            return Decision(torch.float32, row.reason)
        largest = stated(node)
        if largest > torch.finfo(self.wanted).max:
            return Decision(torch.float32, f"{largest:g} is beyond the dtype")
        dtype, reason = self._fitting(node, self.wanted, "")
        if row.kind is Kind.LOWER or dtype is not self.wanted:
            return Decision(dtype, reason)
        return None

    def _fitting(
        self, node: Node, dtype: torch.dtype, reason: str
    ) -> tuple[torch.dtype | None, str]:
        """`dtype`, if torch's rules agree that `node` can be had in it; else None, and why."""
        wide = wide_operands(node) if dtype in NARROW else frozenset()
        operands = [
            in_dtype(value.type, torch.float32 if at in wide else dtype)
            for at, value in enumerate(node.operands)
        ]
        expected = tuple(in_dtype(value.type, dtype) for value in node.results)
        try:
            found = infer_types(
                node.op,
                node.attributes,
                operands,
                ranges=ranges_of(self.graph),
                device=self.graph.device,
            )
        except InferenceError as error:
            return None, f"torch has it in no other dtype: {error.message}"
        if found != expected:
            return None, "its result would have another type"
        return dtype, reason

    # -- what follows

    def _follow(self, nodes: list[Node]) -> None:
        """Decides for `nodes`, which stand in the graph's order."""
        for sweep in range(_SWEEPS):
            changed = False
            for node in nodes if sweep % 2 else reversed(nodes):
                decision = self._cheaper(node)
                changed |= self.made.get(node) != decision
                self.made[node] = decision
            if not changed:
                break

    def _cheaper(self, node: Node) -> Decision:
        given = [self._held(value) for value in self._moving(node.operands)]
        uses = [dtype for value in node.results for dtype in self._used(value)]
        costs = {
            dtype: sum(held not in (None, dtype) for held in given)
            + any(use is not dtype for use in uses)
            for dtype in (self.wanted, torch.float32)
        }
        is_wide_after = bool(uses) and all(use is torch.float32 for use in uses)
        keeps = costs[torch.float32] < costs[self.wanted] or (
            is_wide_after and costs[torch.float32] == costs[self.wanted]
        )
        if keeps:
            return Decision(torch.float32, "what stands around it is in f32")
        return Decision(self.wanted)

    def _moving(self, operands: Iterable[Value]) -> Iterator[Value]:
        """The floating-point operands for which a cast would be computed in every call."""
        for value in dict.fromkeys(operands):
            if float_of(value) is None:
                continue
            if not isinstance(value, Constant) or value in self.graph.targets:
                yield value

    def _held(self, value: Value) -> torch.dtype | None:
        """The dtype that a value is going to have; None where that is not decided."""
        node = value.producer
        if node is None or not (made := self.made.get(node)):
            return float_of(value) if node is None or node in self.made else None
        return made.dtype or float_of(value)

    def _used(self, value: Value) -> Iterator[torch.dtype]:
        """The dtypes that the users of `value` want it in, as far as they are decided."""
        own = float_of(value)
        if own is None:
            return
        for user in value.users:
            made = self.made.get(user)
            if user.is_terminator or (made is not None and made.dtype is None):
                yield own
            elif made is not None and made.dtype is not None:
                yield made.dtype


def wide_operands(node: Node) -> frozenset[int]:
    """The numbers of the operands that stay in f32 where `node` itself is lowered."""
    wide = row_of(node.op).wide
    if not wide:
        return frozenset()
    return frozenset(
        leaf.index
        for name, attribute in node.attributes.items()
        if name in wide
        for leaf in leaves(attribute)
        if isinstance(leaf, Operand)
    )
