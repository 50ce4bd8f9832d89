"""Shows the graph around passes: on standard error, or as a folder of numbered files.

What to show is written ``WHAT`` or ``WHAT:DIR``:

=================  ==========================================================================
``all``            every pass
``changed``        the passes that changed something
``cse,fuse``       the passes of these names
=================  ==========================================================================

A folder has, for each pass shown, ``NNN-pass.before.ir``, ``NNN-pass.after.ir`` and, if they
differ, ``NNN-pass.diff``; ``weights.safetensors`` with the data of sources (up to 1 GiB) and
``samples.safetensors`` with the inputs, so that any of the files can be given to ``rewright opt``;
and ``manifest.json``, which says what every pass did. Further graphs of the same process get
folders of their own in it, ``graph-2`` and so on.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import attrs

from rewright.errors import PassError, RewrightError, SettingsError, did_you_mean
from rewright.ir.files import SHARED_WEIGHTS, dump_weights
from rewright.ir.graph import Graph, Value
from rewright.ir.printer import print_graph, value_names
from rewright.passes.handles import name_of
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.instruments.samples import SHARED_SAMPLES, Samples, save_samples
from rewright.passes.manager import Pipeline
from rewright.passes.rewriting import Rewrite

FORMAT: Final = 1
"""The version of the manifest."""

MANIFEST: Final = "manifest.json"

_MOST_BYTES: Final = 2**30
"""Sources of more bytes are not written."""

_PROCESS: Final = uuid.uuid4().hex
"""Tells the folders that this process wrote from older ones, which are overwritten."""


@attrs.frozen
class DumpSpec:
    """What to dump, and where to.

    Attributes:
        what: ``all``, ``changed``, or names of passes.
        folder: None for standard error.
    """

    what: str | tuple[str, ...]
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str, *, source: str = "dump_ir") -> DumpSpec:
        """What ``WHAT`` or ``WHAT:DIR`` means.

        Raises:
            SettingsError: it means nothing; `source` says where it stands.
        """
        what, _, folder = text.partition(":")
        names = tuple(name.strip() for name in what.split(","))
        if not all(names) or any("/" in name for name in names):
            raise SettingsError(
                f"{text!r} does not say what to dump",
                setting=source,
                hint="write all:DIR, changed:DIR or the names of passes, cse,fuse:DIR",
            )
        place = Path(folder).expanduser() if folder else None
        return cls(what if what in ("all", "changed") else names, place)

    def wants(self, run: PassRun) -> bool:
        """Whether a pass that has run is to be shown."""
        if isinstance(self.what, str):
            return self.what == "all" or run.changed or run.failure is not None
        return run.name in self.what

    def check(self, known: Mapping[str, Any]) -> None:
        """Refuses names of passes that there are not.

        Raises:
            SettingsError: naming the nearest known one.
        """
        names = () if isinstance(self.what, str) else self.what
        for name in names:
            if name not in known:
                raise SettingsError(
                    f"there is no pass {name!r} to dump",
                    setting="dump_ir",
                    hint=did_you_mean(name, [*known, "all", "changed"]),
                )


@attrs.define(eq=False)
class Dump(Instrument):
    """Shows the graph around passes.

    Attributes:
        spec: what to show, and where.
        samples: the inputs that the graph is run on, if they are known.
        out: what stands in for standard error.
    """

    spec: DumpSpec
    samples: Samples | None = None
    out: TextIO | None = None
    _writer: _Folder | None = attrs.field(default=None, init=False)
    _before: str = attrs.field(default="", init=False)
    _texts: tuple[Any, str] = attrs.field(default=(None, ""), init=False)
    _rewrites: list[Rewrite] = attrs.field(factory=list, init=False)

    def before(self, run: PassRun) -> None:
        """Notes the text of the graph; for a whole pipeline, opens the folder."""
        if run.is_whole:
            self._open(run)
        if run.is_pass:
            self._before = self._text(run.graph)
            self._rewrites.clear()

    def on_rewrite(self, run: PassRun, done: Rewrite) -> None:
        """Notes it."""
        self._rewrites.append(done)

    def after(self, run: PassRun) -> None:
        """Shows what a pass did."""
        if run.is_pass:
            self._show(run)
        elif run.is_whole and self._writer is not None:
            self._writer.finish(run)

    def after_failed(self, run: PassRun, error: PassError) -> None:
        """Shows what a pass left."""
        self.after(run)

    def _open(self, run: PassRun) -> None:
        from rewright.passes.registry import all_passes

        assert isinstance(run.step, Pipeline)
        self.spec.check({**all_passes(), **{step.name: step for step in run.step.passes()}})
        if self.spec.folder is None:
            self._print(f"@{run.graph.name} before {run.step}", self._text(run.graph))
            return
        try:
            self._writer = _Folder(_free(self.spec.folder), run)
            self._writer.open(run.graph, self.samples)
        except OSError as error:
            raise SettingsError(
                f"the folder {self.spec.folder} can't be written: {error}",
                setting="dump_ir",
                hint="name another one: dump_ir='changed:DIR'",
            ) from error

    def _show(self, run: PassRun) -> None:
        wanted = self.spec.wants(run)
        after = self._text(run.graph) if run.changed else self._before
        if self._writer is not None:
            texts = (self._before, after) if wanted else None
            self._writer.add(run, texts, _describe(run.graph, self._rewrites))
        elif wanted:
            what = "failed" if run.failure else "changed" if run.changed else "unchanged"
            self._print(f"@{run.graph.name} after {run.number:03} {run.step}: {what}", after)

    def _text(self, graph: Graph) -> str:
        state = (graph, graph.version, graph.stage)
        if self._texts[0] != state:
            self._texts = (state, print_graph(graph))
        return self._texts[1]

    def _print(self, title: str, text: str) -> None:
        (self.out or sys.stderr).write(f"# ----- {title}\n{text}\n")


def _describe(graph: Graph, rewrites: list[Rewrite]) -> list[dict[str, Any]]:
    """The rewrites of a pass, with the names that their values have after it."""
    names = graph.analysis(value_names) if rewrites else {}

    def name(value: Value) -> str:
        return names.get(value) or name_of(value)

    return [
        {
            "rule": done.rule.name,
            "replaced": done.root.op.name,
            "by": [name(value) for value in done.new],
            "where": str(done.loc),
        }
        for done in rewrites
    ]


# --------------------------------------------------------------------------- folders


class _Folder:
    """A folder with the dump of one run of one pipeline."""

    def __init__(self, path: Path, run: PassRun) -> None:
        self.path = path
        self.files: list[str] = []
        self.manifest: dict[str, Any] = {
            "format": FORMAT,
            "process": _PROCESS,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "graph": run.graph.name,
            "pipeline": str(run.step),
            "exactness": run.exactness.name,
            "nodes": sum(1 for _ in run.graph.walk()),
            "weights": None,
            "samples": None,
            "seconds": None,
            "instruments": {},
            "reports": {},
            "passes": [],
            "files": self.files,
        }

    def open(self, graph: Graph, samples: Samples | None) -> None:
        """Makes the folder, empties it of an older dump, and writes what all graphs share."""
        self.path.mkdir(parents=True, exist_ok=True)
        _empty(self.path)
        if _bytes_of(graph) <= _MOST_BYTES:
            try:
                dump_weights(graph, self.path / SHARED_WEIGHTS)
                self.manifest["weights"] = self._file(SHARED_WEIGHTS)
            except RewrightError as error:
                self.manifest["weights_left_out"] = str(error)
        else:
            self.manifest["weights_left_out"] = f"more than {_MOST_BYTES} bytes"
        if samples is not None:
            save_samples(samples, self.path / SHARED_SAMPLES)
            self.manifest["samples"] = self._file(SHARED_SAMPLES)
        self._save()

    def add(
        self, run: PassRun, texts: tuple[str, str] | None, rewrites: list[dict[str, Any]]
    ) -> None:
        """Adds a pass; `texts` is the graph before and after, where files are wanted."""
        entry: dict[str, Any] = {
            "number": run.number,
            "name": run.name,
            "step": str(run.step),
            "groups": _groups(run),
            "changed": run.changed,
            "failure": None if run.failure is None else str(run.failure),
            "seconds": run.seconds,
            "nodes": sum(1 for _ in run.graph.walk()),
            "rules": dict(run.applied.hits),
            "rewrites": rewrites,
            "files": {} if texts is None else self._write(run, *texts),
        }
        self.manifest["passes"].append(entry)
        self._save()

    def finish(self, run: PassRun) -> None:
        """Adds what is known at the end."""
        self.manifest["seconds"] = sum(child.seconds for child in run.passes())
        self.manifest["instruments"] = dict(run.watching)
        reports = {name: made for name, made in run.reports.items() if hasattr(made, "to_json")}
        self.manifest["reports"] = {name: made.to_json() for name, made in reports.items()}
        self._save()

    def _write(self, run: PassRun, before: str, after: str) -> dict[str, str]:
        stem = f"{run.number:03}-{run.name}"
        texts = {"before": f"{stem}.before.ir", "after": f"{stem}.after.ir"}
        (self.path / self._file(texts["before"])).write_text(f"{before}\n", encoding="utf-8")
        (self.path / self._file(texts["after"])).write_text(f"{after}\n", encoding="utf-8")
        if before != after:
            lines = difflib.unified_diff(
                before.splitlines(keepends=True),
                after.splitlines(keepends=True),
                texts["before"],
                texts["after"],
            )
            texts["diff"] = f"{stem}.diff"
            diff = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
            (self.path / self._file(texts["diff"])).write_text(diff, encoding="utf-8")
        return texts

    def _file(self, name: str) -> str:
        self.files.append(name)
        return name

    def _save(self) -> None:
        """Writes the manifest, all or nothing."""
        partial = self.path / f".{MANIFEST}"
        partial.write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path / MANIFEST)


def _groups(run: PassRun) -> list[str]:
    """The groups that a pass is in, the outermost first, without the pipeline."""
    groups: list[str] = []
    parent = run.parent
    while parent is not None and not parent.is_whole:
        groups.insert(0, str(parent.step))
        parent = parent.parent
    return groups


def _free(folder: Path) -> Path:
    """`folder`, or the first one in it that this process has not written."""
    path, number = folder, 1
    while _manifest(path).get("process") == _PROCESS:
        number += 1
        path = folder / f"graph-{number}"
    return path


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _empty(folder: Path) -> None:
    """Removes the files that an older dump wrote, and no others."""
    for further in folder.glob("graph-*"):
        if _manifest(further):
            _empty(further)
            if not any(further.iterdir()):
                further.rmdir()
    for name in _manifest(folder).get("files", ()):
        if isinstance(name, str) and name == os.path.basename(name):
            (folder / name).unlink(missing_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)


def _bytes_of(graph: Graph) -> int:
    sources = (constant.data for constant in graph.constants.values() if constant.is_source)
    return sum(data.nbytes for data in sources if data is not None)
