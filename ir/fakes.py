"""Torch's fake tensors over our symbols, in a ShapeEnv of our own.

A :class:`FakeWorld` stands for a set of symbols and what is known of them. In it a type becomes
what torch's shape rules take (:meth:`FakeWorld.make`), and what they return becomes a type again
(:meth:`FakeWorld.type_of`). Torch answers a question about a size ("is it 1?") from the ranges
where they decide it; where they don't, it notes an assumption, and
:meth:`FakeWorld.assumptions` tells.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from rewright.errors import UnsupportedError
from rewright.ir.sizes import Range, Ranges, free_symbols, hull, simplify
from rewright.ir.types import NoneType, OpaqueType, ScalarType, TensorType, Type, kind_of

_SYM: Final[dict[str, type]] = {
    "int": torch.SymInt,
    "float": torch.SymFloat,
    "bool": torch.SymBool,
}
_SYMBOLIC: Final = (torch.SymInt, torch.SymFloat, torch.SymBool)
_KINDS: Final[dict[type, str]] = {
    bool: "bool",
    int: "int",
    float: "float",
    torch.SymBool: "bool",
    torch.SymInt: "int",
    torch.SymFloat: "float",
}
_PYTHON: Final[dict[str, type]] = {"int": int, "float": float, "bool": bool}
_UNLIMITED: Final = 2**62  # torch writes "no bound" with numbers beyond this, too


_MAX_MADE: Final = 1024


class FakeWorld:
    """Fake tensors and numbers over `symbols`, in a private ShapeEnv.

    Without `hints`, sizes are *unbacked*: they have no example, so torch can't look at one and
    guess. With them, sizes called ``s<n>`` are *backed*, as Inductor and old shape rules need it.

    Args:
        symbols: the symbols that types here may mention.
        ranges: what is known of them.
        device: where tensors of a type without a device are.
        hints: an example for each size.
        fixed: the symbols that are just a number here.
        cached: whether torch remembers what ops make of their inputs. Types are remembered by
            us, and torch's entries cost as much as they save; but whoever traces a graph in this
            mode again (Inductor does, several times) asks torch alone.
    """

    def __init__(
        self,
        symbols: Iterable[sympy.Symbol],
        ranges: Ranges,
        device: str,
        hints: Mapping[sympy.Symbol, int] | None = None,
        cached: bool = False,
        fixed: Mapping[sympy.Symbol, float] | None = None,
    ) -> None:
        self.env = ShapeEnv(specialize_zero_one=False, duck_shape=False)
        self.mode = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self.mode.cache_enabled = cached and self.mode.cache_enabled
        self.device = torch.device(device)
        self._theirs: dict[sympy.Symbol, sympy.Symbol] = {}
        self._ours: dict[sympy.Symbol, sympy.Symbol] = {}
        self._fresh: dict[sympy.Symbol, sympy.Symbol] = {}
        self._made: dict[tuple[Type, int], Any] = {}
        for symbol, number in (fixed or {}).items():
            self._theirs[symbol] = sympy.sympify(number)
        for symbol in symbols:
            if symbol in self._theirs:
                continue
            their = self._enter(symbol, ranges.get(symbol, ()), (hints or {}).get(symbol))
            self._theirs[symbol], self._ours[their] = their, symbol
        self.env.pending_fresh_unbacked_symbols.clear()  # no op made these
        self._known = self._facts()

    def _enter(
        self, symbol: sympy.Symbol, ranges: tuple[Range, ...], hint: int | None
    ) -> sympy.Symbol:
        if not symbol.is_integer:
            return self.env.create_unbacked_symfloat().node.expr
        covered = hull(ranges) if ranges else Range(0 if symbol.is_nonnegative else None)
        if hint is not None:
            from torch._dynamo.source import ConstantSource  # seconds, where Dynamo isn't loaded

            their: sympy.Symbol = self.env.create_symbol(
                hint,
                source=ConstantSource(symbol.name),
                dynamic_dim=DimDynamic.DYNAMIC,
                constraint_dim=None,
                positive=(covered.min is not None and covered.min > 0) or None,
                do_not_specialize_zero_one=True,
            )
        else:
            their = self.env.create_unbacked_symint().node.expr
        self.env.var_to_range[their] = ValueRanges(
            -int_oo if covered.min is None else covered.min,
            int_oo if covered.max is None else covered.max,
        )
        return their

    # -- into torch

    def number(self, expr: Any) -> Any:
        """The SymInt, SymFloat or SymBool that stands for `expr`; a plain number as it is."""
        if not isinstance(expr, sympy.Basic):
            return expr
        kind, theirs = kind_of(expr), expr.xreplace(self._theirs)
        if theirs.is_Number:
            return _PYTHON[kind](theirs)
        return _SYM[kind](SymNode(theirs, self.env, _PYTHON[kind], None))

    def make(self, value_type: Type, occurrence: int = 0) -> Any:
        """A fake tensor (contiguous), number or None of `value_type`.

        The same one is given again for the same type and `occurrence`.
        """
        key = (value_type, occurrence)
        if len(self._made) > _MAX_MADE:
            self._made.clear()
        if key not in self._made:
            self._made[key] = self.new(value_type)
        return self._made[key]

    def new(self, value_type: Type) -> Any:
        """A new fake tensor (contiguous), number or None of `value_type`."""
        match value_type:
            case TensorType():
                shape = [self.number(dim) for dim in value_type.shape]
                device = value_type.device or self.device
                with self.mode:
                    return torch.empty(shape, dtype=value_type.dtype, device=device)
            case ScalarType(kind, None):
                return self._unknown(kind)
            case ScalarType(_, expr):
                return self.number(expr)
            case NoneType():
                return None
        raise UnsupportedError(f"there is no fake value of the type {value_type}")

    def _unknown(self, kind: str) -> Any:
        make: dict[str, Callable[[], Any]] = {
            "int": self.env.create_unbacked_symint,
            "float": self.env.create_unbacked_symfloat,
            "bool": self.env.create_unbacked_symbool,
        }
        return make[kind]()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Torch computes types here: nothing is run, nothing is logged, no gradients.

        A compile that is under way in this thread, with a fake mode of its own, isn't seen.
        """
        with (
            tracing(None), self.mode, torch.no_grad(), torch._C._DisableAutocast(),
            enable_python_dispatcher(), _quiet(),
        ):  # fmt: skip
            yield

    # -- back to types

    def expression(self, value: Any) -> Any:
        """A number or SymInt of torch's over our symbols, and dummies for what torch made anew."""
        expr = value.node.expr if isinstance(value, _SYMBOLIC) else value
        if not isinstance(expr, sympy.Basic):
            return expr
        for symbol in sorted(expr.free_symbols - self._ours.keys(), key=str):
            if symbol not in self._fresh:
                self._fresh[symbol] = sympy.Dummy(symbol.name, integer=symbol.is_integer)
        return simplify(expr.xreplace(self._ours | self._fresh))

    def _is_here(self, device: torch.device) -> bool:
        """Whether `device` is the program's; ``cuda`` alone means any of them."""
        here = self.device
        return device.type == here.type and here.index in (None, device.index)

    def type_of(self, value: Any) -> Type:
        """The type of what torch returned."""
        if isinstance(value, torch.Tensor):
            shape = tuple(d if type(d) is int else self.expression(d) for d in value.shape)
            device = None if self._is_here(value.device) else str(value.device)
            return TensorType(value.dtype, shape, device)
        if value is None:
            return NoneType()
        kind = _KINDS.get(type(value))
        if kind is None:
            return OpaqueType(type(value).__name__)
        return ScalarType(kind, self.expression(value))

    def reworded(self, message: str) -> str:
        """A message of torch's with our names for the sizes."""
        names = {theirs.name: ours.name for theirs, ours in self._ours.items()}
        return re.sub(r"\b[a-z]+\d+\b", lambda name: names.get(name[0], name[0]), message)

    def fresh(self) -> dict[sympy.Symbol, Range]:
        """The dummies that :meth:`expression` gave, with the range of what each stands for."""
        return {ours: self._range_of(theirs) for theirs, ours in self._fresh.items()}

    def _range_of(self, theirs: sympy.Symbol) -> Range:
        known = self.env.var_to_range.get(theirs)
        if known is None or not theirs.is_integer:
            return Range(None)
        return Range(_finite(known.lower), None, _finite(known.upper))

    # -- what torch assumed

    def _facts(self) -> dict[tuple[Any, ...], None]:
        """All that the ShapeEnv holds for true: expressions, equalities and ranges."""
        env = self.env
        facts: dict[tuple[Any, ...], None] = {}
        facts |= dict.fromkeys((guard.expr,) for guard in env.guards)
        facts |= dict.fromkeys(
            (item.expr,) for items in env.deferred_runtime_asserts.values() for item in items
        )
        facts |= dict.fromkeys(env.replacements.items())
        for their in self._theirs.values():
            known = env.var_to_range.get(their)
            facts[their, getattr(known, "lower", None), getattr(known, "upper", None)] = None
        return facts

    def assumptions(self) -> list[Any]:
        """What torch assumed of our symbols since this world was made, in our symbols.

        Not among them is what concerns only numbers that the op itself makes (``u >= 0``).
        """
        new = [_condition(fact) for fact in self._facts() if fact not in self._known]
        return [self.expression(fact) for fact in new if fact.free_symbols & self._ours.keys()]

    def is_ours(self, expr: Any) -> bool:
        """Whether `expr` is over our symbols only."""
        return free_symbols([expr]).isdisjoint(self._fresh.values())


