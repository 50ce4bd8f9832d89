"""The pipelines that compiles run unless told otherwise: constants that anyone can read."""

from __future__ import annotations

from typing import Final

from rewright.passes.manager import Pipeline

TEXTS: Final[dict[tuple[str, int], str]] = {
    ("cpu", 0): "",
    ("cpu", 1): "cse,dce",
    ("cuda", 0): "",
    ("cuda", 1): "cse,dce",
    ("tensorrt", 0): "",
    ("tensorrt", 1): "cse,dce",
}
"""The text of the pipeline for each target and optimization level."""


def default_pipeline(target: str = "cpu", level: int = 1) -> Pipeline:
    """The pipeline for a target, ``cpu``, ``cuda`` or ``tensorrt``, at an optimization level.

    Level 0 does only what programs can't run without; level 1 is the default of compiles.
    """
    return Pipeline.parse(TEXTS[target, level])
