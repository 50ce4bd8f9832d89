"""What an op is made of: torch's decomposition of it, run once on fake tensors and written down.

A :class:`Template` is the list of the ops that the decomposition called. It is remembered by op,
attributes, types and ranges, so that the hundredth linear layer of a kind costs nothing. Sizes are
symbols while it is traced; where the decomposition would have to know more of them than their
ranges say, there is no template (and never a guard).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import attrs
import sympy
import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from rewright.ir.attributes import Attributes, Operand, leaves, map_leaves
from rewright.ir.calls import flat_results, torch_arguments
from rewright.ir.fakes import FakeWorld, example_sizes
from rewright.ir.inference import infer_types
from rewright.ir.ops import Op, Trait, get_op
from rewright.ir.sizes import Ranges, format_expr, is_true, same_shape
from rewright.ir.stages import is_composite
from rewright.ir.types import TensorType, Type, cast_arguments, type_symbols
from rewright.passes.decomposition import spelling


@attrs.frozen
class Ref:
    """A value of a template: operand number `index`, or result `index` of step `step`."""

    index: int
    step: int | None = None


@attrs.frozen
class Step:
    """One op of a template, its arguments by name; values are a :class:`Ref`."""

    op: Op
    arguments: Mapping[str, Any]
    types: tuple[Type, ...]


@attrs.frozen
class Template:
    """What an op is made of.

    Attributes:
        steps: in order; each is needed.
        results: what stands for each result of the op.
        types: their types.
    """

    steps: tuple[Step, ...]
    results: tuple[Ref, ...]
    types: tuple[Type, ...]


@attrs.frozen
class Refusal:
    """Why there is no template."""

    reason: str


class _Refused(Exception):
    """Ends a trace; its text is the reason."""


# --------------------------------------------------------------------------- torch's tables


@cache
def _table() -> Mapping[Any, Callable[..., Any]]:
    """Torch's decompositions by overload; those into its core ops come first."""
    from torch._decomp import core_aten_decompositions, decomposition_table  # on first need

    return {**decomposition_table, **core_aten_decompositions()}


def decomposition_of(op: Op) -> Callable[..., Any] | None:
    """The function that computes `op` by other ops: torch's table's, or its composite kernel."""
    if not op.is_torch or not op.is_pure or op.has(Trait.DATA_DEPENDENT):
        return None
    found = _table().get(op.target)
    if found is None and is_composite(op):
        return op.target.decompose  # type: ignore[no-any-return]
    return found


# --------------------------------------------------------------------------- remembering

_Key: TypeAlias = "tuple[Any, ...]"
_MAX_TEMPLATES: Final = 4096
_lock = threading.RLock()
_known: OrderedDict[_Key, Template | Refusal] = OrderedDict()


def template_of(
    op: Op, attributes: Attributes, types: Sequence[Type], *, ranges: Ranges, device: str
) -> Template | Refusal:
    """What a call of `op` is made of, or why that can't be said.

    Args:
        op: the op.
        attributes: its attributes, with operands in their places.
        types: the types of the operands.
        ranges: what is known of the symbols.
        device: where the program runs.
    """
    symbols = attributes.symbols().union(*map(type_symbols, types))
    scope = tuple((s, tuple(ranges.get(s, ()))) for s in sorted(symbols, key=lambda s: s.name))
    key = (op, attributes.key, tuple(types), scope, device)
    with _lock:
        if key not in _known:
            _known[key] = _trace(op, attributes, tuple(types), dict(scope), device)
            if len(_known) > _MAX_TEMPLATES:
                _known.popitem(last=False)
        _known.move_to_end(key)
        return _known[key]


def _trace(
    op: Op, attributes: Attributes, types: tuple[Type, ...], ranges: Ranges, device: str
) -> Template | Refusal:
    """By unbacked sizes; where torch can't do with those, by sizes with an example."""
    function = decomposition_of(op)
    if function is None:
        return Refusal("torch has no decomposition of it")
    refusal = Refusal("")
    for hints in ({}, example_sizes(ranges)) if ranges else ({},):
        world = FakeWorld(ranges, ranges, device, hints)
        try:
            template = _Tracer(world, device, types).run(function, op, attributes, ranges)
            return _checked(template, types, ranges, device)
        except _Refused as refused:
            refusal = Refusal(str(refused))
        except Exception as error:  # whatever torch's code raises on symbols or fake tensors
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            refusal = Refusal(f"torch's decomposition fails: {world.reworded(first)}")
    return refusal


