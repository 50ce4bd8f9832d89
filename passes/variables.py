"""Variables: what the parameters of a rule's `pattern` stand for, and what they must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

import attrs
import torch

from rewright.errors import RuleError
from rewright.passes.ops import Expression

# --------------------------------------------------------------------------- base


class Pattern(Expression):
    """Anything that a pattern consists of."""

    __slots__ = ()

    def results(self, count: int) -> tuple[Pattern, ...]:
        """The results of a node whose op does not say how many it has."""
        raise RuleError(f"{self!r} has no results: it is not a node of the pattern")


# --------------------------------------------------------------------------- variables

DTypes: TypeAlias = "torch.dtype | tuple[torch.dtype, ...]"
Predicate: TypeAlias = "Callable[[Any], Any]"

FLOATS: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The dtypes of ordinary floating-point numbers."""


def as_tuple(item: Any) -> tuple[Any, ...]:
    """`item` as a tuple: of nothing for None, of itself where it is none."""
    return item if isinstance(item, tuple) else (item,) if item is not None else ()


@attrs.frozen(eq=False)
class Variable(Pattern):
    """What a parameter of `pattern` stands for."""

    name: str = attrs.field(default="", kw_only=True)
    """The name of the parameter, given when the rule is declared."""

    is_attribute: ClassVar[bool] = False
    """Whether it captures attributes, so that a rule that ignores it would ignore them."""

    def renamed(self, name: str) -> Variable:
        """This variable as the parameter `name`."""
        return attrs.evolve(self, name=name)

    def __repr__(self) -> str:
        return self.name or type(self).__name__


@attrs.frozen(eq=False, repr=False)
class Tensor(Variable):
    """A tensor of the graph.

    Args:
        dtype: what its dtype must be, one or several.
        rank: how many dimensions it must have, one number or several.
        one_use: whether nothing but this match may use it.
        where: called with the value; True lets it pass (unknown does not).
    """

    dtype: tuple[torch.dtype, ...] = attrs.field(default=None, converter=as_tuple)
    rank: tuple[int, ...] = attrs.field(default=None, converter=as_tuple)
    one_use: bool = False
    where: Predicate | None = None

    constant: ClassVar[bool] = False


@attrs.frozen(eq=False, repr=False)
class Const(Tensor):
    """A constant of the graph: a source, or prepared from sources. Constrained as `Tensor` is."""

    constant: ClassVar[bool] = True


@attrs.frozen(eq=False, repr=False)
class Attr(Variable):
    """An attribute, captured.

    Args:
        kind: its class (``int``, ``float``, ``str``, ``tuple``, ``torch.dtype`` ...), one or
            several; an int is no float here, a bool no int.
        where: called with the attribute; True lets it pass.
    """

    kind: tuple[type, ...] = attrs.field(default=None, converter=as_tuple)
    where: Predicate | None = None

    is_attribute: ClassVar[bool] = True
    is_number = True


@attrs.frozen(eq=False, repr=False)
class Scalar(Variable):
    """A number: an attribute, or a symbolic scalar of the graph.

    Args:
        kind: ``int``, ``float`` or ``bool``, one or several.
        where: called with the number (or the value); True lets it pass.
    """

    kind: tuple[type, ...] = attrs.field(default=None, converter=as_tuple)
    where: Predicate | None = None

    is_attribute: ClassVar[bool] = True
    is_number = True


def as_variable(item: Any) -> Variable:
    """The variable that an annotation means: an instance, or a class with its defaults."""
    made = item() if isinstance(item, type) and issubclass(item, Variable) else item
    if not isinstance(made, Variable):
        raise RuleError(
            f"{item!r} is no kind of variable",
            hint="annotate with Tensor, Const, Attr, Scalar, Maybe, Many, OpVar or Rest",
        )
    return made


@attrs.frozen(eq=False, repr=False)
class Maybe(Variable):
    """An optional operand or attribute: what `inner` takes, or None."""

    inner: Variable = attrs.field(factory=Tensor, converter=as_variable)

    def renamed(self, name: str) -> Maybe:
        """This variable as the parameter `name`."""
        return Maybe(self.inner.renamed(name), name=name)

    @property
    def is_attribute(self) -> bool:  # type: ignore[override]
        """Whether it captures an attribute."""
        return self.inner.is_attribute

    @property
    def is_number(self) -> bool:  # type: ignore[override]
        """Whether it stands for a number."""
        return self.inner.is_number


@attrs.frozen(eq=False, repr=False)
class Many(Variable):
    """A list of values, each of which `inner` takes; as an item of a list, any number of items."""

    inner: Variable = attrs.field(factory=Tensor, converter=as_variable)
    min: int = 0
    max: int | None = None

    def renamed(self, name: str) -> Many:
        """This variable as the parameter `name`."""
        return Many(self.inner.renamed(name), self.min, self.max, name=name)


@attrs.frozen(eq=False, repr=False)
class Rest(Variable):
    """All arguments of a call that the pattern does not mention: ``aten.conv2d(x, w, **rest)``.

    Args:
        values: whether values of the graph may be among them, and not only attributes.
    """

    values: bool = attrs.field(default=False, kw_only=True)

    is_attribute: ClassVar[bool] = True

    def keys(self) -> list[str]:
        """Makes ``**rest`` pass this variable on."""
        return [REST_KEY]

    def __getitem__(self, key: str) -> Rest:
        return self


REST_KEY: Final = "**"
