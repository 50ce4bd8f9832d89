"""Ops: their parameters, traits and meaning.

Every torch operator is an op with no code of ours: :func:`get_op` reads its schema and tags.
Ours live in ``rw.`` and are declared by a signature and a reference function in torch ops
(:mod:`rewright.ir.rw_ops`). Names are torch's without ``.default``: ``aten.add.Tensor``,
``aten.relu``, ``mylib.op``, ``higher_order.cond``.
"""

from __future__ import annotations

import enum
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs
import torch
from torch._ops import HigherOrderOperator, OpOverload

from rewright.errors import RewrightError, UnsupportedError
from rewright.ir.attributes import Attributes

F = TypeVar("F", bound=Callable[..., Any])


class Trait(enum.Enum):
    """A fact about an op that generic passes go by."""

    ELEMENTWISE = "elementwise"
    """Each element of the result depends on the same element of the (broadcast) operands."""
    COMMUTATIVE = "commutative"
    """The first two operands may be exchanged."""
    REDUCTION = "reduction"
    """Combines elements along dimensions."""
    MOVEMENT = "movement"
    """Only rearranges, repeats or selects elements at places that attributes give."""
    RANDOM = "random"
    """Draws random numbers: never folded, merged or moved across another random node."""
    EFFECT = "effect"
    """Does something besides its results (asserts, prints): never removed, keeps its order."""
    OPAQUE = "opaque"
    """Its meaning is unknown to rules; runs in torch, whole."""
    DATA_DEPENDENT = "data-dependent"
    """The shape or number it gives depends on the values of its operands."""
    STRUCTURAL = "structural"
    """Part of the IR itself, not computed by torch: return, scalar, segment."""


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@attrs.frozen
class Param:
    """A parameter of an op.

    Attributes:
        name: as in torch's schema.
        kind: the schema's type: ``Tensor``, ``Optional[Tensor]``, ``List[int]``, ``number`` ...
        default: its default as an attribute, or :data:`REQUIRED`.
        keyword_only: whether it must be given by name.
    """

    name: str
    kind: str
    default: Any = REQUIRED
    keyword_only: bool = False

    @property
    def takes_tensors(self) -> bool:
        """Whether values of the graph are expected here (scalars may hold some, too)."""
        return "Tensor" in self.kind

    def default_or_raise(self) -> Any:
        """The default.

        Raises:
            KeyError: there is none.
        """
        if self.default is REQUIRED:
            raise KeyError(f"the argument {self.name!r} is required")
        return self.default


