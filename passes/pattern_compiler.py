"""From the patterns of a rule to programs that match them (see :mod:`rewright.passes.matcher`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewright.ir.graph import Node, Value
from rewright.passes.constraints import Shown, check_of, literal_check, near_check, same_item
from rewright.passes.declaration import Spelling, root_nodes
from rewright.passes.guard import ask_guard, ask_users
from rewright.passes.matcher import START, UNSET, Choices, Match, Plan, Registers
from rewright.passes.node_program import NodeProgram, op_name
from rewright.passes.outline import climb, depth, inside, most_uses, needs, takes, ways
from rewright.passes.patterns import (
    Either,
    ListPattern,
    Literal,
    Near,
    NodePattern,
    ResultPattern,
    walk,
)
from rewright.passes.program import Label, refuse, with_item
from rewright.passes.rule import Rule
from rewright.passes.variables import Many, Pattern, Tensor, Variable


def compile_rule(rule: type[Rule]) -> tuple[Plan, ...]:
    """The programs of `rule`: for each spelling, one for each root to start from."""
    return tuple(
        _Compiler(rule, spelling).plan(start)
        for spelling in rule.spellings
        for start in range(len(spelling.roots))
    )


class _Compiler(NodeProgram):
    """Writes the program for one spelling of a rule."""

    def __init__(self, rule: type[Rule], spelling: Spelling) -> None:
        super().__init__()
        self.rule = rule
        self.spelling = spelling
        self.nodes: list[tuple[NodePattern, int]] = []
        for item in walk(*spelling.roots):
            if isinstance(item, Variable | NodePattern | Either):
                self.homes[id(item)] = self.register()
            if isinstance(item, NodePattern):
                self.nodes.append((item, self.homes[id(item)]))
        self.outputs = [self.register() for _ in spelling.roots]
        self.found = self.register()

    def plan(self, start: int) -> Plan:
        """The program that starts from root number `start`."""
        order = [start, *(i for i in range(len(self.outputs)) if i != start)]
        roots = self.spelling.roots
        for number, index in enumerate(order):
            source = START
            if number:
                source = self._find(roots[index], [roots[i] for i in order[:number]])
            self._root(roots[index], source, self.outputs[index])
        self._check_inside()
        self._ask_guard()
        return Plan(
            self.rule,
            self.spelling,
            tuple(self.code),
            self.size,
            tuple(needs(node) for node in root_nodes(roots[start])),
            depth(roots),
            tuple((takes(node), below) for node, below in inside(roots)),
            most_uses(roots),
            hasattr(self.rule, "where"),
            self.found,
        )

    # -- roots

    def _root(self, root: Pattern, source: int, output: int) -> None:
        """Matches the node in register `source`; puts the value it stands for in `output`."""
        if isinstance(root, Either):
            end = Label()
            self.choose(root.alternatives, end, lambda part: self._root(part, source, output))
            return
        node, index = (root.node, root.index) if isinstance(root, ResultPattern) else (root, 0)
        assert isinstance(node, NodePattern)
        self.node(node, source)
        home = self.homes[id(node)]

        def keep(registers: Registers, _: Choices) -> int:
            registers[output] = registers[home].results[index]
            return after

        after = self.add(keep)

    def _find(self, root: Pattern, before: Sequence[Pattern]) -> int:
        """Looks for another root among the users of what is matched; gives its register."""
        source, at = self.register(), len(self.code)
        own = [self.homes[id(node)] for node in root_nodes(root)]
        taken = [self.homes[id(node)] for other in before for node in root_nodes(other)]
        anchors = [(self.homes[id(item)], path) for item, path in ways(root, before)]

        def find(registers: Registers, choices: Choices) -> int:
            found = [registers[home] for home in own if registers[home] is not UNSET]
            if not found:
                used = {registers[home] for home in taken}
                users = (node for home, path in anchors for node in climb(registers[home], path))
                found = [node for node in dict.fromkeys(users) if node not in used]
            for node in reversed(found[1:]):
                choices.append((at + 1, with_item(registers, source, node)))
            if not found:
                return refuse(registers, at, "no other node matches {0}", root)
            registers[source] = found[0]
            return at + 1

        self.add(find)
        return source

    # -- patterns

    def match(self, pattern: Pattern, source: int, owner: int, param: str) -> None:
        """Matches the item in register `source`, which stands at `param` of the node in `owner`."""
        match pattern:
            case Variable():
                self._variable(pattern, source)
            case NodePattern():
                self._producer(pattern, source, 0)
            case ResultPattern(node, index):
                self._producer(node, source, index)
            case Either(parts):
                self._either(pattern, parts, source, owner, param)
            case ListPattern(items):
                self._list(items, source, owner, param)
            case Literal(value):
                self._literal(pattern, literal_check(value, param), source, owner)
            case Near(value, rel):
                near = near_check(value, rel)
                self._literal(pattern, lambda item, _: near(item), source, owner)

    def _variable(self, variable: Variable, source: int) -> None:
        home, check, at = self.homes[id(variable)], check_of(variable), len(self.code)

        def match(registers: Registers, _: Choices) -> int:
            item, known = registers[source], registers[home]
            if known is not UNSET:
                if same_item(known, item):
                    return at + 1
                return refuse(
                    registers, at, "{0} is {1} and {2}", variable, Shown(known), Shown(item)
                )
            why = check(item)
            if why is not None:
                return refuse(registers, at, "{0}", why)
            registers[home] = item
            return at + 1

        self.add(match)

    def _literal(
        self, pattern: Pattern, check: Callable[[Any, Node], bool], source: int, owner: int
    ) -> None:
        at = len(self.code)

        def match(registers: Registers, _: Choices) -> int:
            if check(registers[source], registers[owner]):
                return at + 1
            return refuse(registers, at, "{0} is not {1}", Shown(registers[source]), pattern)

        self.add(match)

    def _list(self, items: tuple[Pattern, ...], source: int, owner: int, param: str) -> None:
        """A list, item by item; a Many takes what the others leave."""
        many = next((i for i, item in enumerate(items) if isinstance(item, Many)), None)
        homes, at = [self.register() for _ in items], len(self.code)
        fixed = len(items) - (many is not None)

        def spread(registers: Registers, _: Choices) -> int:
            given = registers[source]
            fits = isinstance(given, tuple) and (
                len(given) == fixed if many is None else len(given) >= fixed
            )
            if not fits:
                return refuse(registers, at, "{0} is no list of {1}", Shown(given), fixed)
            parts = list(given)
            if many is not None:
                end = len(parts) - (fixed - many)
                parts[many:end] = [tuple(parts[many:end])]
            for home, part in zip(homes, parts, strict=True):
                registers[home] = part
            return at + 1

        self.add(spread)
        for item, home in zip(items, homes, strict=True):
            self.match(item, home, owner, param)

    def _either(
        self, either: Either, parts: tuple[Pattern, ...], source: int, owner: int, param: str
    ) -> None:
        home, at, end = self.homes[id(either)], len(self.code), Label()

        def enter(registers: Registers, _: Choices) -> int:
            item, known = registers[source], registers[home]
            if known is UNSET:
                registers[home] = item
                return at + 1
            if same_item(known, item):
                return end.at
            return refuse(registers, at, "{0} is not {1}", Shown(item), Shown(known))

        self.add(enter)
        self.choose(parts, end, lambda part: self.match(part, source, owner, param))

    # -- values made by nodes

    def _producer(self, node: NodePattern, source: int, index: int) -> None:
        """Matches the node whose result number `index` is the value in register `source`."""
        made, at = self.register(), len(self.code)

        def step(registers: Registers, _: Choices) -> int:
            item = registers[source]
            producer = item.producer if isinstance(item, Value) else None
            if producer is None or item.index != index:
                return refuse(registers, at, "{0} is not made by {1}", Shown(item), op_name(node))
            registers[made] = producer
            return at + 1

        self.add(step)
        self.node(node, made)

    # -- the end

    def _check_inside(self) -> None:
        """Values inside of the match have no users outside, and bind no symbol."""
        shared = [home for node, home in self.nodes if node.is_shared or self.rule.shared]
        single = [
            self.homes[id(variable)]
            for variable in self.spelling.variables.values()
            if isinstance(variable, Tensor) and variable.one_use
        ]
        at = len(self.code)

        def check(registers: Registers, _: Choices) -> int:
            stay = {registers[home] for home in shared}
            alone = [registers[home] for home in single if registers[home] is not UNSET]
            match = registers[self.found] = self._match(registers)
            why = ask_users(match, stay, alone)
            return at + 1 if why is None else refuse(registers, at, "{0}", why)

        self.add(check)

    def _ask_guard(self) -> None:
        if not hasattr(self.rule, "where"):
            return
        at = len(self.code)

        def ask(registers: Registers, _: Choices) -> int:
            why = ask_guard(self.rule, registers[self.found])
            return at + 1 if why is None else refuse(registers, at, "{0}", why)

        self.add(ask)

    def _match(self, registers: Registers) -> Match:
        bound = {}
        for name, variable in self.spelling.variables.items():
            item = registers[self.homes[id(variable)]]
            bound[name] = None if item is UNSET else item
        nodes = dict.fromkeys(registers[home] for _, home in self.nodes)
        nodes.pop(UNSET, None)
        roots = tuple(registers[output] for output in self.outputs)
        return Match(self.spelling, bound, roots, tuple(nodes))
