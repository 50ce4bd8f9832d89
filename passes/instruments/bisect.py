"""Stops after so many passes, and so many rewrites in the last of them.

A limit is written ``12`` (twelve passes), ``12.5`` (twelve passes, but only the first five rewrites
of the twelfth) or ``all``. Passes and rewrites are counted over all compiles of a process, so that
one limit says where in a whole program run to stop; passes that can't be skipped run anyway.
``rewright bisect COMMAND`` finds the limit at which a command begins to fail, by itself.
"""

from __future__ import annotations

import json
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import attrs

from rewright.errors import SettingsError
from rewright.ir.printer import print_node
from rewright.passes.handles import name_of
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.matcher import Match
from rewright.passes.rewriting import Rewrite
from rewright.passes.rule import Rule

VARIABLE: Final = "REWRIGHT_BISECT"
"""The environment variable with ``LIMIT`` or ``LIMIT:FILE``; FILE gets a report."""


@attrs.frozen
class Limit:
    """How far to go.

    Attributes:
        passes: so many passes run; None for all.
        rewrites: so many rewrites happen in the last of them; None for all.
    """

    passes: int | None = None
    rewrites: int | None = None

    def __str__(self) -> str:
        if self.passes is None:
            return "all"
        return f"{self.passes}" if self.rewrites is None else f"{self.passes}.{self.rewrites}"

    @classmethod
    def parse(cls, text: str, *, source: str = "bisect_limit") -> Limit:
        """The limit that prints as `text`.

        Raises:
            SettingsError: `text` is no limit; `source` says where it stands.
        """
        if text == "all":
            return cls()
        found = re.fullmatch(r"(\d+)(?:\.(\d+))?", text)
        if found is None:
            raise SettingsError(
                f"{text!r} is no limit for bisecting",
                setting=source,
                hint="write 12 (passes), 12.5 (passes, and rewrites of the last) or all",
            )
        return cls(int(found[1]), None if found[2] is None else int(found[2]))


class Bisect(Instrument):
    """Lets passes run and rewrites happen up to a limit, and reports what it let through.

    Args:
        limit: how far to go.
        report: a file that gets a line of JSON for each pass and each rewrite.
    """

    def __init__(self, limit: Limit, report: Path | None = None) -> None:
        self.limit = limit
        self.report = report
        self.passes = 0
        self.rewrites = 0
        self._text = ""
        self._lock = threading.Lock()

    def should_run(self, run: PassRun) -> bool:
        """Whether fewer passes ran so far than the limit says."""
        with self._lock:
            self.passes += 1
            self.rewrites = 0
        wanted = self.limit.passes is None or self.passes <= self.limit.passes
        if wanted:
            self._write(name=run.name, step=str(run.step), graph=run.graph.name)
        return wanted

    def should_rewrite(self, run: PassRun, rule: type[Rule], match: Match) -> bool:
        """Whether fewer rewrites happened in the last pass than the limit says."""
        limit = self.limit.rewrites
        if self.passes != self.limit.passes or limit is None:
            return True
        if self.rewrites == limit - 1:
            root = match.roots[0]
            self._text = print_node(root.producer) if root.producer else name_of(root)
        return self.rewrites < limit

    def on_rewrite(self, run: PassRun, done: Rewrite) -> None:
        """Counts it."""
        with self._lock:
            self.rewrites += 1
        self._write(
            rewrite=self.rewrites,
            rule=done.rule.name,
            declared=done.rule.location,
            node=self._text or f"%{done.old[0].hint or done.old[0].index}",
            where=str(done.root.loc or ""),
        )

    def _write(self, **entry: Any) -> None:
        if self.report is not None:
            line = json.dumps({"pass": self.passes, **entry})
            with self.report.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


@lru_cache(maxsize=1)
def from_environment(text: str) -> Bisect:
    """The one instrument of this process that ``REWRIGHT_BISECT=text`` asks for.

    Raises:
        SettingsError: `text` is no limit.
    """
    limit, _, report = text.partition(":")
    return Bisect(Limit.parse(limit, source=VARIABLE), Path(report) if report else None)