def _checked(
    template: Template, types: Sequence[Type], ranges: Ranges, device: str
) -> Template | Refusal:
    """`template`, if each of its steps has the types that its op gives by itself.

    A decomposition may have been told more than the ops that it calls: that an operand is a
    wrapped number, or strided in some way.
    """
    made: list[tuple[Type, ...]] = []
    for step in template.steps:
        attributes, operands = _taken_apart(step, types, made)
        found = infer_types(step.op, attributes, operands, ranges=ranges, device=device)
        for stated, own in zip(step.types, found, strict=True):
            if not same_type(stated, own, ranges):
                return Refusal(f"its {step.op.name} gives a {own} by itself, and a {stated} there")
        made.append(step.types)
    return template


def _taken_apart(
    step: Step, types: Sequence[Type], made: Sequence[tuple[Type, ...]]
) -> tuple[Attributes, list[Type]]:
    """The attributes of a step, and the types of its operands."""
    operands: list[Type] = []

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        operands.append(types[leaf.index] if leaf.step is None else made[leaf.step][leaf.index])
        return Operand(len(operands) - 1)

    named = {name: map_leaves(item, put) for name, item in step.arguments.items()}
    return Attributes(named), operands


def same_type(old: Type, new: Type, ranges: Ranges) -> bool:
    """Whether two types are the same for all sizes."""
    if isinstance(old, TensorType) and isinstance(new, TensorType):
        kept = (old.dtype, old.device) == (new.dtype, new.device)
        return kept and same_shape(old.shape, new.shape, ranges) is True
    return old == new


# --------------------------------------------------------------------------- tracing


