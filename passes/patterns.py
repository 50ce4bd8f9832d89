"""Patterns: variables with constraints, nodes, alternatives, literals.

A pattern is a small graph. Calling ops on variables makes its nodes; using a node (or an
`either`) twice means the *same* value twice, as using a variable twice does. The variables of a
rule are the parameters of its `pattern`, constrained by their annotations:

====================  =====================================================  ==================
annotation            stands for                                             bound to
====================  =====================================================  ==================
none, ``Tensor(…)``   any tensor of the graph                                a value
``Const(…)``          a constant: a source, or prepared from sources         a value
``Attr(…)``           an attribute                                           the attribute
``Scalar(…)``         a number: an attribute, or a scalar of the graph       either
``Maybe(…)``          one of these, or None; and in an alternative that is   that, or None
                      not taken, None
``Many(…)``           a list of tensors; in a list, any number of them       a tuple of values
``OpVar(…)``          an op; called like one, and in `replace` called again  the op with all
                      with the attributes that it had                        other attributes
``Rest(…)``           all arguments that the pattern does not mention,       a dict
                      written ``aten.conv2d(x, w, **rest)``
====================  =====================================================  ==================

Numbers, None, dtypes, strings and lists of them are stated attributes, which must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import attrs

from rewright.errors import RuleError
from rewright.ir.ops import Op, Trait, freeze
from rewright.passes.ops import OpCall, call, is_interpreting
from rewright.passes.variables import REST_KEY, Many, Pattern, Rest, Variable, as_tuple


@attrs.frozen(eq=False, repr=False, init=False)
class OpVar(Variable):
    """An op: one of those named, or any that has all of `traits`.

    Called with patterns for the op's first operands, it captures the op and the attributes that
    are left; operands that the call does not mention are no match. Ops with effects or random
    results must be named.
    """

    ops: tuple[Op, ...]
    traits: frozenset[Trait]

    is_attribute: ClassVar[bool] = True

    def __init__(
        self, *ops: OpCall | Op, trait: Trait | tuple[Trait, ...] = (), name: str = ""
    ) -> None:
        traits = frozenset(as_tuple(trait))
        if bool(ops) == bool(traits):
            raise RuleError(
                "an OpVar names either ops or traits",
                hint="OpVar(aten.relu, aten.gelu) or OpVar(trait=Trait.ELEMENTWISE)",
            )
        self.__attrs_init__(
            ops=tuple(item.op if isinstance(item, OpCall) else item for item in ops),
            traits=traits,
            name=name,
        )

    def renamed(self, name: str) -> OpVar:
        """This variable as the parameter `name`."""
        return OpVar(*self.ops, trait=tuple(self.traits), name=name)

    def takes(self, op: Op) -> bool:
        """Whether `op` is one of those meant."""
        return op in self.ops if self.ops else op.is_pure and self.traits <= op.traits

    def __call__(self, *args: Any, **kwargs: Any) -> NodePattern:
        rest = take_rest(kwargs)
        if kwargs:
            raise RuleError(
                f"{self.name}({next(iter(kwargs))}=...): the operands of an OpVar go by position",
                hint="what is left is captured with the op; to state an attribute, name the op",
            )
        named = {str(index): as_pattern(arg) for index, arg in enumerate(args)}
        return NodePattern(self, named, rest)


# --------------------------------------------------------------------------- nodes


@attrs.frozen(eq=False, repr=False)
class NodePattern(Pattern):
    """A node: an op applied to patterns. As an operand, its only result.

    Attributes:
        op: the op, or the variable that stands for it.
        args: the arguments by parameter name; of an `OpVar`, by position.
        rest: what captures all other arguments; without it they must be at their defaults.
        is_shared: whether nodes outside of the match may use it, too.
        count: how many results it must have; None where its op says so.
    """

    op: Op | OpVar
    args: dict[str, Pattern]
    rest: Rest | None = None
    is_shared: bool = False
    count: int | None = None

    def shared(self) -> NodePattern:
        """This node, which others than the match may use: it stays for them."""
        return attrs.evolve(self, is_shared=True)

    def results(self, count: int) -> tuple[Pattern, ...]:
        """Its results, where the op does not say how many: ``split(x, 2).results(3)``."""
        node = attrs.evolve(self, count=count)
        return tuple(ResultPattern(node, index) for index in range(count))

    def __iter__(self) -> Iterator[Pattern]:
        """The results, for ``out, mean, rstd = aten.native_layer_norm(...)``."""
        count = None if isinstance(self.op, OpVar) else self.op.results
        if count is None:
            raise RuleError(
                f"how many results {self!r} has depends on its arguments",
                hint=f"say how many: {self!r}.results(2)",
            )
        return iter([ResultPattern(self, index) for index in range(count)])

    def __bool__(self) -> bool:
        if not is_interpreting():  # whoever works on patterns may ask whether there is one
            return True
        raise RuleError(
            f"{self!r} is neither true nor false: a pattern is described once, for all graphs",
            hint="ask in `where`, offer both by either(...), or add a method `pattern_<name>`",
        )

    def __repr__(self) -> str:
        name = self.op.name if isinstance(self.op, Op) else repr(self.op)
        parts = [repr(item) for item in self.args.values()] + [f"**{self.rest}"] * bool(self.rest)
        return f"{name}({', '.join(parts)})"


@attrs.frozen(eq=False, repr=False)
class ResultPattern(Pattern):
    """Result number `index` of a node with several."""

    node: NodePattern
    index: int

    def __repr__(self) -> str:
        return f"{self.node!r}[{self.index}]"


@attrs.frozen(eq=False, repr=False)
class Either(Pattern):
    """One of several patterns; the first that fits, unless a later part of the match objects."""

    alternatives: tuple[Pattern, ...]

    def __repr__(self) -> str:
        return f"either({', '.join(map(repr, self.alternatives))})"


def either(*alternatives: Any) -> Either:
    """What any of the `alternatives` matches, tried in this order."""
    if len(alternatives) < 2:
        raise RuleError("either(...) needs two alternatives or more")
    return Either(tuple(as_pattern(item) for item in alternatives))


def maybe_cast(value: Pattern, dtype: Pattern) -> Either:
    """`value`, or `value` cast to the dtype that it binds: mixed-precision formulas have both.

    Args:
        value: what may be cast.
        dtype: ``Maybe(Attr)``; bound to None where there is no cast.
    """
    return either(call("aten._to_copy", value, dtype=dtype), value)


# --------------------------------------------------------------------------- attributes


@attrs.frozen(eq=False, repr=False)
class Literal(Pattern):
    """A stated attribute."""

    value: Any
    is_number = True

    def __repr__(self) -> str:
        return repr(self.value)


@attrs.frozen(eq=False, repr=False)
class Near(Pattern):
    """A number within a relative distance of another: see :func:`near`."""

    value: float
    rel: float
    is_number = True

    def __repr__(self) -> str:
        return f"near({self.value!r})"


def near(value: float, rel: float = 1e-6) -> Near:
    """A number that is `value` but for rounding, as hand-written constants are."""
    return Near(value, rel)


@attrs.frozen(eq=False, repr=False)
class ListPattern(Pattern):
    """A list with patterns in it; one item may be a `Many`."""

    items: tuple[Pattern, ...]

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self.items))}]"


def as_pattern(item: Any) -> Pattern:
    """`item` as a pattern: itself, a list of patterns, or a stated attribute.

    Raises:
        RuleError: a node with several results stands where one value belongs, or a list has two
            `Many` items.
    """
    if isinstance(item, NodePattern):
        return _single(item)
    if isinstance(item, Rest):
        raise RuleError(
            f"{item!r} stands for arguments, not for one", hint=f"write **{item!r} in a call"
        )
    if isinstance(item, Pattern):
        return item
    if isinstance(item, list | tuple):
        parts = tuple(as_pattern(part) for part in item)
        if all(isinstance(part, Literal) for part in parts):
            return Literal(freeze(item))
        if sum(isinstance(part, Many) for part in parts) > 1:
            raise RuleError("a list in a pattern holds at most one Many")
        return ListPattern(parts)
    return Literal(item)


def _single(node: NodePattern) -> NodePattern:
    count = 1 if isinstance(node.op, OpVar) else node.op.results
    if node.count is None and count == 1:
        return node
    wanted = "take one of .results(n)" if count is None else "unpack them: a, *others = ..."
    raise RuleError(f"{node!r} has several results, and one is needed here", hint=wanted)


def take_rest(kwargs: dict[str, Any]) -> Rest | None:
    """Takes what ``**rest`` left in the keyword arguments of a call."""
    rest = kwargs.pop(REST_KEY, None)
    return rest if isinstance(rest, Rest) else None


# --------------------------------------------------------------------------- walking


def children(pattern: Pattern) -> tuple[Pattern, ...]:
    """The patterns that `pattern` is made of, in order, variables for ops and rests included."""
    match pattern:
        case NodePattern(op, args, rest):
            extra = [item for item in (op, rest) if isinstance(item, Variable)]
            return (*args.values(), *extra)
        case ResultPattern(node, _):
            return (node,)
        case Either(parts) | ListPattern(parts):
            return parts
    return ()


def walk(*patterns: Pattern) -> Iterator[Pattern]:
    """`patterns` and all they are made of, each once, from the roots down."""
    seen: set[int] = set()
    pending = list(reversed(patterns))
    while pending:
        pattern = pending.pop()
        if id(pattern) not in seen:
            seen.add(id(pattern))
            yield pattern
            pending.extend(reversed(children(pattern)))


def postorder(*patterns: Pattern) -> Iterator[Pattern]:
    """All that `patterns` are made of, each once, after what it is made of."""
    done: set[int] = set()
    pending = list(reversed(patterns))
    while pending:
        pattern = pending[-1]
        todo = [part for part in children(pattern) if id(part) not in done]
        if todo:
            pending.extend(reversed(todo))
            continue
        pending.pop()
        if id(pattern) not in done:
            done.add(id(pattern))
            yield pattern
