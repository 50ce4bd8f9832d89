"""Types of new nodes, from torch's own shape rules.

Torch computes them on fake tensors in a private ShapeEnv (:mod:`rewright.ir.fakes`), and whatever
it would have to assume about a size to answer (a guard, an equality, a deferred assert) is an
:class:`~rewright.errors.InferenceError`: a type holds for all sizes, or there is none. Ops of ours
get their types from their references, or by a rule that agrees with it
(:mod:`rewright.ir.type_rules`); ops with regions from what the regions return
(:mod:`rewright.ir.region_types`).

Values have no memory, so operands count as contiguous.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

import attrs
import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction
from torch._subclasses.fake_tensor import UnsupportedOperatorException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._sympy.functions import Max, Min

from rewright.errors import InferenceError
from rewright.ir.attributes import Attributes, Operand
from rewright.ir.calls import flat_results, torch_arguments
from rewright.ir.fakes import FakeWorld, example_sizes
from rewright.ir.graph import Graph
from rewright.ir.ops import RETURN, SCALAR, Op, Trait, call
from rewright.ir.region_types import region_types
from rewright.ir.sizes import Dim, Range, Ranges, format_expr, is_true, simplify
from rewright.ir.type_rules import plain_type
from rewright.ir.types import (
    TensorType,
    Type,
    substitute_type,
    type_of_number,
    type_symbols,
)

NewSymbol: TypeAlias = Callable[[str, Range], sympy.Symbol]
"""``(letter, range)``: names a number that a node makes at run time, ``u`` or ``f``."""


def infer_types(
    op: Op,
    attributes: Attributes,
    operand_types: Sequence[Type],
    *,
    ranges: Ranges,
    device: str,
    regions: Sequence[Graph] = (),
    fresh: NewSymbol | None = None,
) -> tuple[Type, ...]:
    """The types of the results of `op`.

    Args:
        op: the op.
        attributes: its attributes, with operands in their places.
        operand_types: the types of the operands.
        ranges: what is known of the symbols.
        device: where the program runs; types of values there have no device.
        regions: the regions of the node.
        fresh: called for each size or number that only a run can tell (``nonzero``, ``item``),
            with the letter and range of the symbol that it shall return.

    Raises:
        InferenceError: the operands don't fit the op, the type depends on a size (then its
            `guard` says what would have to be assumed), torch has no shape rule, or a symbol is
            needed and there is no `fresh`.
    """
    if op.results == 0:  # an assertion: running it would make it a fact of the private ShapeEnv
        return ()
    types = tuple(operand_types)
    known = _pointwise_types.get((op, attributes, types, device))
    if known is not None:
        _counts["hits"] += 1
        return known
    if regions:
        found = _Inferred(*region_types(op, attributes, types, regions, ranges))
    elif op in _STRUCTURAL:
        found = _Inferred(_STRUCTURAL[op](attributes))
    elif (plain := plain_type(op.name, attributes, types)) is not None:
        return (plain,)
    elif (shape := _broadcast_shape(op, attributes, types)) is not None:
        return _pointwise(op, attributes, types, shape, device)
    else:
        found = _memoized(op, attributes, types, ranges, device)
    return found.types if not found.fresh else _named(op, found, fresh)


@attrs.frozen
class _Inferred:
    """Types, and the symbols in them that are still to be named, with their ranges."""

    types: tuple[Type, ...]
    fresh: tuple[tuple[sympy.Symbol, Range], ...] = ()


def _named(op: Op, found: _Inferred, fresh: NewSymbol | None) -> tuple[Type, ...]:
    if fresh is None:
        raise InferenceError(
            f"{op.name} gives a size or number that only a run can tell",
            op=op.name,
            hint="pass fresh= to name its symbol, or give the types",
        )
    names = {old: fresh("u" if old.is_integer else "f", known) for old, known in found.fresh}
    return tuple(substitute_type(item, names) for item in found.types)


_STRUCTURAL: Final[dict[Op, Callable[[Attributes], tuple[Type, ...]]]] = {
    RETURN: lambda _: (),
    SCALAR: lambda attributes: (type_of_number(attributes["value"]),),
}


def _broadcast_shape(
    op: Op, attributes: Attributes, types: tuple[Type, ...]
) -> tuple[Dim, ...] | None:
    """The shape of the result of a pointwise op, where its operands tell without a question.

    They do if at each dimension they have one size, or 1: whatever the sizes are.
    """
    if not op.has(Trait.ELEMENTWISE) or op.results != 1 or attributes.symbols():
        return None
    shapes = [item.shape for item in types if isinstance(item, TensorType)]
    if len(shapes) != len(types) or not any(shapes):
        return None
    result: list[Dim] = []
    for dims in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        sizes = set(dims) - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(reversed(result))


def _pointwise(
    op: Op, attributes: Attributes, types: tuple[Type, ...], shape: tuple[Dim, ...], device: str
) -> tuple[Type, ...]:
    """The type of a pointwise op whose shape is known: only the dtype is asked of torch.

    It is asked for sizes 1 and 2, once for all that broadcast alike: most nodes are such, and
    with symbolic sizes torch takes milliseconds to answer.
    """
    asked = tuple(
        TensorType(item.dtype, tuple(1 if dim == 1 else 2 for dim in item.shape), item.device)
        for item in types
        if isinstance(item, TensorType)
    )
    (found,) = _memoized(op, attributes, asked, {}, device).types
    assert isinstance(found, TensorType)
    given = (attrs.evolve(found, shape=shape),)
    if len(_pointwise_types) >= _MAX_TYPES:
        _pointwise_types.clear()
    _pointwise_types[op, attributes, types, device] = given
    return given


# --------------------------------------------------------------------------- remembering


@attrs.frozen
class CacheInfo:
    """How often types were remembered and computed, and how many are remembered now."""

    hits: int
    misses: int
    size: int


_MAX_TYPES: Final = 1 << 15
_MAX_WORLDS: Final = 8

_lock = threading.RLock()
_known: OrderedDict[Any, _Inferred] = OrderedDict()
_worlds: OrderedDict[Any, FakeWorld] = OrderedDict()
_counts = {"hits": 0, "misses": 0}
_pointwise_types: dict[Any, tuple[Type, ...]] = {}
"""What :func:`_pointwise` gave, whatever the ranges: the quickest way for the most of all nodes."""


def cache_info() -> CacheInfo:
    """What :func:`infer_types` remembers."""
    with _lock:
        return CacheInfo(_counts["hits"], _counts["misses"], len(_known))


def clear_cache() -> None:
    """Forgets all types and sets the counts to zero."""
    with _lock:
        _known.clear()
        _worlds.clear()
        _pointwise_types.clear()
        _counts.update(hits=0, misses=0)


def _memoized(
    op: Op, attributes: Attributes, types: tuple[Type, ...], ranges: Ranges, device: str
) -> _Inferred:
    scope = _scope(attributes, types, ranges)
    key = (op, attributes.key, types, scope, device)
    with _lock:
        found = _known.get(key)
        if found is not None:
            _known.move_to_end(key)
            _counts["hits"] += 1
            return found
        _counts["misses"] += 1
        found = _known[key] = _compute(op, attributes, types, scope, device)
        if len(_known) > _MAX_TYPES:
            _known.popitem(last=False)
        return found


_Scope: TypeAlias = "tuple[tuple[sympy.Symbol, tuple[Range, ...]], ...]"
"""The symbols that a call mentions, with their ranges, in order of name."""


def _scope(attributes: Attributes, types: tuple[Type, ...], ranges: Ranges) -> _Scope:
    mentioned = attributes.symbols()
    dims: set[Any] = set()
    for item in types:
        if not (isinstance(item, TensorType) and item.is_static):
            mentioned |= type_symbols(item)
            dims.update(item.shape if isinstance(item, TensorType) else ())
    return tuple(
        (symbol, _as_dim(ranges.get(symbol, ())) if symbol in dims else ranges.get(symbol, ()))
        for symbol in sorted(mentioned, key=attrgetter("name"))
    )


def _as_dim(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    """The ranges of a symbol that is a dimension, and so not negative."""
    return tuple(
        attrs.evolve(item, min=0) if item.min is None or item.min < 0 else item
        for item in ranges or (Range(),)
    )


# --------------------------------------------------------------------------- computing


def _compute(
    op: Op, attributes: Attributes, types: tuple[Type, ...], scope: _Scope, device: str
) -> _Inferred:
    """By unbacked sizes; where a shape rule can't do with those, by sizes with an example."""
    for question in _guessed(op, attributes, types):
        if is_true(question, dict(scope)) is None:
            raise _depends(op, attributes, types, sympy.Not(question))
    try:
        return _run(op, attributes, types, scope, device, {})
    except InferenceError as refusal:
        hints = example_sizes(dict(scope))
        if not hints or (refusal.__cause__ is None and refusal.guard != _NO_EXPRESSION):
            raise
        try:
            return _run(op, attributes, types, scope, device, hints)
        except InferenceError:
            raise refusal from refusal.__cause__


