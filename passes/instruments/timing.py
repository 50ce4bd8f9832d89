"""Where the time went: a tree of passes and groups, with the rules of each, hits and seconds.

    12.30 ms  100%  pipeline
     9.10 ms   74%    repeat
     8.00 ms   65%      fold-constants x3       12 rewrites
     6.20 ms   50%        fold-scale            10 hits
     1.10 ms    9%      dce x3
     3.20 ms   26%    fuse
     2.50 ms        verifyeach

Shares are of what the passes took; the instruments stand below, each on a line of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, TextIO

import attrs

from rewright.passes.instruments.protocol import Instrument, PassRun


@attrs.frozen
class Row:
    """One line of a timing tree.

    Attributes:
        label: a pass, group, rule or instrument.
        depth: how far it is indented.
        seconds: how long it took; None where that is not known.
        share: the part of the whole, without the instruments; None for instruments.
        note: rewrites or hits.
    """

    label: str
    depth: int
    seconds: float
    share: float | None
    note: str = ""

    def __str__(self) -> str:
        share = "" if self.share is None else f"{self.share:.0%}"
        label = "  " * self.depth + self.label
        return f"{self.seconds * 1e3:10.2f} ms {share:>5}  {label:40} {self.note}".rstrip()


def timing_rows(whole: PassRun) -> list[Row]:
    """The timing tree of a pipeline that has run."""
    total = _busy(whole) or 1e-9
    rows = [*_rows([whole], 0, total)]
    rows += [Row(name, 0, seconds, None) for name, seconds in whole.watching.items()]
    return rows


_NOTABLE: Final = 0.01
"""A rule that never fired is shown if it took so much of the whole."""


def _busy(run: PassRun) -> float:
    """The seconds that the passes of a run took, without what instruments did in between."""
    return run.seconds if run.is_pass else sum(_busy(child) for child in run.children)


def _rows(runs: Sequence[PassRun], depth: int, total: float) -> Iterator[Row]:
    """The rows of runs of one step, taken together."""
    first = runs[0]
    seconds = sum(map(_busy, runs))
    times = f" x{len(runs)}" if len(runs) > 1 else ""
    if first.is_pass:
        hits: Counter[str] = Counter()
        spent: Counter[str] = Counter()
        for run in runs:
            hits.update(run.applied.hits)
            for name, took in run.applied.seconds.items():
                spent[name] += took  # type: ignore[assignment]
        note = f"{hits.total()} rewrites" if hits else ""
        yield Row(f"{first.step}{times}", depth, seconds, seconds / total, note)
        shown = [row for row in spent.most_common() if hits[row[0]] or row[1] >= _NOTABLE * total]
        for name, took in shown:
            note = f"{hits[name]} hits" if hits[name] else ""
            yield Row(name, depth + 1, took, took / total, note)
        return
    yield Row(f"{first.name}{times}", depth, seconds, seconds / total)
    steps: dict[int, list[PassRun]] = {}
    for run in runs:
        for child in run.children:
            if not child.skipped:
                steps.setdefault(id(child.step), []).append(child)
    for same in steps.values():
        yield from _rows(same, depth + 1, total)


@attrs.define(eq=False)
class Timing(Instrument):
    """Prints the timing tree at the end.

    Attributes:
        out: where to; standard error by default.
    """

    times_rules: ClassVar[bool] = True

    out: TextIO | None = None

    def after(self, run: PassRun) -> None:
        """Prints the tree when the whole pipeline has run."""
        if run.is_whole:
            lines = [f"timing of @{run.graph.name}", *map(str, timing_rows(run))]
            (self.out or sys.stderr).write("\n".join(lines) + "\n")
