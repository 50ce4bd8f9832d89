"""On a failure, writes what is needed to see it again: the graph, its inputs, and one command."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from rewright.errors import PassError, RewrightError
from rewright.ir.files import dump_graph
from rewright.ir.graph import Graph
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.instruments.samples import Samples, save_samples
from rewright.passes.manager import Pass
from rewright.passes.rule import REFOLD, Exactness


@attrs.define(eq=False)
class Reproducer(Instrument):
    """Keeps the graph from before each pass, and writes it where the pass fails.

    Attributes:
        folder: where to; by default a new folder for temporary files.
        flags: further arguments that the replaying command needs, ``--verify-each``.
        samples: the inputs that the graph was run on, if it was.
    """

    folder: Path | None = None
    flags: Sequence[str] = ()
    samples: Samples | None = None
    _before: Graph | None = attrs.field(default=None, init=False)
    _state: Any = attrs.field(default=None, init=False)

    def before(self, run: PassRun) -> None:
        """Keeps the graph."""
        if not run.is_pass:
            return
        state = (run.graph, run.graph.version, run.graph.stage)
        if self._state != state:
            self._before, self._state = run.graph.copy(), state

    def after_failed(self, run: PassRun, error: PassError) -> None:
        """Writes the graph, and adds the command to `error`."""
        if not run.is_pass:
            return
        assert self._before is not None
        assert isinstance(run.step, Pass)
        folder = self.folder or Path(tempfile.mkdtemp(prefix="rewright-"))
        path = _unused(folder, f"{run.number:03}-{run.name}.failed")
        _dump(self._before, path)
        if self.samples is not None:
            save_samples(self.samples, path.with_name(f"{path.stem}.samples.safetensors"))
        error.replay = shlex.join(self.command(path, run.step, run.exactness))
        lines = [error.replay, "", f"pipeline: {run.whole.step}", "", str(error)]
        path.with_name(f"{path.stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def command(self, path: Path, step: Pass, exactness: Exactness) -> list[str]:
        """The command that runs one pass on the graph in `path`."""
        words = ["rewright", "opt", str(path), "--passes", str(step)]
        plugin = plugin_of(type(step))
        if plugin is not None:
            words += ["--load", plugin]
        if exactness is not REFOLD:
            words += ["--exactness", exactness.name.lower().replace("_", "-")]
        return [*words, *self.flags]


def plugin_of(cls: type[Pass]) -> str | None:
    """The file to load before pipelines know a pass; None where it is known anyway."""
    from rewright.passes.registry import is_installed

    if is_installed(cls):
        return None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return str(Path(file).resolve()) if file else None


def _unused(folder: Path, stem: str) -> Path:
    """``stem.ir`` in `folder`, or the first of ``stem-2.ir`` ... that is not there yet."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, sys.maxsize))
    return next(path for name in names if not (path := folder / f"{name}.ir").exists())


def _dump(graph: Graph, path: Path) -> None:
    try:
        dump_graph(graph, path)
    except RewrightError:  # sources that can't be stored: then without their data
        dump_graph(graph, path, weights=False)
