"""Where the pass ``precision`` goes in the pipeline of a compile that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rewright.errors import SettingsError
from rewright.passes.manager import Pipeline
from rewright.passes.precision.precision import Precision

if TYPE_CHECKING:
    from rewright.settings import Settings

_AFTER_IT: Final = ("decompose", "channels-last", "reinplace", "partition")
"""The passes that come after it: those that take ops apart, and those that look at dtypes."""


def with_precision(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """`pipeline` with the pass that `settings` ask for, if they do.

    It comes late, where ops of ours stand for what the table of precisions knows as a whole, and
    before a program is taken apart for an engine.

    Raises:
        SettingsError: the pipeline has such a pass already.
    """
    if settings.precision is None:
        return pipeline
    names = [step.name for step in pipeline.passes()]
    if Precision.name in names:
        raise SettingsError(
            "precision is given, and so is a pipeline with that pass",
            setting="precision",
            hint=f"write {Precision.name}{{to=...}} in the pipeline",
        )
    step = Precision(
        settings.precision, settings.full_precision_ops, settings.full_precision_modules
    )
    following = [name for name in names if name in _AFTER_IT]
    return pipeline.insert_before(following[0], step) if following else pipeline.append(step)
