"""What the viewer's page shows, as plain data: from a dump, a graph's text, or a saved program.

A dump holds the text of the graph around each pass, so the same lines many times. In the page each
line is kept once: ``code`` and ``places`` hold the distinct lines, without the padding between a
node and its location, and a text is a list of runs of them, ``[first, count, first, count, ...]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from rewright.errors import InputError
from rewright.passes.instruments.dump import FORMAT, MANIFEST

__all__ = ["Texts", "collect"]

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_COMMENT: Final = re.compile(rf"((?:{_QUOTED}|[^\"#])*?)\s*(?:#\s*(.*))?")

_PASS_FIELDS: Final = (
    "number", "name", "step", "groups", "changed", "failure", "seconds", "nodes", "rules",
    "rewrites",
)  # fmt: skip
"""What the page shows of a pass, as the manifest has it."""

_RUN_FIELDS: Final = (
    "graph", "pipeline", "exactness", "created", "seconds", "instruments", "reports",
)  # fmt: skip
"""What it shows of the whole run."""


def collect(path: Path) -> dict[str, Any]:
    """The page's data: ``{"title": ..., "source": ..., "graphs": [...]}``.

    Args:
        path: the folder of a dump, the text of a graph, or a saved program.

    Raises:
        InputError: it is none of these, or can't be read.
        ArtifactError: it is a damaged artifact.
    """
    if path.is_dir():
        graphs = [_dumped(folder) for folder in _dumps(path)]
    elif path.suffix == ".ir":
        graphs = [_single(path.stem, _read(path), {})]
    elif path.exists():
        graphs = [_saved(path)]
    else:
        raise InputError(
            "there is no such file or folder",
            where=path,
            hint='compile with dump_ir="changed:DIR", or REWRIGHT_DUMP=changed:DIR, and view DIR',
        )
    return {"title": path.resolve().name, "source": str(path), "graphs": graphs}


# --------------------------------------------------------------------------- texts


@attrs.define
class Texts:
    """Texts that share most of their lines.

    Attributes:
        code: distinct lines without their locations.
        places: the location of each, or an empty text.
        runs: the texts, as runs of numbers of lines.
    """

    code: list[str] = attrs.field(factory=list)
    places: list[str] = attrs.field(factory=list)
    runs: list[list[int]] = attrs.field(factory=list)
    _lines: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False)
    _known: dict[str, int] = attrs.field(factory=dict, init=False)

    def add(self, text: str) -> int:
        """The number of `text`, which is kept once."""
        number = self._known.get(text)
        if number is None:
            number = self._known[text] = len(self.runs)
            self.runs.append(_as_runs(self._line(line) for line in text.splitlines()))
        return number

    def lines(self, number: int) -> Iterator[tuple[str, str]]:
        """The lines of a text, each with its location."""
        runs = self.runs[number]
        for first, count in zip(runs[::2], runs[1::2], strict=True):
            yield from zip(
                self.code[first : first + count], self.places[first : first + count], strict=True
            )

    def _line(self, line: str) -> int:
        found = _COMMENT.fullmatch(line)
        pair = (found[1], found[2] or "") if found else (line.rstrip(), "")
        number = self._lines.setdefault(pair, len(self.code))
        if number == len(self.code):
            self.code.append(pair[0])
            self.places.append(pair[1])
        return number

    def to_json(self) -> dict[str, Any]:
        """As the page has it."""
        return {"code": self.code, "places": self.places, "texts": self.runs}


def _as_runs(numbers: Iterable[int]) -> list[int]:
    runs: list[int] = []
    for number in numbers:
        if runs and runs[-2] + runs[-1] == number:
            runs[-1] += 1
        else:
            runs += [number, 1]
    return runs


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file can't be read: {error}", where=path) from None


# --------------------------------------------------------------------------- dumps


def _dumps(folder: Path) -> list[Path]:
    """The folders of a dump: one for each graph, the first one first."""
    further = [
        p for p in folder.glob("graph-*") if p.name[6:].isdigit() and (p / MANIFEST).exists()
    ]
    found = [folder, *sorted(further, key=lambda p: int(p.name[6:]))]
    if not (folder / MANIFEST).exists():
        raise InputError(
            f"the folder holds no {MANIFEST}, so it is no dump",
            where=folder,
            hint='compile with dump_ir="changed:DIR", or REWRIGHT_DUMP=changed:DIR, and view DIR',
        )
    return found


def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    try:
        made = json.loads(_read(path))
    except ValueError as error:
        raise InputError(
            f"the dump's manifest can't be read: {error}", where=path, hint="dump again"
        ) from None
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        raise InputError(
            "the dump was written by another version of Rewright",
            where=path,
            hint="dump again, and view it with the version that wrote it",
        )
    return made


def _dumped(folder: Path) -> dict[str, Any]:
    made = _manifest(folder)
    texts = Texts()
    try:
        passes = [_pass(entry, folder, texts) for entry in made["passes"]]
        _fill(passes)
        nodes = made.get("nodes")
        for entry in passes:
            entry["nodes_before"] = entry["nodes"] if nodes is None else nodes
            nodes = entry["nodes"]
        shown = {name: made.get(name) for name in _RUN_FIELDS}
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"the dump's manifest is not as one is written: {error!r}",
            where=folder / MANIFEST,
            hint="dump again",
        ) from None
    return {**shown, "folder": folder.name, "passes": passes, **texts.to_json()}


def _pass(entry: Mapping[str, Any], folder: Path, texts: Texts) -> dict[str, Any]:
    files = entry["files"]
    shown = {name: entry[name] for name in _PASS_FIELDS}
    for side in ("before", "after"):
        name = files.get(side)
        shown[side] = None if name is None else texts.add(_read(folder / Path(name).name))
    return shown


def _fill(passes: list[dict[str, Any]]) -> None:
    """Gives passes that changed nothing, and so have no files, the text of their neighbours."""
    for order, near, far in ((passes, "after", "before"), (passes[::-1], "before", "after")):
        known = None
        for entry in order:
            if entry[far] is None and known is not None:
                entry[far] = known
            if entry[near] is None and not entry["changed"]:
                entry[near] = entry[far]
            known = entry[near]


# --------------------------------------------------------------------------- single graphs


def _single(name: str, text: str, reports: Mapping[str, Any]) -> dict[str, Any]:
    """A graph with no passes."""
    texts = Texts()
    texts.add(text)
    shown: dict[str, Any] = dict.fromkeys(_RUN_FIELDS)
    shown |= {"graph": name, "reports": reports, "folder": name, "passes": []}
    return {**shown, **texts.to_json()}


def _saved(path: Path) -> dict[str, Any]:
    """What an artifact holds: its graph as it runs, and the reports on it."""
    from rewright.artifact.container import open_container
    from rewright.artifact.manifest import read_manifest
    from rewright.errors import ArtifactError

    try:
        with path.open("rb") as file:
            container = open_container(str(path), file)
            manifest = read_manifest(container)
            text = container.read("program.ir").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the artifact can't be read: {error}", path=path) from error
    reports = {name: report for name, report in manifest["reports"].items() if report is not None}
    return _single(str(manifest["summary"].get("name", path.stem)), text, reports)