@attrs.frozen(eq=False)
class Op:
    """An op. There is one object for each op, so that ops are compared by identity.

    Attributes:
        name: as printed.
        params: the parameters, in order; empty for a variadic op.
        results: the number of results, or None where it depends on the node.
        traits: what generic passes go by.
        target: what torch calls to compute it: an overload, a higher-order operator, or the
            reference function of an op of ours; None for structural ops.
        variadic: takes any arguments, named ``arg0``, ``arg1`` ... where given by position.
        doc: the first line of the reference's docstring.
    """

    name: str
    params: tuple[Param, ...]
    results: int | None
    traits: frozenset[Trait]
    target: Any = None
    variadic: bool = False
    doc: str = ""
    _by_name: dict[str, Param] = attrs.field(init=False, repr=False)

    @_by_name.default
    def _index(self) -> dict[str, Param]:
        return {param.name: param for param in self.params}

    def __attrs_post_init__(self) -> None:
        if len(self._by_name) != len(self.params):
            raise ValueError(f"{self.name} has two parameters of one name")

    @property
    def is_pure(self) -> bool:
        """Whether it may be removed, merged and moved freely."""
        return not self.traits & _IMPURE

    @property
    def is_torch(self) -> bool:
        """Whether this is an operator of torch's dispatcher."""
        return isinstance(self.target, OpOverload)

    def has(self, trait: Trait) -> bool:
        """Whether the op has `trait`."""
        return trait in self.traits

    def param(self, name: str) -> Param:
        """The parameter called `name`.

        Raises:
            KeyError: there is none.
        """
        if name not in self._by_name:
            if self.variadic:
                return Param(name, "Any", keyword_only=not name.startswith("arg"))
            raise KeyError(f"{self.name} has no parameter {name!r}; it has {[*self._by_name]}")
        return self._by_name[name]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name, in the op's order, without those left at default.

        Raises:
            RewrightError: too many, unknown, doubled or missing arguments.
        """
        given = self._named(args, kwargs)
        if self.variadic and not self.params:
            return given
        bound: dict[str, Any] = {}
        for param in self.params:
            if param.name in given:
                value = given.pop(param.name)
                if not _is_default(value, param.default):
                    bound[param.name] = value
            elif param.default is REQUIRED:
                raise RewrightError(f"{self.name} needs the argument {param.name!r}")
        if given and not self.variadic:
            raise RewrightError(
                f"{self.name} has no parameter {next(iter(given))!r}; it has {[*self._by_name]}"
            )
        return bound | given

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        positional = [p.name for p in self.params if not p.keyword_only]
        if self.variadic:
            positional += [f"arg{i}" for i in range(len(positional), len(args))]
        if len(args) > len(positional):
            raise RewrightError(
                f"{self.name} takes {len(positional)} positional arguments, got {len(args)}"
            )
        given = dict(zip(positional, args, strict=False))
        if doubled := given.keys() & kwargs.keys():
            raise RewrightError(f"{self.name} got {sorted(doubled)[0]!r} twice")
        return given | dict(kwargs)

    def __repr__(self) -> str:
        return f"<Op {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return get_op, (self.name,)


_IMPURE: Final = frozenset({Trait.RANDOM, Trait.EFFECT})

_RANDOM_BY: Final[Mapping[str, str]] = {
    "aten.scaled_dot_product_attention": "dropout_p",
    "aten._scaled_dot_product_flash_attention": "dropout_p",
    "aten._scaled_dot_product_flash_attention_for_cpu": "dropout_p",
    "aten._scaled_dot_product_cudnn_attention": "dropout_p",
    "aten._scaled_dot_product_efficient_attention": "dropout_p",
    **dict.fromkeys(
        (f"aten.{cell}.{form}" for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")
         for form in ("input", "data")), "train"),
    "aten.dropout": "train",
    "aten.rrelu": "training",
}  # fmt: skip
"""Ops that draw random numbers only where an argument says so, and that argument."""


def is_pure_call(op: Op, attributes: Attributes) -> bool:
    """Whether a node may be removed, merged and moved freely: attention without dropout, say."""
    if op.is_pure:
        return True
    decisive = _RANDOM_BY.get(op.name)
    if decisive is None:
        return False
    given = attributes[decisive] if decisive in attributes else op.param(decisive).default
    return isinstance(given, bool | int | float) and not given


def _is_default(value: Any, default: Any) -> bool:
    if default is REQUIRED:
        return False
    return Attributes({"": value}) == Attributes({"": default})


# --------------------------------------------------------------------------- the registry

_lock = threading.RLock()
_ops: dict[str, Op] = {}
_by_target: dict[Any, Op] = {}


def register(op: Op) -> Op:
    """Makes `op` known by name (and by target, if it has one).

    Raises:
        ValueError: another op has the name.
    """
    with _lock:
        if op.name in _ops:
            raise ValueError(f"there is an op {op.name} already")
        _ops[op.name] = op
        if op.target is not None:
            _by_target[op.target] = op
        return op


def get_op(which: Any) -> Op:
    """The op called `which`, or that stands for a torch overload or higher-order operator.

    Raises:
        UnsupportedError: torch has no such operator (in this process).
    """
    known = (_ops if isinstance(which, str) else _by_target).get(which)
    if known is not None:
        return known
    with _lock:
        if isinstance(which, str):
            return _find(which)
        if isinstance(which, OpOverload):
            return _from_overload(which)
        if isinstance(which, HigherOrderOperator):
            return _from_higher_order(which)
    raise UnsupportedError(f"{which!r} is not an operator of torch")


def known_ops() -> tuple[Op, ...]:
    """The ops of ours, in order of declaration, then the torch operators met so far."""
    return tuple(_ops.values())


def _find(name: str) -> Op:
    namespace, _, rest = name.partition(".")
    if namespace == "rw":
        import rewright.ir.rw_ops  # noqa: F401  declares them

        if name in _ops:
            return _ops[name]
        if rest.startswith(_FUNCTIONAL):
            return functional_form(get_op(rest.removeprefix(_FUNCTIONAL)).target)
        if rest.startswith(_IN_PLACE):
            from rewright.ir.in_place import in_place_form

            if (form := in_place_form(get_op(rest.removeprefix(_IN_PLACE)))) is not None:
                return form.op
        known = ", ".join(sorted(op for op in _ops if op.startswith("rw.")))
        raise UnsupportedError(f"there is no op {name}", hint=f"known: {known}")
    packet, _, overload = rest.partition(".")
    try:
        if namespace == "higher_order":
            return get_op(getattr(torch.ops.higher_order, packet))
        found = getattr(getattr(torch.ops, namespace), packet)
        return get_op(getattr(found, overload or "default"))
    except AttributeError:
        raise UnsupportedError(
            f"torch has no operator {name} in this process",
            hint=f"import the library that registers {namespace}.{packet} first",
        ) from None


def op_name(target: OpOverload) -> str:
    """The name of a torch overload: ``aten.add.Tensor``, ``aten.relu``."""
    return str(target).removesuffix(".default")


# --------------------------------------------------------------------------- torch's operators

_COMMUTATIVE: Final = frozenset(
    "add.Tensor mul.Tensor maximum minimum eq.Tensor ne.Tensor logical_and logical_or "
    "logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor fmax fmin "
    "logaddexp hypot gcd lcm max.other min.other".split()
)
"""Ops of which the first two operands may be exchanged (add with alpha=1 only: see Node)."""

_EFFECTS: Final = (
    *("_assert", "_functional_assert", "_functional_sym_constrain", "sym_constrain_range"),
    *("_print", "_debug", "_make_dep_token", "_linalg_check_errors"),
)

_MOVEMENT: Final = frozenset(
    "reshape view expand permute transpose.int t slice.Tensor select.int squeeze squeeze.dim "
    "squeeze.dims unsqueeze flip roll split.Tensor split_with_sizes unbind.int cat stack "
    "repeat pixel_shuffle pixel_unshuffle unfold diagonal movedim.int movedim.intlist "
    "narrow chunk flatten.using_ints unflatten.int expand_as view_as reshape_as".split()
)


def _from_overload(target: OpOverload) -> Op:
    schema = target._schema
    params = tuple(
        Param(
            argument.name,
            str(argument.type),
            freeze(argument.default_value) if argument.has_default_value() else REQUIRED,
            argument.kwarg_only,
        )
        for argument in schema.arguments
    )
    return register(
        Op(
            op_name(target),
            params,
            _count_results(schema),
            _traits(target),
            target,
            doc=str(schema),
        )
    )


def _count_results(schema: Any) -> int | None:
    kinds = [str(item.type) for item in schema.returns]
    return None if any(kind.startswith("List[") for kind in kinds) else len(kinds)


def _traits(target: OpOverload) -> frozenset[Trait]:
    namespace, _, name = op_name(target).partition(".")
    tags = target.tags
    facts = {
        Trait.ELEMENTWISE: torch.Tag.pointwise in tags,
        Trait.REDUCTION: torch.Tag.reduction in tags,
        Trait.RANDOM: torch.Tag.nondeterministic_seeded in tags,
        Trait.DATA_DEPENDENT: torch.Tag.dynamic_output_shape in tags
        or torch.Tag.data_dependent_output in tags,
        Trait.COMMUTATIVE: namespace == "aten" and name in _COMMUTATIVE,
        Trait.MOVEMENT: namespace == "aten" and name in _MOVEMENT,
        Trait.EFFECT: name.startswith(_EFFECTS) or target._schema.is_mutable,
        Trait.OPAQUE: namespace not in ("aten", "prims", "rw"),
    }
    return frozenset(trait for trait, holds in facts.items() if holds)


def freeze(value: Any) -> Any:
    """`value` as an attribute: lists become tuples, numbers torch's own classes stay."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