def _run(
    op: Op,
    attributes: Attributes,
    types: tuple[Type, ...],
    scope: _Scope,
    device: str,
    hints: dict[sympy.Symbol, int],
) -> _Inferred:
    key = (scope, device, bool(hints))
    world = _worlds.pop(key, None)
    if world is None:
        world = FakeWorld([symbol for symbol, _ in scope], dict(scope), device, hints)
    arguments = _fake_arguments(world, op, attributes, types)
    try:
        with world.active():
            returned = flat_results(call(op, arguments))
    except Exception as error:
        raise _refusal(op, attributes, types, world, error) from error
    found = tuple(_tidy(world.type_of(item), dict(scope)) for item in returned)
    guards = [fact for fact in world.assumptions() if is_true(fact, dict(scope)) is not True]
    if guards:
        # Of all that was assumed, say what is over sizes the user knows.
        guards.sort(key=lambda fact: not world.is_ours(fact))
        raise _depends(op, attributes, types, guards[0])
    fresh = tuple(world.fresh().items())
    if not fresh:  # the world is as good as new
        _worlds[key] = world
        if len(_worlds) > _MAX_WORLDS:
            _worlds.popitem(last=False)
    return _Inferred(found, fresh)


def _fake_arguments(
    world: FakeWorld, op: Op, attributes: Attributes, types: tuple[Type, ...]
) -> dict[str, Any]:
    """The arguments of a call in `world`, by parameter name."""
    if op.has(Trait.EFFECT):  # may change what it is given
        operands = [world.new(item) for item in types]
    else:
        operands = [world.make(item, types[:i].count(item)) for i, item in enumerate(types)]

    def put(leaf: Any) -> Any:
        return operands[leaf.index] if isinstance(leaf, Operand) else world.number(leaf)

    return torch_arguments(attributes, put)