def example_sizes(ranges: Ranges, *, typical: bool = False) -> dict[sympy.Symbol, int]:
    """An example for each size in `ranges`: distinct, and neither 0 nor 1, where ranges allow it.

    With `typical`, the typical value of a range comes first.
    """
    examples = {}
    sizes = [symbol for symbol in ranges if symbol.name.startswith("s")]
    for symbol, prime in zip(sizes, itertools.cycle(_PRIMES), strict=False):
        covered = hull(ranges[symbol])
        example = max(covered.min or 0, prime if covered.max is None else min(prime, covered.max))
        known = covered.opt if typical else None
        examples[symbol] = example if known is None else known
    return examples


_PRIMES: Final = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67)


def _condition(fact: tuple[Any, ...]) -> sympy.Basic:
    """A fact of :meth:`FakeWorld._facts` as a condition."""
    match fact:
        case (condition,):
            return condition
        case (old, new):
            return sympy.Eq(old, new, evaluate=False)
        case (symbol, low, high):
            lower = sympy.true if low == -int_oo else sympy.Le(low, symbol)
            upper = sympy.true if high == int_oo else sympy.Le(symbol, high)
            return sympy.And(lower, upper)
    raise AssertionError(fact)


def _finite(bound: Any) -> int | None:
    if bound in (int_oo, -int_oo):
        return None
    return int(bound) if abs(int(bound)) < _UNLIMITED else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from logging this thread's failures of shape rules: they become our errors."""
    thread = threading.get_ident()

    def other_threads(_: logging.LogRecord) -> bool:
        return threading.get_ident() != thread

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(other_threads)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(other_threads)


_LOGGERS: Final = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
)
