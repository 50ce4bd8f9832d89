"""Matching: patterns compiled to short programs that run without recursion.

A pattern becomes a list of instructions over registers. An instruction checks something of a
graph and returns the number of the next one, or refuses. Where there is a choice (the operands of
a commutative op, alternatives, candidates for a second root) it puts the other ways on a stack,
and a refusal goes on with the last of them. So matching needs no recursion, whatever the graph or
the pattern, and its cost shows in the length of the program.

A match is complete when all instructions have passed; the last ones ask whether the nodes inside
have no other users, and the rule's `where`. Programs are made by
:mod:`rewright.passes.pattern_compiler`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from rewright.ir.graph import Node, Value
from rewright.ir.ops import Op, Trait
from rewright.passes.reasons import NoMatch

if TYPE_CHECKING:
    from rewright.passes.declaration import Spelling
    from rewright.passes.rule import Rule

Registers: TypeAlias = "list[Any]"
Choices: TypeAlias = "list[tuple[int, Registers]]"
Instruction: TypeAlias = "Callable[[Registers, Choices], int]"
Trace: TypeAlias = "list[tuple[int, NoMatch]]"


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET: Final = _Unset()
REFUSED: Final = -1
TRACE: Final = 0
"""The register that holds the list of refusals, or None where nobody asks for them."""
START: Final = 1
"""The register that holds the node that matching starts from."""


@attrs.frozen(eq=False)
class Match:
    """Where a rule applies.

    Attributes:
        spelling: the pattern that matched.
        bound: what each variable is bound to: values, attributes, None.
        roots: the values to replace, in the order of the pattern's roots.
        nodes: the nodes that the pattern describes, roots included, each once.
    """

    spelling: Spelling
    bound: dict[str, Any]
    roots: tuple[Value, ...]
    nodes: tuple[Node, ...]


@attrs.frozen
class Needs:
    """What the nodes around a root must be, known before anything is tried.

    Attributes:
        ops: the ops that the root may be; None for any with the right traits.
        traits: those traits.
        operands: for some of its operands, what may produce it: ops, or `Constant` itself.
    """

    ops: frozenset[Op] | None
    traits: frozenset[Trait]
    operands: tuple[frozenset[Any], ...]

    def admits_op(self, op: Op) -> bool:
        """Whether a root of `op` may match at all."""
        if self.ops is not None:
            return op in self.ops
        return op.is_pure and self.traits <= op.traits

    def admit(self, op: Op, producers: frozenset[Any]) -> bool:
        """Whether a root of `op` may match, given all that produces its operands."""
        return self.admits_op(op) and all(producers & wanted for wanted in self.operands)


@attrs.frozen(eq=False)
class Plan:
    """One pattern of a rule, compiled, to be started from one of its roots.

    Attributes:
        rule: the rule.
        code: the instructions.
        size: how many registers they use.
        needs: what to ask before running them: any of these.
        depth: how many nodes a path from the root into the pattern has at most.
        inside: the nodes below a root: what their op may be, and the depth from each down.
        most_uses: how often the match may use a value of its inside.
        asks_where: whether the last instruction asks the rule's `where`.
        found: the register that holds the match in the end.
    """

    rule: type[Rule]
    spelling: Spelling
    code: tuple[Instruction, ...]
    size: int
    needs: tuple[Needs, ...]
    depth: int
    inside: tuple[tuple[Callable[[Op], bool], int], ...]
    most_uses: int
    asks_where: bool
    found: int

    def match(self, node: Node, trace: Trace | None = None) -> Match | None:
        """The match that starts from `node`, if there is one; refusals go to `trace`."""
        registers: Registers = [UNSET] * self.size
        registers[TRACE] = trace
        registers[START] = node
        choices: Choices = []
        code, end, at = self.code, len(self.code), 0
        while at < end:
            at = code[at](registers, choices)
            if at < 0:
                if not choices:
                    return None
                at, registers = choices.pop()
        match: Match = registers[self.found]
        return match
