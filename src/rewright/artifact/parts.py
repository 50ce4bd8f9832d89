"""The parts of a program, and how large each is: for ``report()`` and ``rewright inspect`` alike.

Here each size has its name and meaning, once. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from rewright.store import format_size

PARTS: Final[Mapping[str, str]] = {
    "weights": "parameters and buffers that a call reads as they are",
    "prepared": "tensors made of weights before any call, which it reads in their place",
    "sources": "what prepared tensors are made of and no call reads: for refit()",
    "left_out": "what engines alone read and hold themselves, with fallback='none': in no file",
    "engines": "TensorRT's engines; what several segments share is one",
    "graph": "nodes of the program, and its text",
}
"""The parts, with what each counts.

The bytes of tensors are those of their elements. Memory that several share counts for each of them,
and stands in a file once: a prepared tensor may be a view of its source.
"""

CONSTANTS: Final = ("weights", "prepared", "sources", "left_out")
"""The parts that are tensors."""


@attrs.frozen
class Part:
    """How much there is of a part.

    Attributes:
        count: tensors, engines or nodes.
        bytes: their bytes, together.
    """

    count: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.count:,} ({format_size(self.bytes)})"


def rows(parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """The parts as lines of text, each with a label; what there is none of is left out."""
    tensors = [
        f"{parts[name].count:,} {name.replace('_', ' ')} ({format_size(parts[name].bytes)})"
        for name in CONSTANTS
        if parts[name].count
    ]
    yield "constants", ", ".join(tensors) or "none"
    if parts["engines"].count:
        yield "engines", str(parts["engines"])
    graph = parts["graph"]
    yield "graph", f"{graph.count:,} node{'s' * (graph.count != 1)}, {format_size(graph.bytes)}"


def encode_parts(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The parts as plain data."""
    return {name: attrs.asdict(parts[name]) for name in PARTS}


def decode_parts(made: Mapping[str, Any]) -> dict[str, Part]:
    """What :func:`encode_parts` gave.

    Raises:
        LookupError, TypeError, ValueError: it is not well formed.
    """
    if made.keys() != PARTS.keys():
        raise ValueError("its parts are not those of a program")
    return {name: Part(int(made[name]["count"]), int(made[name]["bytes"])) for name in PARTS}
