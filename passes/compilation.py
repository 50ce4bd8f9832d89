"""From the patterns of a rule to programs that match them (see :mod:`rewright.passes.matcher`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewright.ir.attributes import Attributes, Operand, leaves
from rewright.ir.graph import Node, Value
from rewright.ir.ops import REQUIRED, Op, Trait
from rewright.passes.constraints import check_of, literal_check, near_check, same_item, show
from rewright.passes.declaration import Spelling, root_nodes
from rewright.passes.guard import ask_guard
from rewright.passes.handles import BoundOp
from rewright.passes.matcher import (
    REFUSED,
    START,
    TRACE,
    UNSET,
    Choices,
    Instruction,
    Match,
    Plan,
    Registers,
)
from rewright.passes.outline import climb, depth, may_commute, most_uses, needs, takes, ways
from rewright.passes.patterns import (
    Either,
    ListPattern,
    Literal,
    Many,
    Near,
    NodePattern,
    OpVar,
    Pattern,
    Rest,
    ResultPattern,
    Tensor,
    Variable,
    walk,
)
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import Rule


def compile_rule(rule: type[Rule]) -> tuple[Plan, ...]:
    """The programs of `rule`: for each spelling, one for each root to start from."""
    return tuple(
        _Compiler(rule, spelling).plan(start)
        for spelling in rule.spellings
        for start in range(len(spelling.roots))
    )


def refuse(registers: Registers, at: int, reason: str, *args: Any) -> int:
    """Refuses; keeps the reason if somebody asked for it."""
    trace = registers[TRACE]
    if trace is not None:
        trace.append((at, NoMatch(reason, *args)))
    return REFUSED


class _Label:
    """The number of an instruction that is not written yet."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0


