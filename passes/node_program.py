"""The part of a program that matches single nodes: their op, their arguments in either order."""

from __future__ import annotations

from typing import Any

from rewright.ir.attributes import Attributes, Operand, leaves
from rewright.ir.graph import Node, Value
from rewright.ir.ops import REQUIRED, Op, Trait
from rewright.passes.constraints import Shown, same_item
from rewright.passes.handles import BoundOp
from rewright.passes.matcher import UNSET, Choices, Registers
from rewright.passes.outline import may_commute, takes
from rewright.passes.patterns import NodePattern, OpVar
from rewright.passes.program import Label, Program, refuse, with_item
from rewright.passes.variables import Pattern, Rest


class NodeProgram(Program):
    """A program that can match nodes, given what matches their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.homes: dict[int, int] = {}
        """For each pattern that must be the same wherever it occurs, its register."""

    def match(self, pattern: Pattern, source: int, owner: int, param: str) -> None:
        """Matches the item in register `source`, which stands at `param` of the node in `owner`."""
        raise NotImplementedError

    def node(self, pattern: NodePattern, source: int) -> None:
        """Matches the node in register `source`."""
        home, at, done = self.homes[id(pattern)], len(self.code), Label()
        accepts, count = takes(pattern), pattern.count

        def enter(registers: Registers, _: Choices) -> int:
            node, known = registers[source], registers[home]
            if known is not UNSET:
                if known is node:
                    return done.at
                return refuse(registers, at, "{0} is matched by another node", pattern)
            if not accepts(node.op):
                return refuse(registers, at, "{0} is no {1}", result_of(node), op_name(pattern))
            if count is not None and len(node.results) != count:
                return refuse(
                    registers,
                    at,
                    "{0} has {1} results, not {2}",
                    result_of(node),
                    len(node.results),
                    count,
                )
            registers[home] = node
            return at + 1

        self.add(enter)
        if isinstance(pattern.op, OpVar):
            self._any_op(pattern, pattern.op, home)
        else:
            self._named_op(pattern, pattern.op, home)
        done.at = len(self.code)

    def _named_op(self, pattern: NodePattern, op: Op, home: int) -> None:
        params = [(name, op.param(name).default) for name in pattern.args]
        homes, at = [self.register() for _ in params], len(self.code)
        places = [(*param, register) for param, register in zip(params, homes, strict=True)]
        rest, stated = pattern.rest, frozenset(pattern.args)

        def load(registers: Registers, _: Choices) -> int:
            node: Node = registers[home]
            given = node.attributes
            for name, default, register in places:
                item = given.get(name, default)
                is_operand = type(item) is Operand
                registers[register] = node.operands[item.index] if is_operand else _item(node, item)
            if rest is None and given.keys() <= stated:
                return at + 1
            return self._left(registers, at, node, stated, rest)

        self.add(load)
        self._operands(pattern, homes, home)

    def _any_op(self, pattern: NodePattern, variable: OpVar, home: int) -> None:
        count = len(pattern.args)
        homes, at = [self.register() for _ in range(count)], len(self.code)
        var, rest = self.homes[id(variable)], pattern.rest

        def load(registers: Registers, _: Choices) -> int:
            node: Node = registers[home]
            names = [param.name for param in node.op.params[:count]]
            if len(names) < count:
                return refuse(registers, at, "{0} has {1} parameters", result_of(node), len(names))
            for param, register in zip(node.op.params, homes, strict=False):
                if param.name not in node.attributes and param.default is REQUIRED:
                    return refuse(registers, at, "{0} lacks {1}", result_of(node), param.name)
                registers[register] = _item(node, node.attributes.get(param.name, param.default))
            left = {n: item for n, item in node.attributes.items() if n not in names}
            if rest is None and any(_has_operand(item) for item in left.values()):
                return refuse(
                    registers, at, "{0} has more than {1} operands", result_of(node), count
                )
            bound = BoundOp(node.op, Attributes({} if rest is not None else left))
            if registers[var] is not UNSET and registers[var] != bound:
                return refuse(registers, at, "{0} is not the same op twice", variable)
            registers[var] = bound
            if rest is None:
                return at + 1
            return self._left(registers, at, node, frozenset(names), rest)

        self.add(load)
        self._operands(pattern, homes, home)

    def _left(
        self, registers: Registers, at: int, node: Node, stated: frozenset[str], rest: Rest | None
    ) -> int:
        """Deals with the arguments that the pattern does not mention."""
        left = {name: node.arg(name) for name in node.attributes if name not in stated}
        if rest is None:
            for name, item in left.items():
                if not same_item(item, node.op.param(name).default):
                    return refuse(
                        registers,
                        at,
                        "{0} has {1}={2}, which the pattern leaves at its default",
                        result_of(node),
                        name,
                        Shown(item),
                    )
            return at + 1
        for name, item in left.items():
            if not rest.values and _has_value(item):
                return refuse(
                    registers,
                    at,
                    "{0} has a value for {1}, and {2} takes attributes",
                    result_of(node),
                    name,
                    rest,
                )
        home = self.homes[id(rest)]
        if registers[home] is not UNSET and not same_item(registers[home], left):
            return refuse(registers, at, "{0} is not the same twice", rest)
        registers[home] = left
        return at + 1

    def _operands(self, pattern: NodePattern, homes: list[int], home: int) -> None:
        """The arguments in registers `homes`, the first two in either order if they commute."""
        if len(homes) >= 2 and may_commute(pattern):
            self._swap(homes[0], homes[1], home)
        for (name, part), register in zip(pattern.args.items(), homes, strict=True):
            self.match(part, register, home, name)

    def _swap(self, first: int, second: int, home: int) -> None:
        after = len(self.code) + 1

        def swap(registers: Registers, choices: Choices) -> int:
            node, a, b = registers[home], registers[first], registers[second]
            if a is not b and node.op.has(Trait.COMMUTATIVE) and "alpha" not in node.attributes:
                other = with_item(registers, first, b)
                other[second] = a
                choices.append((after, other))
            return after

        self.add(swap)


def _item(node: Node, attribute: Any) -> Any:
    """What stands at one place of `node`."""
    if isinstance(attribute, Operand):
        return node.operands[attribute.index]
    return node.resolve(attribute) if isinstance(attribute, tuple) else attribute


def _has_operand(attribute: Any) -> bool:
    return any(isinstance(leaf, Operand) for leaf in leaves(attribute))


def _has_value(item: Any) -> bool:
    return any(isinstance(leaf, Value) for leaf in leaves(item))


def result_of(node: Node) -> Shown:
    """A node as messages show it: by the name of its first result."""
    return Shown(node.results[0]) if node.results else Shown(node)


def op_name(pattern: NodePattern) -> str:
    """What the op of a pattern is called."""
    return repr(pattern.op) if isinstance(pattern.op, OpVar) else pattern.op.name
