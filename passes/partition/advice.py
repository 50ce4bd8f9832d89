"""What to change so that a node that stays in torch gets into a segment, by the reason it has.

The first row that fits the reason says it; the names in braces are what the pattern found.
"""

from __future__ import annotations

import re
from typing import Final

ADVICE: Final[tuple[tuple[str, str], ...]] = (
    (r"^[\w.]*_assert\w*(\.\w+)?: ", ""),  # goes with what it checks
    (
        r"(?P<setting>torch_executed_\w+) has (?P<what>'.*')",
        "take {what} out of {setting}",
    ),
    (
        r"its segment would compute 0 nodes",
        "nothing to gain: it computes nothing, and goes into a segment with what uses it",
    ),
    (
        r"its segment would compute (?P<count>\d+) nodes?, and min_block_size is",
        "set min_block_size to {count}, or get its neighbors into the segment",
    ),
    (
        r"the size (?P<size>\w+) has no maximum",
        "give {size} a maximum: mark_dynamic(min=, max=), Dim(max=) or Input(max=)",
    ),
    (
        r"the size (?P<size>\w+) depends on values|its size depends on values|"
        r"it tells a size that only a run can know",
        "compute with a mask of a fixed size instead of picking by values",
    ),
    (
        r"draws random numbers|random numbers are not torch's",
        "draw the numbers outside of the model, or call model.eval() where this is a dropout",
    ),
    (
        r"it is cast where the program (begins|ends)",
        "nothing to gain, it is no part of the computation; float32 there needs no cast",
    ),
    (r"engines have no f64, and it is part of what", "compute with float32 there"),
    (r"truncate_double=True allows it", "set truncate_double=True, or cast to float32"),
    (r"has no c(32|64|128)\b|complex numbers", "compute with real and imaginary parts"),
    (
        r"has no (?P<dtype>f64|i8|u8|i16|u16|u32|u64)\b",
        "cast to a dtype that TensorRT has: float32 for f64, int32 for small integers",
    ),
    (r"it needs: (?P<need>.*)", "give it {need}"),
    (
        r"(?P<name>\w+) is (?P<found>\w+), and may be (?P<allowed>[\w, ]+)$",
        "cast {name} to one of these",
    ),
    (
        r"(?P<name>\w+) must be a constant",
        "make {name} a parameter or a buffer of the model",
    ),
    (
        r"(?P<name>\w+) is static|(?P<other>\w+) varies from call to call",
        "export with this size fixed: leave it out of dynamic_shapes",
    ),
    (
        r"has (?P<rank>\d+) dimensions, and may have|takes \d+ dimensions, not",
        "reshape before and after, so that it has as many dimensions as that",
    ),
    (
        r"(?P<library>\S+ [\d.]+) has no (?P<feature>\w+)",
        "use a newer version than {library}",
    ),
    (
        r"(?P<op>[\w.]+) has no converter to TensorRT",
        "declare a converter for {op} with @converts, or a rule that rewrites it "
        "(docs/WRITING_A_PASS.md)",
    ),
    (r"it works on (?P<device>\S+)", "move it to the program's device"),
    (r"computes a gradient", "compile the forward pass alone"),
)
"""Patterns of ``op: reason``, and what to do."""

_ROWS: Final = tuple((re.compile(pattern), text) for pattern, text in ADVICE)


def advice_on(op: str, reason: str) -> str:
    """What would get a node of `op` into a segment; empty where nothing is known.

    Args:
        op: its name.
        reason: why it stays.
    """
    for pattern, text in _ROWS:
        found = pattern.search(f"{op}: {reason}")
        if found is not None:
            return text.format(**found.groupdict())
    return ""