# --------------------------------------------------------------------------- higher order

_SIGNATURES: Final[dict[str, tuple[str, ...]]] = {
    "cond": ("pred", "true_fn", "false_fn", "operands"),
    "while_loop": ("cond_fn", "body_fn", "carried_inputs", "additional_inputs"),
    "scan": ("combine_fn", "init", "xs", "additional_inputs"),
    "map_impl": ("f", "xs", "pos_args"),
}


def _from_higher_order(target: HigherOrderOperator) -> Op:
    name = str(target.name())  # type: ignore[no-untyped-call]
    params = tuple(Param(param, "Any") for param in _SIGNATURES.get(name, ()))
    run = _values_in_order(target) if name == _TRITON else target
    op = Op(f"higher_order.{name}", params, None, frozenset({Trait.OPAQUE}), run, variadic=True)
    register(op)
    _by_target[target] = op
    return op


_TRITON: Final = "triton_kernel_wrapper_functional"


def _values_in_order(target: Any) -> Callable[..., tuple[Any, ...]]:
    """A user's Triton kernel as an op: torch gives its new tensors by name, an op by number."""

    def run(**kwargs: Any) -> tuple[Any, ...]:
        names = list(kwargs["tensors_to_clone"])
        results = target(**{**kwargs, "tensors_to_clone": names})
        return tuple(results[name] for name in names)

    return run


