"""The pipelines that compiles run unless told otherwise: constants that anyone can read."""

from __future__ import annotations

from typing import Final

from rewright.passes.manager import Pipeline

DEFAULT_LEVEL: Final = 2
"""The optimization level of a compile that is not told one."""

_TIDY: Final = "cancel-transpositions,canonicalize,fold-constants,cse,dce"
_FUSED: Final = f"cse,canonicalize,fuse,fold-constants,{_TIDY}"
_ALL: Final = "repeat(fuse-projections,fold-constants)"
"""Threes and twos, until every input has one: 32 products of a text in a U-Net's layers, say."""
_MERGED: Final = f"cse,canonicalize,fuse,fold-constants,{_ALL},{_TIDY}"

_DOUBLES: Final = "fold-constants{doubles=True}"
"""Engines have no f64: frequencies and the like, made from no weight, are prepared."""

TEXTS: Final[dict[tuple[str, int], str]] = {
    ("torch", 0): "",
    ("torch", 1): "cse,dce,reinplace",
    ("torch", 2): f"{_FUSED},fuse-conv-relu,channels-last,reinplace",
    ("torch", 3): f"{_MERGED},fuse-conv-relu,channels-last,reinplace",
    ("tensorrt", 0): "decompose",
    ("tensorrt", 1): f"{_FUSED},{_DOUBLES},decompose,canonicalize,cse,dce,reinplace",
    ("tensorrt", 2): f"{_FUSED},{_DOUBLES},decompose,canonicalize,cse,dce,reinplace",
    ("tensorrt", 3): f"{_MERGED},{_DOUBLES},decompose,canonicalize,cse,dce,reinplace",
}
"""The text of the pipeline, by what runs the program and optimization level.

=====  ==========================================================================================
level  what it does
=====  ==========================================================================================
0      what a program can't run without
1      computes nothing twice, nothing in vain, and nothing of weights before a call: an edit of
       a weight is seen. Engines hold their weights anyway, so with them it is level 2
2      the default: simplifies, fuses, and folds what is constant, batch norms into convolutions,
       for one. Just in time, each set of weights has its own constants, and an edit makes new
       ones; ahead of time, they hold until ``refit()``
3      merges projections that share an input, too, which costs a copy of their weights
=====  ==========================================================================================

A program with segments ends in ``partition``, with the settings of the compile. The setting
`precision` puts that pass before what it must precede: ``decompose``, ``channels-last``. Inductor
chooses memory orders itself, so that the latter lays out for it only what comes from outside;
``reinplace`` is left out, whose word only generated code takes. It is moved to the end, after
``partition`` and passes of yours.
"""


def default_pipeline(runs: str = "torch", level: int = DEFAULT_LEVEL) -> Pipeline:
    """The pipeline for what runs a program, ``torch`` or ``tensorrt``, at an optimization level."""
    return Pipeline.parse(TEXTS[runs, level])
