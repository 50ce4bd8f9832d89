"""A table of tiny models: what the tests, the documentation and the benchmarks run on.

Weights are random and seeded, nothing is downloaded; a library loads when an entry is built.
`python -m tests.zoo` exports every entry and compares it with eager.
"""

from __future__ import annotations

from torch.export import ExportedProgram

from . import audio, diffusion, text, vision
from .entry import Arg, Axis, Entry, Tolerance, randomize

__all__ = ["ENTRIES", "QUICK", "Arg", "Axis", "Entry", "Tolerance", "export", "randomize"]

ALL = text.ENTRIES + vision.ENTRIES + audio.ENTRIES + diffusion.ENTRIES
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in ALL}
QUICK: dict[str, Entry] = {entry.name: entry for entry in ALL if entry.quick}


def export(entry: Entry, dynamic: bool = False) -> ExportedProgram:
    """Export an entry's model, not strictly; with `dynamic`, every axis may vary."""
    return entry.export(dynamic)