class _Compiler:
    """Writes the program for one spelling of a rule."""

    def __init__(self, rule: type[Rule], spelling: Spelling) -> None:
        self.rule = rule
        self.spelling = spelling
        self.code: list[Instruction] = []
        self.size = START + 1
        self.homes: dict[int, int] = {}
        """For each pattern that must be the same wherever it occurs, its register."""
        self.nodes: list[tuple[NodePattern, int]] = []
        for item in walk(*spelling.roots):
            if isinstance(item, Variable | NodePattern | Either):
                self.homes[id(item)] = self._register()
            if isinstance(item, NodePattern):
                self.nodes.append((item, self.homes[id(item)]))
        self.outputs = [self._register() for _ in spelling.roots]

    def _register(self) -> int:
        self.size += 1
        return self.size - 1

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
            most_uses(roots),
            hasattr(self.rule, "where"),
            self._finish,
        )

    # -- roots

    def _root(self, root: Pattern, source: int, output: int) -> None:
        """Matches the node in register `source`; puts the value it stands for in `output`."""
        if isinstance(root, Either):
            end = _Label()
            self._choose(root.alternatives, end, lambda part: self._root(part, source, output))
            return
        node, index = (root.node, root.index) if isinstance(root, ResultPattern) else (root, 0)
        assert isinstance(node, NodePattern)
        self._node(node, source)
        home = self.homes[id(node)]

        def keep(registers: Registers, _: Choices) -> int:
            registers[output] = registers[home].results[index]
            return after

        after = self._add(keep)

    def _find(self, root: Pattern, before: Sequence[Pattern]) -> int:
        """Looks for another root among the users of what is matched; gives its register."""
        source, at = self._register(), len(self.code)
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
                choices.append((at + 1, _with(registers, source, node)))
            if not found:
                return refuse(registers, at, "no other node matches {0}", root)
            registers[source] = found[0]
            return at + 1

        self._add(find)
        return source

    # -- patterns

    def _match(self, pattern: Pattern, source: int, owner: int, param: str) -> None:
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
                    registers, at, "{0} is {1} and {2}", variable, show(known), show(item)
                )
            why = check(item)
            if why is not None:
                return refuse(registers, at, "{0}", why)
            registers[home] = item
            return at + 1

        self._add(match)

    def _literal(
        self, pattern: Pattern, check: Callable[[Any, Node], bool], source: int, owner: int
    ) -> None:
        at = len(self.code)

        def match(registers: Registers, _: Choices) -> int:
            if check(registers[source], registers[owner]):
                return at + 1
            return refuse(registers, at, "{0} is not {1}", show(registers[source]), pattern)

        self._add(match)

    def _list(self, items: tuple[Pattern, ...], source: int, owner: int, param: str) -> None:
        """A list, item by item; a Many takes what the others leave."""
        many = next((i for i, item in enumerate(items) if isinstance(item, Many)), None)
        homes, at = [self._register() for _ in items], len(self.code)
        fixed = len(items) - (many is not None)

        def spread(registers: Registers, _: Choices) -> int:
            given = registers[source]
            fits = isinstance(given, tuple) and (
                len(given) == fixed if many is None else len(given) >= fixed
            )
            if not fits:
                return refuse(registers, at, "{0} is no list of {1}", show(given), fixed)
            parts = list(given)
            if many is not None:
                end = len(parts) - (fixed - many)
                parts[many:end] = [tuple(parts[many:end])]
            for home, part in zip(homes, parts, strict=True):
                registers[home] = part
            return at + 1

        self._add(spread)
        for item, home in zip(items, homes, strict=True):
            self._match(item, home, owner, param)

    def _either(
        self, either: Either, parts: tuple[Pattern, ...], source: int, owner: int, param: str
    ) -> None:
        home, at, end = self.homes[id(either)], len(self.code), _Label()

        def enter(registers: Registers, _: Choices) -> int:
            item, known = registers[source], registers[home]
            if known is UNSET:
                registers[home] = item
                return at + 1
            if same_item(known, item):
                return end.at
            return refuse(registers, at, "{0} is not {1}", show(item), show(known))

        self._add(enter)
        self._choose(parts, end, lambda part: self._match(part, source, owner, param))

    def _choose(
        self, parts: Sequence[Pattern], end: _Label, write: Callable[[Pattern], None]
    ) -> None:
        """Writes code for each of `parts`, of which one has to pass."""
        for part in parts[:-1]:
            other = self._fork()
            write(part)
            self._add(lambda _registers, _choices: end.at)
            other.at = len(self.code)
        write(parts[-1])
        end.at = len(self.code)

    def _fork(self) -> _Label:
        """Goes on, and on refusal from the label, which the caller sets."""
        other, after = _Label(), len(self.code) + 1

        def fork(registers: Registers, choices: Choices) -> int:
            choices.append((other.at, registers.copy()))
            return after

        self._add(fork)
        return other

    # -- nodes

    def _producer(self, node: NodePattern, source: int, index: int) -> None:
        """Matches the node whose result number `index` is the value in register `source`."""
        made, at = self._register(), len(self.code)

        def step(registers: Registers, _: Choices) -> int:
            item = registers[source]
            producer = item.producer if isinstance(item, Value) else None
            if producer is None or item.index != index:
                return refuse(registers, at, "{0} is not made by {1}", show(item), _name(node))
            registers[made] = producer
            return at + 1

        self._add(step)
        self._node(node, made)

    def _node(self, pattern: NodePattern, source: int) -> None:
        """Matches the node in register `source`."""
        home, at, done = self.homes[id(pattern)], len(self.code), _Label()
        accepts, count = takes(pattern), pattern.count

        def enter(registers: Registers, _: Choices) -> int:
            node, known = registers[source], registers[home]
            if known is not UNSET:
                if known is node:
                    return done.at
                return refuse(registers, at, "{0} is matched by another node", pattern)
            if not accepts(node.op):
                return refuse(registers, at, "{0} is no {1}", _of(node), _name(pattern))
            if count is not None and len(node.results) != count:
                return refuse(
                    registers,
                    at,
                    "{0} has {1} results, not {2}",
                    _of(node),
                    len(node.results),
                    count,
                )
            registers[home] = node
            return at + 1

        self._add(enter)
        if isinstance(pattern.op, OpVar):
            self._any_op(pattern, pattern.op, home)
        else:
            self._named_op(pattern, pattern.op, home)
        done.at = len(self.code)

    def _named_op(self, pattern: NodePattern, op: Op, home: int) -> None:
        params = [(name, op.param(name).default) for name in pattern.args]
        homes, at = [self._register() for _ in params], len(self.code)
        rest, stated = pattern.rest, frozenset(pattern.args)

        def load(registers: Registers, _: Choices) -> int:
            node: Node = registers[home]
            given = node.attributes
            for (name, default), register in zip(params, homes, strict=True):
                registers[register] = _item(node, given.get(name, default))
            if rest is None and given.keys() <= stated:
                return at + 1
            return self._left(registers, at, node, stated, rest)

        self._add(load)
        self._operands(pattern, homes, home)

    def _any_op(self, pattern: NodePattern, variable: OpVar, home: int) -> None:
        count = len(pattern.args)
        homes, at = [self._register() for _ in range(count)], len(self.code)
        var, rest = self.homes[id(variable)], pattern.rest

        def load(registers: Registers, _: Choices) -> int:
            node: Node = registers[home]
            names = [param.name for param in node.op.params[:count]]
            if len(names) < count:
                return refuse(registers, at, "{0} has {1} parameters", _of(node), len(names))
            for param, register in zip(node.op.params, homes, strict=False):
                if param.name not in node.attributes and param.default is REQUIRED:
                    return refuse(registers, at, "{0} lacks {1}", _of(node), param.name)
                registers[register] = _item(node, node.attributes.get(param.name, param.default))
            left = {n: item for n, item in node.attributes.items() if n not in names}
            if rest is None and any(_has_operand(item) for item in left.values()):
                return refuse(registers, at, "{0} has more than {1} operands", _of(node), count)
            bound = BoundOp(node.op, Attributes({} if rest is not None else left))
            if registers[var] is not UNSET and registers[var] != bound:
                return refuse(registers, at, "{0} is not the same op twice", variable)
            registers[var] = bound
            if rest is None:
                return at + 1
            return self._left(registers, at, node, frozenset(names), rest)

        self._add(load)
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
                        _of(node),
                        name,
                        show(item),
                    )
            return at + 1
        for name, item in left.items():
            if not rest.values and _has_value(item):
                return refuse(
                    registers,
                    at,
                    "{0} has a value for {1}, and {2} takes attributes",
                    _of(node),
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
            self._match(part, register, home, name)

    def _swap(self, first: int, second: int, home: int) -> None:
        after = len(self.code) + 1

        def swap(registers: Registers, choices: Choices) -> int:
            node, a, b = registers[home], registers[first], registers[second]
            if a is not b and node.op.has(Trait.COMMUTATIVE) and "alpha" not in node.attributes:
                other = _with(registers, first, b)
                other[second] = a
                choices.append((after, other))
            return after

        self._add(swap)

    # -- the end

    def _check_inside(self) -> None:
        """Values inside of the match have no users outside, and bind no symbol."""
        outputs, homes = self.outputs, [home for _, home in self.nodes]
        shared = [home for node, home in self.nodes if node.is_shared or self.rule.shared]
        single = [
            self.homes[id(variable)]
            for variable in self.spelling.variables.values()
            if isinstance(variable, Tensor) and variable.one_use
        ]
        at = len(self.code)

        def check(registers: Registers, _: Choices) -> int:
            matched = {registers[home] for home in homes} - {UNSET}
            given = {registers[output] for output in outputs}
            stay = {registers[home] for home in shared}
            roots = {value.producer for value in given}
            if len(given) != len(outputs):
                return refuse(registers, at, "two roots are one value")
            inside = [
                value
                for node in matched
                if node not in stay or node in roots
                for value in node.results
                if value not in given
            ]
            inside += [registers[home] for home in single if registers[home] is not UNSET]
            for value in inside:
                if any(use.node not in matched for use in value.uses):
                    return refuse(registers, at, "{0} has {1}", show(value), _Uses(value))
            for node in matched:
                for symbol, info in node.graph.symbols.items():
                    if info.binding.owner is node:
                        return refuse(registers, at, "{0} gives the size {1}", _of(node), symbol)
            return at + 1

        self._add(check)

    def _ask_guard(self) -> None:
        if not hasattr(self.rule, "where"):
            return
        at = len(self.code)

        def ask(registers: Registers, _: Choices) -> int:
            match = self._finish(registers)
            why = ask_guard(self.rule, match)
            return at + 1 if why is None else refuse(registers, at, "{0}", why)

        self._add(ask)

    def _finish(self, registers: Registers) -> Match:
        bound = {}
        for name, variable in self.spelling.variables.items():
            item = registers[self.homes[id(variable)]]
            bound[name] = None if item is UNSET else item
        nodes = dict.fromkeys(registers[home] for _, home in self.nodes)
        nodes.pop(UNSET, None)
        roots = tuple(registers[output] for output in self.outputs)
        return Match(self.spelling, bound, roots, tuple(nodes))

    def _add(self, instruction: Instruction) -> int:
        """Writes an instruction; gives the number of the next."""
        self.code.append(instruction)
        return len(self.code)


def _with(registers: Registers, register: int, item: Any) -> Registers:
    changed = registers.copy()
    changed[register] = item
    return changed


def _item(node: Node, attribute: Any) -> Any:
    """What stands at one place of `node`."""
    if isinstance(attribute, Operand):
        return node.operands[attribute.index]
    return node.resolve(attribute) if isinstance(attribute, tuple) else attribute


def _has_operand(attribute: Any) -> bool:
    return any(isinstance(leaf, Operand) for leaf in leaves(attribute))


def _has_value(item: Any) -> bool:
    return any(isinstance(leaf, Value) for leaf in leaves(item))


# --------------------------------------------------------------------------- text, lazily


class _Uses:
    """How often a value is used, as messages say it."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value

    def __str__(self) -> str:
        count = len(self.value.uses)
        output = ", one as an output" if self.value.is_output else ""
        return f"{count} use{'s' * (count != 1)}{output}"


def _of(node: Node) -> show:
    return show(node.results[0]) if node.results else show(node)


def _name(pattern: NodePattern) -> str:
    return repr(pattern.op) if isinstance(pattern.op, OpVar) else pattern.op.name