class _Tracer:
    """One trace: fake operands in, steps out."""

    def __init__(self, world: FakeWorld, device: str, types: tuple[Type, ...]) -> None:
        self.world = world
        self.device = device
        self.operands = [world.new(item) for item in types]
        self.types: dict[Ref, Type] = {}
        self.refs: dict[int, Ref] = {}
        self.alive: list[Any] = []
        self.steps: list[Step] = []
        for index, (fake, found) in enumerate(zip(self.operands, types, strict=True)):
            self.name(fake, Ref(index), found)

    def run(
        self, function: Callable[..., Any], op: Op, attributes: Attributes, ranges: Ranges
    ) -> Template:
        """The template of ``op(attributes)``."""

        def put(leaf: Any) -> Any:
            is_operand = isinstance(leaf, Operand)
            return self.operands[leaf.index] if is_operand else self.world.number(leaf)

        args, kwargs = _explicit(op, torch_arguments(attributes, put))
        with self.world.active(), _Recorder(self):
            returned = flat_results(function(*args, **kwargs))
        results = tuple(self.ref(item) for item in returned)
        doubtful = [f for f in self.world.assumptions() if is_true(f, ranges) is not True]
        if doubtful:
            raise _Refused(f"that would hold only where {_text(doubtful[0])}")
        if self.world.fresh():
            raise _Refused("it gives a size that only a run can tell")
        return Template(*_pruned(self.steps, results), tuple(self.types[ref] for ref in results))

    # -- names of values

    def name(self, fake: Any, ref: Ref, found: Type) -> None:
        """From now on `ref` is what the fake tensor stands for."""
        self.alive.append(fake)
        self.refs[id(fake)] = ref
        self.types[ref] = found

    def ref(self, fake: Any) -> Ref:
        """What a fake tensor stands for."""
        if not isinstance(fake, torch.Tensor):
            raise _Refused(f"it returns a {type(fake).__name__}, not a tensor")
        if id(fake) not in self.refs:
            raise _Refused("it makes a tensor of its own")
        return self.refs[id(fake)]

    def argument(self, item: Any) -> Any:
        """An argument of a call, as a step keeps it."""
        if isinstance(item, list | tuple):
            return tuple(self.argument(part) for part in item)
        if isinstance(item, torch.Tensor):
            return self.ref(item)
        if isinstance(item, torch.Generator):
            raise _Refused("it draws random numbers from a generator")
        return self.world.expression(item)

    # -- calls

    def call(self, target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs one call of the decomposition, and writes it down."""
        op = get_op(target)
        if op.name in spelling.QUESTIONS:
            return target(*args, **kwargs)
        named = {n: self.argument(item) for n, item in op.bind(args, kwargs).items()}
        if target._schema.is_mutable:
            return self.mutation(target, args, kwargs, named)
        if op.has(Trait.RANDOM):
            raise _Refused(f"it calls {op.name}")
        returned = target(*args, **kwargs)
        flat = flat_results(returned) if op.results != 0 else ()
        for fake, ref in zip(flat, self.write(op, named, flat), strict=True):
            if isinstance(fake, torch.Tensor):
                self.name(fake, ref, self.types[ref])
        return returned

    def mutation(
        self, target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], named: Any
    ) -> Any:
        """A call that writes to its first argument, which nothing else may share memory with."""
        written, pure = args[0], spelling.pure_form(target)
        if pure is None or self.refs[id(written)].step is None:
            raise _Refused(f"it calls {get_op(target).name}, which writes to its argument")
        memory = written.untyped_storage()._cdata
        for fake in self.alive:
            if fake is not written and _memory(fake) == memory:
                raise _Refused(f"it calls {get_op(target).name} on a view")
        target(*args, **kwargs)
        (ref,) = self.write(pure, pure.bind((), named), (written,))
        self.name(written, ref, self.types[ref])
        return written

    def write(self, op: Op, named: dict[str, Any], made: Sequence[Any]) -> Sequence[Ref]:
        """Adds the step of a call, in the spelling of the imported form; what gives its results."""
        types = tuple(self.world.type_of(item) for item in made)
        if not types:
            return self.add(op, named, types)
        named = spelling.without_memory(named)
        first = next(iter(named.values()), None)
        if isinstance(first, Ref) and isinstance(types[0], TensorType):
            old, new = self.types[first], types[0]
            assert isinstance(old, TensorType)
            if op.name in spelling.IDENTITIES and old == new:
                return (first,)
            if op.name in spelling.CASTS:
                changes = cast_arguments(old, new, self.device)
                if not changes:
                    return (first,)
                return self.add(get_op("aten._to_copy"), {"self": first, **changes}, types)
            if op.name in spelling.RESHAPES:
                return self.add(get_op("aten.reshape"), {"self": first, "shape": new.shape}, types)
            if op.name in spelling.EXPANDS:
                return self.add(get_op("aten.expand"), {"self": first, "size": new.shape}, types)
        return self.add(op, named, types)

    def add(self, op: Op, named: Mapping[str, Any], types: tuple[Type, ...]) -> Sequence[Ref]:
        """Adds one step."""
        refs = [Ref(index, len(self.steps)) for index in range(len(types))]
        self.steps.append(Step(op, named, types))
        self.types.update(zip(refs, types, strict=True))
        return refs


def _explicit(op: Op, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call of `op`, those at their default, too: a table's function may have
    other defaults than the op. Lists are lists, which it may change.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for param in op.params:
        item = given[param.name] if param.name in given else param.default_or_raise()
        item = list(item) if isinstance(item, tuple) else item
        if param.keyword_only:
            kwargs[param.name] = item
        else:
            args.append(item)
    return args, kwargs


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows a tracer every call that reaches torch's kernels: what is composite inside of a
    decomposition has been taken apart by then.
    """

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracer = tracer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if not isinstance(func, OpOverload):
            raise _Refused(f"it calls {func}")
        return self.tracer.call(func, args, kwargs or {})


def _memory(fake: Any) -> Any:
    return fake.untyped_storage()._cdata if isinstance(fake, torch.Tensor) else None


def _text(condition: sympy.Basic) -> str:
    try:
        return format_expr(condition)
    except ValueError:
        return "something holds for a number that it makes"


def _pruned(
    steps: Sequence[Step], results: tuple[Ref, ...]
) -> tuple[tuple[Step, ...], tuple[Ref, ...]]:
    """The steps that `results` need, and those that do something else, numbered anew."""
    needed = {ref.step for ref in results}
    needed.update(number for number, step in enumerate(steps) if not step.op.is_pure)
    for number in reversed(range(len(steps))):
        if number in needed:
            needed.update(ref.step for ref in _refs(steps[number].arguments))
    numbers = {old: new for new, old in enumerate(sorted(n for n in needed if n is not None))}

    def renumber(leaf: Any) -> Any:
        if isinstance(leaf, Ref) and leaf.step is not None:
            return Ref(leaf.index, numbers[leaf.step])
        return leaf

    kept = [
        attrs.evolve(
            step, arguments={n: map_leaves(a, renumber) for n, a in step.arguments.items()}
        )
        for number, step in enumerate(steps)
        if number in numbers
    ]
    return tuple(kept), tuple(renumber(ref) for ref in results)


def _refs(arguments: Mapping[str, Any]) -> Iterator[Ref]:
    for item in arguments.values():
        yield from (leaf for leaf in leaves(item) if isinstance(leaf, Ref))
