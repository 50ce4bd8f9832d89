"""Loops and conditionals: constructs of many layers, each of them one step of a plan.

A loop's layers are known by its boundary layers alone (recurrences, iterators, trip limits,
outputs). Its body is what its outputs and next states need and what depends on a recurrence or an
iterator; everything else they need is the same at each iteration, and is computed once before.

Of a conditional, what its outputs need is computed when the branch is taken, and only then.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch

from rewright.errors import EngineError
from rewright.testing.layer import Layer, static_shape
from rewright.testing.plan import Plan, Producers, Scope, Step, order

__all__ = ["Construct", "conditional_step", "loop_step", "owner_of"]

Tensor: TypeAlias = torch.Tensor


@attrs.define
class Construct:
    """The boundary layers of one loop or conditional, by LayerType, in the network's order."""

    layers: dict[str, list[Layer]] = attrs.Factory(dict)

    def of(self, kind: str) -> list[Layer]:
        """Its boundary layers of a type."""
        return self.layers.get(kind, [])


def _input(layer: Layer, index: int) -> str:
    tensor = layer.native.get_input(index)
    if tensor is None:
        raise EngineError(f"it has no input {index}", where=layer.where)
    name: str = tensor.name
    return name


def _output(layer: Layer) -> str:
    name: str = layer.native.get_output(0).name
    return name


# ---------------------------------------------------------------- loops


@attrs.frozen
class _Limits:
    """When a loop ends: the tensor that counts its iterations, and the one that lets it go on."""

    count: str | None
    condition: str | None

    @classmethod
    def of(cls, loop: Construct) -> "_Limits":
        named = {layer.option("kind"): _input(layer, 0) for layer in loop.of("TRIP_LIMIT")}
        return cls(named.get("COUNT"), named.get("WHILE"))


def loop_step(producers: Producers, loop: Construct) -> Step:
    """The step that runs a whole loop and makes its outputs."""
    outputs = loop.of("LOOP_OUTPUT")
    where = outputs[0].where
    limits = _Limits.of(loop)
    if limits.count is None and limits.condition is None:
        raise EngineError("the loop has no trip limit", where=where)
    states = {_output(layer): _input(layer, 1) for layer in loop.of("RECURRENCE")}
    iterators = loop.of("ITERATOR")
    collected = [layer for layer in outputs if layer.option("kind") != "LAST_VALUE"]
    for layer in set(outputs) - set(collected):
        if _input(layer, 0) not in states:
            raise layer.fault("LAST_VALUE of a tensor that is not a recurrence's output")
    varying = {*states, *map(_output, iterators)}
    targets = [*dict.fromkeys([*states.values(), *(_input(layer, 0) for layer in collected)])]
    tests = [] if limits.condition is None else [limits.condition]

    body = order(producers, [*tests, *targets], varying)
    for step in body:
        if varying.intersection(step.uses()):
            varying.update(step.makes)
    inside = [step for step in body if varying.issuperset(step.makes)]
    outside = {name for step in inside for name in step.uses()} | {*targets, *tests}
    outside -= varying
    direct = [
        *(_input(layer, 0) for layer in (*loop.of("RECURRENCE"), *iterators)),
        *(_input(layer, 1) for layer in collected),
        *([] if limits.count is None else [limits.count]),
    ]
    # What is only ever read inside a branch stays lazy.
    eager = {name for step in inside for name in step.reads} | {*targets, *tests}
    known = outside | {_output(layer) for layer in (*loop.of("RECURRENCE"), *iterators)}
    return Step(
        reads=tuple(dict.fromkeys([*direct, *sorted(outside & eager)])),
        may_read=frozenset(outside),
        makes=tuple(map(_output, outputs)),
        run=_LoopRun(
            loop, limits, states, Plan(producers, tests, known), Plan(producers, targets, known)
        ),
        where=where,
    )


