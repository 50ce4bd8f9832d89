"""What a caller gets back beyond numbers: eager's strides, and which outputs are aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.frontends.functional import Alias, View, step_attributes
from rewright.ir.graph import ResultSpec, ViewStep


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
        return ResultSpec(strides, entry.storage.origin, _chain(steps))
    mates = [
        (number, other.steps())
        for number, other in enumerate(earlier)
        if isinstance(other, Alias) and other.storage is entry.storage
    ]
    if not mates:
        return ResultSpec(strides)
    above = [(n, path) for n, path in mates if steps[: len(path)] == path]
    if above:
        number, path = max(above, key=lambda mate: len(mate[1]))
        return ResultSpec(strides, number, _chain(steps[len(path) :]))
    return ResultSpec(strides, shares=mates[0][0])


def _chain(steps: Sequence[View]) -> tuple[ViewStep, ...]:
    return tuple(
        ViewStep(view.op, step_attributes(view), view.pick) for view in steps if view.op is not None
    )
