"""The pipelines that compiles run unless told otherwise: constants that anyone can read."""

from __future__ import annotations

from typing import Final

from rewright.passes.manager import Pipeline

_FUSED: Final = "cse,canonicalize,fuse,fold-constants,canonicalize,fold-constants,cse,dce"
_MERGED: Final = (
    "cse,canonicalize,fuse,fold-constants,fuse-projections,canonicalize,fold-constants,cse,dce"
)

TEXTS: Final[dict[tuple[str, int], str]] = {
    ("torch", 0): "",
    ("torch", 1): "cse,dce",
    ("torch", 2): _FUSED,
    ("torch", 3): _MERGED,
    ("tensorrt", 0): "decompose",
    ("tensorrt", 1): f"{_FUSED},decompose,canonicalize,cse,dce",
    ("tensorrt", 2): f"{_FUSED},decompose,canonicalize,cse,dce",
    ("tensorrt", 3): f"{_MERGED},decompose,canonicalize,cse,dce",
}
"""The text of the pipeline, by what runs the program and optimization level.

=====  ==========================================================================================
level  what it does
=====  ==========================================================================================
0      what a program can't run without
1      computes nothing twice, nothing in vain, and nothing of weights before a call: an edit of
       a weight is seen. Engines hold their weights anyway, so with them it is level 2
2      simplifies, fuses, and folds what is constant: batch norms into convolutions, for one. Ahead
       of time, what is folded keeps the weights of the compile; just in time, each set has its own
3      merges projections that share an input, too, which costs a copy of their weights
=====  ==========================================================================================

A program with segments ends in ``partition``, with the settings of the compile.
"""


def default_pipeline(runs: str = "torch", level: int = 1) -> Pipeline:
    """The pipeline for what runs a program, ``torch`` or ``tensorrt``, at an optimization level."""
    return Pipeline.parse(TEXTS[runs, level])
