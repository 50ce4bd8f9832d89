"""What a caller gets back beyond numbers: eager's strides, and which outputs are aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.frontends.functional import Alias
from rewright.frontends.views import ALIAS, BASE, View, step_attributes
from rewright.ir.graph import ResultSpec, ViewStep
from rewright.ir.stages import is_composite


def result_specs(
    entries: Sequence[Any], strides: Sequence[tuple[Any, ...] | None]
) -> tuple[ResultSpec, ...]:
    """The spec of every output.

    Args:
        entries: the outputs: an :class:`Alias`, or the value of a number.
        strides: eager's strides where they are not contiguous, else None.
    """
    return tuple(
        _spec(entries[:at], entry, strides[at]) if isinstance(entry, Alias) else ResultSpec()
        for at, entry in enumerate(entries)
    )


def _spec(earlier: Sequence[Any], entry: Alias, strides: tuple[Any, ...] | None) -> ResultSpec:
    steps = entry.steps()
    if not all(step.is_plain for step in steps):
        return ResultSpec(strides)  # no chain of views states it: the caller gets a copy
    if entry.storage.origin is not None:
        return ResultSpec(strides, entry.storage.origin, _chain([], steps))
    mates = [
        (number, other.steps())
        for number, other in enumerate(earlier)
        if isinstance(other, Alias) and other.storage is entry.storage
    ]
    if not mates:
        return ResultSpec(strides)
    above = [(n, path) for n, path in mates if _moves(steps)[: len(_moves(path))] == _moves(path)]
    if above:
        number, path = max(above, key=lambda mate: (len(_moves(mate[1])), mate[1] == steps))
        return ResultSpec(strides, number, _chain(path, steps))
    return ResultSpec(strides, shares=mates[0][0])


def _moves(steps: Sequence[View]) -> list[View]:
    """The steps that do more than make a new tensor of the same elements."""
    return [step for step in steps if not step.is_rename]


def _chain(path: Sequence[View], steps: Sequence[View]) -> tuple[ViewStep, ...]:
    """The views from the tensor that `path` leads to on to the one that `steps` lead to.

    None where they are one tensor to eager. Two that look at the same elements are told apart by
    ``alias``, unless a view among them, which is never its own operand, does so.
    """
    rest = _moves(steps)[len(_moves(path)) :]
    renewed = len(steps) > len(path) + len(rest) or (not rest and steps != path)
    if renewed and all(step.op is not None and is_composite(step.op) for step in rest):
        rest.insert(0, View(ALIAS, {"self": BASE}, ()))
    return tuple(
        ViewStep(view.op, step_attributes(view), view.pick) for view in rest if view.op is not None
    )