def _guessed(op: Op, attributes: Attributes, types: tuple[Type, ...]) -> list[Any]:
    """Questions on sizes that torch's rule for `op` answers with no, undecided or not.

    All others that it answers so don't matter to the type: a broadcast of ``s0`` and 1 is
    ``s0``, whether or not that is 1, too.
    """
    if op.name not in ("aten.squeeze", "aten.squeeze.dim", "aten.squeeze.dims"):
        return []
    (operand,) = types
    dims = attributes.get("dim", ()) if isinstance(operand, TensorType) else ()
    if not isinstance(operand, TensorType) or not operand.rank:
        return []
    chosen = dims if isinstance(dims, tuple) else (dims,)
    shape = [operand.shape[d] for d in chosen] if "dim" in attributes else operand.shape
    return [sympy.Eq(dim, 1) for dim in shape]


def _tidy(value_type: Type, ranges: Ranges) -> Type:
    """`value_type` with the ``Min`` and ``Max`` in it decided, where the ranges do."""
    if not isinstance(value_type, TensorType) or value_type.is_static:
        return value_type
    return attrs.evolve(value_type, shape=tuple(_decided(d, ranges) for d in value_type.shape))


def _decided(dim: Any, ranges: Ranges) -> Any:
    if not isinstance(dim, sympy.Basic) or not dim.has(Max, Min):
        return dim
    return simplify(dim.replace(Max, _pick(Max, ranges)).replace(Min, _pick(Min, ranges)))


def _pick(function: Any, ranges: Ranges) -> Callable[..., Any]:
    beats = sympy.Ge if function is Max else sympy.Le

    def pick(*args: Any) -> Any:
        kept = list(args)
        for arg in args:
            rest = [other for other in kept if other is not arg]
            if any(is_true(beats(other, arg), ranges) for other in rest):
                kept = rest
        return kept[0] if len(kept) == 1 else function(*kept)

    return pick


# --------------------------------------------------------------------------- what went wrong


def _call_text(op: Op, attributes: Attributes, types: tuple[Type, ...]) -> str:
    """The call as a reader would write it, with types for operands."""

    def text(item: Any) -> str:
        if isinstance(item, tuple):
            return f"[{', '.join(text(part) for part in item)}]"
        if isinstance(item, Operand):
            return str(types[item.index])
        return format_expr(item) if isinstance(item, sympy.Basic) else str(item)

    return f"{op.name}({', '.join(f'{name}={text(item)}' for name, item in attributes.items())})"


def _depends(op: Op, attributes: Attributes, types: tuple[Type, ...], guard: Any) -> InferenceError:
    return InferenceError(
        f"the type of {_call_text(op, attributes, types)} depends on the sizes: "
        f"it would hold only where {_guard_text(guard)}",
        op=op.name,
        guard=_guard_text(guard),
        hint="state sizes so that they agree by themselves, or give ranges that decide it",
    )


_NO_EXPRESSION: Final = "an expression over them gave the size of the result"
"""The guard, where torch made up a size of its own."""


def _guard_text(guard: Any) -> str:
    if any(isinstance(symbol, sympy.Dummy) for symbol in guard.free_symbols):
        return _NO_EXPRESSION
    text = format_expr(guard)
    return text if isinstance(guard, Relational | BooleanFunction) else f"{text} is one number"


def _refusal(
    op: Op, attributes: Attributes, types: tuple[Type, ...], world: FakeWorld, error: Exception
) -> InferenceError:
    if isinstance(error, GuardOnDataDependentSymNode):
        return _depends(op, attributes, types, world.expression(error.cond))
    if isinstance(error, UnsupportedOperatorException):
        return InferenceError(
            f"torch has no shape rule for {op.name}",
            op=op.name,
            hint="register one with torch.library.register_fake, or give the types",
        )
    said = world.reworded(str(error).strip().split("\n")[0]) or type(error).__name__
    return InferenceError(f"{_call_text(op, attributes, types)} has no type: {said}", op=op.name)