# --------------------------------------------------------------------------- functional forms

_FUNCTIONAL: Final = "functional."
_IN_PLACE: Final = "in_place."


def mutated_params(target: OpOverload) -> tuple[int, ...]:
    """The numbers of the parameters that `target` writes to, by its schema."""
    return tuple(
        index
        for index, argument in enumerate(target._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def functional_form(target: OpOverload) -> Op:
    """The pure form of an op that mutates: ``rw.functional.mylib.op``.

    Its results are those results of the op that are no alias of an argument, then the new
    value of every mutated argument, in order. Meaning: clone what is mutated, call the op.
    """
    name = f"rw.{_FUNCTIONAL}{op_name(target)}"
    if name in _ops:
        return _ops[name]
    original = get_op(target)
    mutated = mutated_params(target)
    fresh = tuple(i for i, item in enumerate(target._schema.returns) if item.alias_info is None)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        named = original.bind(args, kwargs)
        clones = []
        for index in mutated:
            key = original.params[index].name
            if named.get(key) is not None:
                named[key] = _clone(named[key])
                clones.append(named[key])
        returned = call(original, named)
        returned = returned if isinstance(returned, tuple) else (returned,)
        return (*(returned[i] for i in fresh), *clones)

    traits = (original.traits - {Trait.EFFECT}) | {Trait.OPAQUE}
    return register(
        Op(name, original.params, None, traits, run, doc=f"pure form of {original.doc}")
    )


def _clone(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [None if item is None else item.clone() for item in value]
    return value.clone()


def call(op: Op, named: Mapping[str, Any]) -> Any:
    """Computes `op` on torch tensors and numbers given by parameter name."""
    args, kwargs = call_args(op, named)
    return op.target(*args, **kwargs)


def call_args(op: Op, named: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """`named` as positional arguments, as far as they go without a gap, and keyword arguments."""
    args: list[Any] = []
    left = dict(named)
    for param in op.params:
        if param.keyword_only or param.name not in left:
            break
        args.append(left.pop(param.name))
    while op.variadic and f"arg{len(args)}" in left:
        args.append(left.pop(f"arg{len(args)}"))
    return args, left


# --------------------------------------------------------------------------- declaring ours


def define(name: str, *traits: Trait) -> Callable[[F], F]:
    """Declares an op of ours by its reference function, whose signature is the op's.

    Annotations say the kinds (``Tensor``, ``Tensor | None``, ``Sequence[Tensor]``, ``int`` ...)
    and the return annotation the number of results. The function computes with torch ops and
    is the meaning of the op: types, printing and the oracle of its implementations.
    """

    def declare(function: F) -> F:
        signature = inspect.signature(function)
        params = tuple(
            Param(
                item.name,
                str(item.annotation),
                REQUIRED if item.default is inspect.Parameter.empty else freeze(item.default),
                item.kind is inspect.Parameter.KEYWORD_ONLY,
            )
            for item in signature.parameters.values()
        )
        doc = (function.__doc__ or "").strip().split("\n")[0]
        returned = str(signature.return_annotation)
        count = returned.count("Tensor") if returned.startswith("tuple") else 1
        register(Op(name, params, count, frozenset(traits), function, doc=doc))
        return function

    return declare


RETURN: Final = register(
    Op(
        "rw.return",
        (Param("values", "List[Any]"),),
        0,
        frozenset({Trait.STRUCTURAL, Trait.EFFECT}),
        doc="The end of a graph: its outputs, then the values that are written back.",
    )
)
SCALAR: Final = register(
    Op(
        "rw.scalar",
        (Param("value", "Any"),),
        1,
        frozenset({Trait.STRUCTURAL}),
        doc="A number, a size expression, a string or None as a value.",
    )
)
SEGMENT: Final = register(
    Op(
        "rw.segment",
        (
            Param("operands", "List[Any]"),
            Param("body", "Region"),
            Param("backend", "str", keyword_only=True),
        ),
        None,
        frozenset({Trait.STRUCTURAL}),
        doc="A region that one backend runs.",
    )
)