@attrs.frozen
class _LoopRun:
    """What a loop's step calls.

    Args:
        states: output of each recurrence -> its value at the next iteration.
        test: the plan of the WHILE limit's condition.
        body: the plan of one iteration.
    """

    loop: Construct
    limits: _Limits
    states: Mapping[str, str]
    test: Plan
    body: Plan

    def __call__(self, scope: Scope) -> list[Tensor]:
        count = None if self.limits.count is None else max(int(scope[self.limits.count]), 0)
        state = {_output(layer): scope[_input(layer, 0)] for layer in self.loop.of("RECURRENCE")}
        outputs = self.loop.of("LOOP_OUTPUT")
        rows: dict[str, list[Tensor]] = {_output(layer): [] for layer in outputs}
        for trip in itertools.count() if count is None else range(count):
            values = state | self._iterated(scope, trip, count)
            if self.limits.condition is not None:
                (goes_on,) = self.test.run(Scope(dict(values), scope))
                if not bool(goes_on):
                    break
            made = Scope(dict(values), scope)
            self.body.run(made)
            for layer in outputs:
                if layer.option("kind") != "LAST_VALUE":
                    rows[_output(layer)].append(made[_input(layer, 0)])
            state = {name: self._next(name, state[name], made) for name in state}
        return [self._result(layer, scope, state, rows[_output(layer)]) for layer in outputs]

    def _next(self, name: str, value: Tensor, made: Scope) -> Tensor:
        following = made[self.states[name]]
        if following.shape != value.shape or following.dtype != value.dtype:
            raise EngineError(
                f"recurrence {name!r} goes from {value.dtype}{list(value.shape)} to "
                f"{following.dtype}{list(following.shape)}",
                hint="a recurrence keeps its type: cast, or pad, what it gets",
            )
        return following

    def _iterated(self, scope: Scope, trip: int, count: int | None) -> dict[str, Tensor]:
        out = {}
        for layer in self.loop.of("ITERATOR"):
            source, axis = scope[_input(layer, 0)], layer.native.axis
            place = trip
            if layer.native.reverse:
                if count is None:
                    raise layer.fault("a reverse iterator needs a trip limit of kind COUNT")
                place = count - 1 - trip
            if not 0 <= place < source.shape[axis]:
                raise layer.fault(
                    f"iteration {trip} reads index {place} of axis {axis}, of size "
                    f"{source.shape[axis]}"
                )
            out[_output(layer)] = source.select(axis, place)
        return out

    def _result(
        self, layer: Layer, scope: Scope, state: Mapping[str, Tensor], rows: Sequence[Tensor]
    ) -> Tensor:
        kind = layer.option("kind")
        if kind == "LAST_VALUE":
            # The value when the loop ends, so the one that the last iteration gave it.
            return state[_input(layer, 0)]
        if kind not in ("CONCATENATE", "REVERSE"):
            raise layer.refuse(f"loop output {kind} is not known here")
        length = int(scope[_input(layer, 1)])
        if len(rows) > length:
            raise layer.fault(f"{len(rows)} iterations, but the output has place for {length}")
        if rows:
            row_shape = tuple(rows[0].shape)
        else:
            row_shape = static_shape(layer.native.get_input(0), layer.where)
            if -1 in row_shape:
                raise layer.refuse("no iteration gave the sizes of its output")
        ordered = list(rows if kind == "CONCATENATE" else reversed(rows))
        missing = _arbitrary((length - len(rows), *row_shape), layer.output_dtype())
        table = torch.cat([torch.stack(ordered), missing]) if ordered else missing
        return table.movedim(0, layer.native.axis)


def _arbitrary(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """For what TensorRT leaves undefined: values that show when someone relies on them."""
    if dtype == torch.bool:
        return torch.ones(tuple(shape), dtype=dtype)
    value = torch.nan if dtype.is_floating_point else torch.iinfo(dtype).min
    return torch.full(tuple(shape), value, dtype=dtype)


# ---------------------------------------------------------------- conditionals


def conditional_step(producers: Producers, conditional: Construct) -> Step:
    """The step that computes the outputs of a conditional, by one of its branches."""
    outputs = conditional.of("CONDITIONAL_OUTPUT")
    where = outputs[0].where
    conditions = conditional.of("CONDITION")
    if not conditions:
        raise EngineError("the conditional has no condition", where=where)
    condition = _input(conditions[0], 0)
    branches = {
        taken: [_input(layer, index) for layer in outputs]
        for taken, index in ((True, 0), (False, 1))
    }
    entries = {_output(layer): _input(layer, 0) for layer in conditional.of("CONDITIONAL_INPUT")}
    wanted = [*branches[True], *branches[False]]
    used = set(wanted)
    for step in order(producers, wanted, entries.keys()):
        used.update(step.uses())

    def run(scope: Scope) -> list[Tensor]:
        names = branches[bool(scope[condition])]
        inner = Scope({}, scope)
        return Plan(producers, names, scope).run(inner)

    reads = dict.fromkeys([condition, *(entries[name] for name in entries if name in used)])
    return Step(
        reads=tuple(reads),
        may_read=frozenset(used),
        makes=tuple(map(_output, outputs)),
        run=run,
        where=where,
    )


#: The attribute of a boundary layer that says which construct it bounds.
_OWNER: Mapping[str, str] = {
    "TRIP_LIMIT": "loop",
    "RECURRENCE": "loop",
    "ITERATOR": "loop",
    "LOOP_OUTPUT": "loop",
    "CONDITION": "conditional",
    "CONDITIONAL_INPUT": "conditional",
    "CONDITIONAL_OUTPUT": "conditional",
}


def owner_of(layer: Layer) -> Any:
    """The ``ILoop`` or ``IIfConditional`` that a boundary layer belongs to; None for the others."""
    attribute = _OWNER.get(layer.kind)
    return None if attribute is None else getattr(layer.native, attribute)
