"""What might stand at the open places of one node: types for operands, values for attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch

from rewright.ir.graph import Value
from rewright.ir.ops import Op, Param
from rewright.ir.sizes import Dim
from rewright.ir.types import TensorType
from rewright.passes.proof.attribute_samples import DTYPES, attribute
from rewright.passes.proof.draw import Computed, Draw, Fit, Reject, broadcasting
from rewright.passes.proof.guards import Guard
from rewright.passes.proof.templates import TEMPLATES, UNCHECKED, Template
from rewright.passes.variables import Attr, Many, Maybe, Scalar, Tensor, Variable

Key: TypeAlias = "tuple[str, int | None]"
"""A place at a node: a parameter, and the number in its list (None: not in a list)."""


@attrs.frozen(eq=False)
class Open:
    """A place that is still to be drawn.

    Attributes:
        key: the place.
        param: the parameter.
        variable: what has to take it; None for an argument that a Rest or an OpVar captures.
        slot: by whose id what is drawn will be known.
    """

    key: Key
    param: Param
    variable: Variable | None
    slot: Any = None


@attrs.frozen
class Proposal:
    """What is proposed for the open places of a node.

    Attributes:
        items: a TensorType, or an attribute (None where an optional operand is left out).
        domains: what the elements of tensors are, as templates say it.
    """

    items: dict[Key, Any]
    domains: dict[Key, str]


def propose(
    op: Op,
    fixed: Mapping[Key, Any],
    opened: Sequence[Open],
    draw: Draw,
    guard: Guard | None,
    given: Mapping[str, Any],
    results: int | None = None,
) -> Proposal:
    """A guess for the `opened` places of a node of `op`.

    Args:
        op: the op.
        fixed: what the other places hold.
        opened: the open places.
        draw: chance.
        guard: the guard to break.
        given: what some variables are, by name.
        results: how many results the node must have, where its op does not say.

    Raises:
        Reject: what is fixed does not fit the op's template, or nothing is known to propose.
    """
    template = draw.choice(TEMPLATES.get(op.name) or [{}])
    guess = _Guess(op, template, draw, guard)
    try:
        for key, item in fixed.items():
            guess.take(key, item)
    except Reject:
        if guard is None or guard.kind != "rank" or op.name in UNCHECKED:
            raise
        guess = _Guess(op, {}, draw, guard)  # a rank that no template has may still be legal
        for key, item in fixed.items():
            guess.take(key, item)
    for param in op.params:
        if not any(key[0] == param.name for key in (*fixed, *(o.key for o in opened))):
            guess.take_default(param)
    attributes = [item for item in opened if not _wants_tensor(item)]
    for item in attributes:
        guess.from_template(item, given)
    for item in opened:
        if item not in attributes:
            guess.tensor(item, given)
    for item in attributes:
        guess.attribute(item, results)
    return Proposal(guess.items, guess.domains)


def _inner(variable: Variable | None) -> Variable | None:
    return variable.inner if isinstance(variable, Maybe | Many) else variable


def _wants_tensor(item: Open) -> bool:
    inner = _inner(item.variable)
    return isinstance(inner, Tensor) if inner is not None else item.param.takes_tensors


class _Guess:
    """One proposal in the making."""

    def __init__(self, op: Op, template: Template, draw: Draw, guard: Guard | None) -> None:
        self.op = op
        self.template = template
        self.draw = draw
        self.guard = guard
        self.fit = Fit(draw)
        self.items: dict[Key, Any] = {}
        self.domains: dict[Key, str] = {}
        self.shapes: dict[Key, tuple[Dim, ...]] = {}

    # -- what is known

    def take(self, key: Key, item: Any) -> None:
        """Learns from what stands at a place."""
        spec = self._spec(key[0])[1]
        if isinstance(item, Value) and isinstance(item.type, TensorType):
            self.shapes[key] = item.type.shape
            if key[0] in self.template:
                self.fit.take(spec, item.type.shape)
        elif key[0] in self.template and item is not None:
            self._take_attribute(spec, item)

    def take_default(self, param: Param) -> None:
        """Learns from an attribute that is left at its default."""
        spec = self._spec(param.name)[1]
        if param.name in self.template and isinstance(param.default, int):
            self._take_attribute(spec, param.default)

    def _take_attribute(self, spec: str, item: Any) -> None:
        if spec.startswith("("):
            self.fit.take(spec[1:-1], item)
        else:
            self.fit.bind(spec, item)

    def _spec(self, param: str) -> tuple[str, str]:
        """The domain and the shape that the template has for `param`."""
        domain, colon, shape = self.template.get(param, "").rpartition(":")
        return (domain.strip(), shape.strip()) if colon else ("", shape)

    # -- what is open

    def from_template(self, item: Open, given: Mapping[str, Any]) -> None:
        """An attribute that is given, or that the template relates to shapes."""
        name = item.variable.name if item.variable is not None else ""
        spec = self._spec(item.param.name)[1]
        if name in given:
            self.items[item.key] = given[name]
        elif spec and not spec.startswith("("):
            self.items[item.key] = self.fit.size(spec)
        elif (
            isinstance(item.variable, Maybe) and _is_optional(item.param) and self.draw.chance(0.3)
        ):
            self.items[item.key] = None
        if spec and self.items.get(item.key) is not None:
            self._take_attribute(spec, self.items[item.key])

    def tensor(self, item: Open, given: Mapping[str, Any]) -> None:
        """The type of an operand, or None where an optional one is left out."""
        name = item.variable.name if item.variable is not None else ""
        optional = item.variable is None or isinstance(item.variable, Maybe)
        if name in given:
            self.items[item.key] = given[name]
            if isinstance(given[name], TensorType):
                self.shapes[item.key] = given[name].shape
            elif isinstance(given[name], Computed):
                self.shapes[item.key] = given[name].type.shape
        elif optional and _is_optional(item.param) and self.draw.chance(0.3):
            self.items[item.key] = None
        else:
            domain, spec = self._spec(item.param.name)
            ranks = self._ranks(item.variable)
            odd = self.draw.chance(0.03) and self.op.name not in UNCHECKED
            fits = item.param.name in self.template and not odd
            if fits and not self._breaks(_inner(item.variable), "rank"):
                shape = self.fit.shape(spec, ranks)
            else:
                shape = broadcasting(self.draw, list(self.shapes.values()), ranks)
            self.shapes[item.key] = shape
            self.items[item.key] = TensorType(self._dtype(item.variable, domain), shape)
            self.domains[item.key] = self._domain(domain)
        if item.key[1] is not None and item.key[1] == 0 and item.param.name in self.template:
            self._keep_for_list(item)

    def _domain(self, domain: str) -> str:
        """`domain` with the number of a size in the place of its letter."""
        if not domain.startswith("i<"):
            return domain
        bound = self.fit.letters.get(domain[2:])
        return f"i<{bound if isinstance(bound, int) else 1}"

    def _keep_for_list(self, item: Open) -> None:
        """Later items of a list are of the shape of its first."""
        if item.key in self.shapes:
            self.fit.take(self._spec(item.param.name)[1], self.shapes[item.key])

    def _ranks(self, variable: Variable | None) -> Sequence[int]:
        inner = _inner(variable)
        ranks = inner.rank if isinstance(inner, Tensor) else ()
        if self._breaks(inner, "rank"):
            return [rank for rank in range(5) if rank not in ranks]
        return ranks

    def _dtype(self, variable: Variable | None, domain: str) -> torch.dtype:
        inner = _inner(variable)
        allowed = inner.dtype if isinstance(inner, Tensor) else ()
        if self._breaks(inner, "dtype"):
            return self.draw.dtype
        if allowed:
            return self.draw.dtype if self.draw.dtype in allowed else self.draw.choice(allowed)
        if domain.startswith("i"):
            return torch.int64
        if domain == "b":
            return torch.bool
        other = self.draw.mixed and self.draw.chance(0.05)
        return self.draw.choice(DTYPES) if other else self.draw.dtype

    def _breaks(self, variable: Variable | None, kind: str) -> bool:
        guard = self.guard
        return guard is not None and guard.pattern is variable and guard.kind == kind

    def attribute(self, item: Open, results: int | None) -> None:
        """Any other attribute."""
        if item.key in self.items:
            return
        spec = self._spec(item.param.name)[1]
        if spec.startswith("("):
            self.items[item.key] = self.fit.shape(spec[1:-1], ())
            return
        first = next(iter(self.shapes.values()), None)
        alias = item.variable.name if item.variable is not None else ""
        drawn = attribute(self.op, item.param, alias, first, self.draw, results)
        if item.key[1] is not None and isinstance(drawn, tuple):
            if not drawn:
                raise Reject(f"{item.param.name} of {self.op.name} is empty")
            drawn = drawn[item.key[1] % len(drawn)]
        self.items[item.key] = self._of_kind(item, drawn)

    def _of_kind(self, item: Open, value: Any) -> Any:
        """`value`, made a number of the kind that a variable asks for (or doesn't)."""
        inner = _inner(item.variable)
        kinds = inner.kind if isinstance(inner, Attr | Scalar) else ()
        if not kinds or not isinstance(value, int | float) or isinstance(value, bool):
            return value
        wanted = [kind for kind in (int, float) if (kind in kinds) != self._breaks(inner, "kind")]
        return wanted[0](value) if wanted else value


def _is_optional(param: Param) -> bool:
    return "Optional" in param.kind or "None" in param.kind
