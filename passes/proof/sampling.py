"""Examples of patterns: small graphs that a pattern matches, made at random.

An example is built along the pattern, from the leaves up. At each node, what the pattern leaves
open (variables for operands, captured attributes) is drawn: shapes by the op's template
(:mod:`rewright.passes.proof.templates`), attributes by their name. Type inference refuses what
does not fit, and the node is drawn again; so examples are legal, and shapes vary as they may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import torch

from rewright.errors import RewrightError
from rewright.ir.attributes import Attributes
from rewright.ir.builder import Builder, bind_operands
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.inference import infer_types
from rewright.ir.ops import REQUIRED, Op, Param
from rewright.ir.sizes import Range, free_symbols
from rewright.ir.types import TensorType, Type, type_symbols
from rewright.passes.constraints import check_of
from rewright.passes.declaration import Spelling
from rewright.passes.facts import ranges_of
from rewright.passes.handles import BoundOp
from rewright.passes.patterns import (
    Either,
    ListPattern,
    Literal,
    Near,
    NodePattern,
    OpVar,
    ResultPattern,
)
from rewright.passes.proof.attribute_samples import DTYPES
from rewright.passes.proof.draw import Computed, Draw, Reject
from rewright.passes.proof.examples import (
    Example,
    Places,
    other_than,
    some_ops,
    types_by_running,
)
from rewright.passes.proof.guards import Guard, relaxed
from rewright.passes.proof.proposals import Key, Open, Proposal, propose
from rewright.passes.variables import Const, Many, Maybe, Pattern, Rest, Tensor, Variable

SYMBOL_RANGE: Final = Range(1, None, 64)
"""What is known of a symbolic size in an example."""

_STUBBORN: Final = 8
"""The same refusal so often in a row is one of dtypes, say, which no other shape helps."""

_TRIES: Final = 60
"""So often one node is drawn before the example is given up."""


class Sampler:
    """Builds one example.

    Args:
        spelling: the pattern.
        draw: chance.
        guard: a guard that the example has to break, keeping all others.
        given: what some variables are, by name: types of tensors, attributes.
        forced: alternatives to take, by the id of their `either`.
    """

    def __init__(
        self,
        spelling: Spelling,
        draw: Draw,
        *,
        guard: Guard | None = None,
        given: Mapping[str, Any] | None = None,
        forced: Mapping[int, Pattern] | None = None,
    ) -> None:
        self.spelling = spelling
        self.draw = _breaking(draw, guard)
        self.guard = guard
        self.given = given or {}
        self.forced = forced or {}
        self.example = Example(Graph("example"))
        self.build = Builder(self.example.graph)
        self.known: dict[int, Any] = {}
        self.chosen_ops: dict[int, Op] = {}
        self.scratch = Graph("scratch")
        self.symbols = free_symbols(draw.pool)
        self.slots: list[Any] = []  # keeps alive what `known` knows by id
        self.broken = False
        for symbol in self.symbols:
            binding = self.scratch.add_input(TensorType(torch.bool, (symbol,)))
            info = SymbolInfo((SYMBOL_RANGE,), binding, 0)
            self.scratch.symbols[symbol] = self.example.graph.symbols[symbol] = info

    def run(self) -> Example:
        """The example.

        Raises:
            Reject: chance did not find one.
        """
        outputs = []
        for root in self.spelling.roots:
            item = self.make(self._resolve(root))
            outputs.append(item)
        if self.guard is not None and self.guard.kind in ("inside", "one_use"):
            extra = self._extra_use(self.guard.pattern)
            outputs.append(extra)
            self.broken = True
        if self.guard is not None and not self.broken:
            # A variable may occur twice in the pattern and once in each alternative.
            raise Reject(f"nothing broke: {self.guard.text}", illegal=self.guard.kind == "same")
        self.example.graph.set_outputs(outputs)
        self._bind_symbols()
        for name, variable in self.spelling.variables.items():
            self.example.bound[name] = {*self._dtypes(self.known.get(id(variable)))}
        return self.example

    def _dtypes(self, bound: Any) -> Iterator[torch.dtype]:
        """The dtypes of the tensors that a variable is bound to; those of a Many are in slots."""
        if isinstance(bound, list):
            for slot in bound:
                yield from self._dtypes(self.known.get(id(slot)))
        elif isinstance(bound, Value) and isinstance(bound.type, TensorType):
            yield bound.type.dtype

    def _extra_use(self, pattern: Pattern) -> Value:
        item = self.known.get(id(pattern))
        if isinstance(item, Node):
            item = item.results[0]
        if not isinstance(item, Value):
            raise Reject(f"{pattern!r} is no part of this example")
        return item

    def _bind_symbols(self) -> None:
        graph = self.example.graph
        for symbol in self.symbols:
            places = [
                (value, at)
                for value in graph.inputs
                if isinstance(value.type, TensorType)
                for at, dim in enumerate(value.type.shape)
                if dim == symbol
            ]
            if places:
                graph.symbols[symbol] = SymbolInfo((SYMBOL_RANGE,), *places[0])
            elif any(symbol in node.attributes.symbols() for node in graph) or any(
                symbol in type_symbols(value.type) for value in graph.inputs
            ):
                raise Reject(f"no input gives {symbol}")
            else:
                del graph.symbols[symbol]

    # -- patterns

    def make(self, pattern: Pattern) -> Any:
        """The item that stands for a resolved pattern."""
        match pattern:
            case NodePattern():
                return self._node(pattern).results[0]
            case ResultPattern(node, index):
                results = self._node(node).results
                if index >= len(results):
                    raise Reject(f"{node!r} has {len(results)} results")
                return results[index]
            case Variable():
                return self._again(pattern)
        raise AssertionError(f"{pattern!r} is drawn with its node")

    def _resolve(self, pattern: Pattern) -> Pattern:
        """`pattern`, or the alternative that is taken of it."""
        while isinstance(pattern, Either):
            taken = self.known.get(id(pattern))
            if taken is None:
                taken = self.forced.get(id(pattern)) or self.draw.choice(pattern.alternatives)
                self.known[id(pattern)] = taken
                self.example.chosen.add(id(taken))
            pattern = taken
        return pattern

    def _again(self, variable: Variable) -> Any:
        """What a variable is bound to; a twin, where the guard that they are the same is broken."""
        item = self.known[id(variable)]
        if isinstance(variable, Many):
            return tuple(self.known[id(slot)] for slot in item)
        if not self._is_broken_here("same", variable) or self.broken:
            return item
        self.broken = True
        if isinstance(item, Value) and isinstance(item.type, TensorType):
            return self._leaf(item.type, variable, "")
        return other_than(item, self.draw)

    def _is_broken_here(self, kind: str, pattern: Pattern) -> bool:
        guard = self.guard
        return guard is not None and guard.kind == kind and guard.pattern is pattern

    # -- nodes

    def _node(self, pattern: NodePattern) -> Node:
        made = self.known.get(id(pattern))
        if made is None:
            op, captured = self._op(pattern)
            places = Places(op, dict(captured), results=pattern.count)
            self._arguments(pattern, places)
            self._close(places)
            self._captured(pattern, places)
            made = self.known[id(pattern)] = self._settle(places)
            self._remember(pattern, made, places)
        assert isinstance(made, Node)
        return made

    def _op(self, pattern: NodePattern) -> tuple[Op, dict[Key, Any]]:
        """The op of a node, and the attributes that an OpVar has captured with it before."""
        variable = pattern.op
        if isinstance(variable, Op):
            return variable, {}
        bound = self.known.get(id(variable))
        if bound is not None:
            return bound.op, {(name, None): item for name, item in bound.attributes.items()}
        if id(variable) in self.chosen_ops:  # by a node above, which is made after this one
            return self.chosen_ops[id(variable)], {}
        pool = variable.ops or tuple(op for op in some_ops() if variable.takes(op))
        fitting = [op for op in pool if _takes(op, len(pattern.args), pattern.rest)]
        if not fitting:
            raise Reject(f"no op is known for {variable!r}")
        self.chosen_ops[id(variable)] = self.draw.choice(fitting)
        return self.chosen_ops[id(variable)], {}

    def _arguments(self, pattern: NodePattern, places: Places) -> None:
        """What the pattern says of the arguments."""
        by_position = isinstance(pattern.op, OpVar)
        for name, part in pattern.args.items():
            param = places.op.params[int(name)] if by_position else places.op.param(name)
            found = self._resolve(part)
            if isinstance(found, ListPattern | Many) and id(found) not in self.known:
                items = found.items if isinstance(found, ListPattern) else (found,)
                spread = [one for item in items for one in self._spread(self._resolve(item))]
                for index, (item, slot) in enumerate(spread):
                    self._argument(places, (param.name, index), param, item, slot)
            else:
                self._argument(places, (param.name, None), param, found, found)

    def _spread(self, item: Pattern) -> list[tuple[Pattern, Any]]:
        """An item of a list, or the several that a Many stands for, each with its slot."""
        if not isinstance(item, Many):
            return [(item, item)]
        most = item.max if item.max is not None else item.min + 2
        counts = list(range(max(item.min, 1), most + 1))
        if self._is_broken_here("length", item):
            self.broken = True
            counts = [most + 1] if item.max is not None else [item.min - 1]
        slots = [object() for _ in range(self.draw.choice(counts))]
        self.known[id(item)] = slots
        return [(item.inner, slot) for slot in slots]

    def _argument(self, places: Places, key: Key, param: Param, part: Pattern, slot: Any) -> None:
        match part:
            case Literal(value):
                if self._is_broken_here("stated", part):
                    self.broken = True
                    value = other_than(value, self.draw)
                places.fixed[key] = value
            case Near(value, _):
                places.fixed[key] = value
            case Variable() if id(slot) not in self.known:
                earlier = next((item for item in places.opened if item.slot is slot), None)
                if earlier is None:
                    places.opened.append(Open(key, param, part, slot))
                else:
                    places.repeated[key] = earlier
            case _:
                places.fixed[key] = self.make(part)

    def _close(self, places: Places) -> None:
        """Closes places whose variables were drawn meanwhile, for a node below."""
        for item in places.opened:
            if id(item.slot) in self.known and item.variable is not None:
                places.fixed[item.key] = self._again(item.variable)
        places.opened = [item for item in places.opened if item.key not in places.fixed]
        self._repeat(places)

    def _repeat(self, places: Places) -> None:
        """Fills the further places of variables that are drawn by now."""
        for key, item in places.repeated.items():
            if key not in places.fixed and id(item.slot) in self.known:
                assert item.variable is not None
                places.fixed[key] = self._again(item.variable)

    def _captured(self, pattern: NodePattern, places: Places) -> None:
        """What a Rest or an OpVar captures: all that is required, and some of the others."""
        rest, variable = pattern.rest, pattern.op
        if rest is not None and id(rest) in self.known:
            places.fixed.update(self.known[id(rest)])
        elif rest is None and (bound := self.known.get(id(variable))) is not None:
            places.fixed.update({(name, None): item for name, item in bound.attributes.items()})
        elif rest is not None or (isinstance(variable, OpVar) and id(variable) not in self.known):
            values = rest is not None and rest.values
            mentioned = {key[0] for key in (*places.fixed, *(o.key for o in places.opened))}
            for param in places.op.params:
                if param.name in mentioned or (param.takes_tensors and not values):
                    continue
                if param.default is REQUIRED or self.draw.chance(0.3):
                    places.opened.append(Open((param.name, None), param, None, param))
                    places.captured.append(param.name)

    def _remember(self, pattern: NodePattern, node: Node, places: Places) -> None:
        captured = {name: node.arg(name) for name in places.captured}
        if pattern.rest is not None:
            self.known[id(pattern.rest)] = {(name, None): v for name, v in captured.items()}
        elif isinstance(pattern.op, OpVar) and id(pattern.op) not in self.known:
            self.known[id(pattern.op)] = BoundOp(node.op, Attributes(captured))

    # -- drawing what is open

    def _settle(self, places: Places) -> Node:
        """A node whose open places are drawn so that its op, and the variables, take them."""
        if not places.opened:
            return self._insert(places)
        refusal, again = Reject("nothing was tried"), 0
        for _ in range(_TRIES):
            try:
                proposal = propose(
                    places.op,
                    places.fixed,
                    places.opened,
                    self.draw,
                    self.guard,
                    self.given,
                    places.results,
                )
                breaks, types = self._check(places, proposal)
            except Reject as reject:
                again = again + 1 if str(reject) == str(refusal) else 0
                refusal = reject
                if again > _STUBBORN:
                    break
                continue
            self.broken |= breaks
            for item in places.opened:
                places.fixed[item.key] = self._enter(item, proposal)
            self._repeat(places)
            return self.build.insert(places.op, places.named(), types)
        raise refusal

    def _insert(self, places: Places) -> Node:
        """A node with nothing open."""
        named = places.named()
        operands, attributes, _ = bind_operands(named)
        types = self._types(places.op, attributes, operands)
        return self.build.insert(places.op, named, types)

    def _types(self, op: Op, attributes: Attributes, operands: Sequence[Value]) -> tuple[Type, ...]:
        """The types of a node: by running it, where sizes are numbers, which is faster.

        Raises:
            Reject: the operands don't fit the op.
        """
        given = [value.type for value in operands]
        static = all(isinstance(item, TensorType) and item.is_static for item in given)
        try:
            if static and not attributes.symbols():
                return types_by_running(op, attributes, given)
            return infer_types(
                op, attributes, given, ranges=ranges_of(self.scratch), device=self.scratch.device
            )
        except (
            RewrightError,
            ArithmeticError,
            RuntimeError,
            LookupError,
            ValueError,
            TypeError,
        ) as error:
            raise Reject(str(error).split("\n")[0], illegal=True) from None

    def _check(self, places: Places, proposal: Proposal) -> tuple[bool, tuple[Type, ...]]:
        """Checks a proposal on a scratch graph; whether it breaks the guard, and its types."""
        breaks = False
        fixed = dict(places.fixed)
        for item in places.opened:
            found = proposal.items[item.key]
            if isinstance(found, Computed):
                found = self._scratch_value(found.type, item.variable)
            elif isinstance(found, TensorType):
                found = self._scratch_value(found, item.variable)
            fixed[item.key] = found
            if item.variable is not None:
                breaks |= self._accept(item.variable, found)
        for key, item in places.repeated.items():
            fixed.setdefault(key, fixed[item.key])
        operands, attributes, _ = bind_operands(places.named(fixed))
        return breaks, self._types(places.op, attributes, operands)

    def _accept(self, variable: Variable, item: Any) -> bool:
        """Whether `item` breaks the guard at `variable`; all others it must pass."""
        why = check_of(relaxed(variable, self.guard))(item)
        if why is not None:
            raise Reject(str(why))
        about = variable.inner if isinstance(variable, Maybe | Many) else variable
        if self.guard is None or self.guard.pattern is not about or self.guard.kind not in _CHECKED:
            return False
        if check_of(variable)(item) is None:
            raise Reject(f"nothing breaks: {self.guard.text}")
        return True

    def _scratch_value(self, found: TensorType, variable: Variable | None) -> Value:
        if self._is_constant(variable):
            if not found.is_static:
                raise Reject("a constant has no symbolic size")
            return Constant(found, self.scratch, 0, "", "scratch")
        return Value(found, self.scratch, 0)

    def _is_constant(self, variable: Variable | None) -> bool:
        about = relaxed(variable, self.guard) if variable is not None else None
        about = about.inner if isinstance(about, Maybe | Many) else about
        return isinstance(about, Const)

    def _enter(self, item: Open, proposal: Proposal) -> Any:
        found = proposal.items[item.key]
        if isinstance(found, TensorType):
            domain = proposal.domains.get(item.key, "")
            found = self._leaf(found, item.variable, domain)
        elif isinstance(found, Computed):
            found = found.make(self.build)
        self.known[id(item.slot)] = found
        self.slots.append(item.slot)
        return found

    def _leaf(self, found: TensorType, variable: Variable | None, domain: str) -> Value:
        """A new input, or constant, of the example."""
        graph = self.example.graph
        hint = variable.name if variable is not None else "argument"
        if not self._is_constant(variable):
            value = graph.add_input(found, hint)
            self.example.domains[value.index] = domain
            return value
        name = hint if hint not in graph.constants else f"{hint}_{len(graph.constants)}"
        self.example.domains[name] = domain
        return graph.add_constant(name, found)


def _takes(op: Op, count: int, rest: Rest | None) -> bool:
    """Whether `op` can be called on `count` operands, and whatever `rest` adds."""
    others = op.params[count:]
    wanting = [param for param in others if param.takes_tensors and param.default is REQUIRED]
    return len(op.params) >= count and (not wanting or (rest is not None and rest.values))


def _breaking(draw: Draw, guard: Guard | None) -> Draw:
    """`draw`, of a dtype that breaks `guard` if that is about dtypes."""
    if guard is None or guard.kind != "dtype" or not isinstance(guard.pattern, Tensor):
        return draw
    allowed = guard.pattern.dtype
    others = [dtype for dtype in (*DTYPES, *_NOT_FLOATING) if dtype not in allowed]
    return attrs.evolve(draw, dtype=draw.choice(others))


_NOT_FLOATING: Final = (torch.int64, torch.int32, torch.bool)
_CHECKED: Final = ("constant", "dtype", "rank", "kind", "where")
