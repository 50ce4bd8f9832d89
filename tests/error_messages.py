"""Every error message that tests hold, on one page: docs/ERRORS.md.

python -m tests.error_messages tests/passes   records what the tests of a folder see, and merges it
python -m tests.error_messages                writes the page anew from what was recorded

A test sees an error by ``pytest.raises``, by a command's exit, a warning by ``pytest.warns``. Kept
is one example for each place in the sources that makes a message (`sites`), in
``docs/data/errors.json``. An example whose place is gone is dropped; one that was seen again is
renewed.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import attrs
import pytest

from rewright import errors
from rewright.cli import Command
from rewright.errors import RewrightError, RewrightWarning

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/ERRORS.md"
DATA = ROOT / "docs/data/errors.json"
SOURCES = ("src/rewright", "ir", "passes", "frontends", "backends")
ANYTHING = "…"
LONGEST = 24
"""So many lines of a message are shown."""


@attrs.frozen(order=True)
class Site:
    """A place in the sources that makes a message: what is variable in it stands as ``…``."""

    kind: str
    file: str
    template: str


@attrs.frozen
class Example:
    """A message as a test saw it."""

    site: Site
    text: str
    test: str

    @property
    def key(self) -> tuple[Site, str]:
        """One example is kept of each: of a site that hands on a text, of each such text."""
        hands_on = not re.search(r"[a-z]{2}", self.site.template) or re.search(
            f": {ANYTHING}$", self.site.template
        )
        return self.site, _without_names(self.text.splitlines()[0]) if hands_on else ""


# --- The places in the sources ---------------------------------------------------------------


def kinds() -> dict[str, type]:
    """The classes of errors and warnings, by name, as ``rewright.errors`` lists them first."""
    public = [item for item in vars(errors).values() if _is_kind(item)]
    return {item.__name__: item for item in public}


def _is_kind(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, (RewrightError, RewrightWarning))


@functools.cache
def sites() -> dict[Site, range]:
    """Every place that makes a message, with its lines."""
    found = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.resolve() != path:
                continue  # one of the linked folders: it stands in the table under its own name
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (kind := _kind_made(node)):
                    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    found[Site(kind, name, _template(node))] = lines
    return found


def _kind_made(call: ast.Call) -> str | None:
    """The class that a call makes: ``InputError(...)``, ``warn(..., SomeWarning)``."""
    name = _last_name(call.func)
    if name.endswith("Error") and name in kinds():
        return name
    if name == "warn":
        named = [_last_name(argument) for argument in call.args[1:]]
        named += [_last_name(word.value) for word in call.keywords if word.arg == "category"]
        return next((found for found in named if found in kinds()), None)
    return None


def _last_name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _template(call: ast.Call) -> str:
    given = {word.arg: word.value for word in call.keywords}
    message = call.args[0] if call.args else given.get("message")
    return re.sub(f"{ANYTHING}+", ANYTHING, _text_of(message))


def _text_of(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text_of(node.left) + _text_of(node.right)
    return ANYTHING


# --- What tests see --------------------------------------------------------------------------


class Recorder:
    """A plugin of pytest that notes each error that a test expects, and where it was made."""

    def __init__(self) -> None:
        self.seen: list[Example] = []
        self.tests: set[str] = set()
        self._made: WeakKeyDictionary[BaseException, Site] = WeakKeyDictionary()
        self._sites = sites()
        self._test = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Only tests that may see an error, by their sources, need to run."""
        items[:] = [item for item in items if _may_see_errors(item)]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """The file is what the page names."""
        self._test = nodeid.partition("::")[0]
        self.tests.add(nodeid)

    def note_made(self, error: RewrightError, frame: FrameType) -> None:
        """Remember where an error was made: its class may be made by that of a subclass."""
        at: FrameType | None = frame
        while at is not None and at.f_locals.get("self") is error:
            at = at.f_back
        if at is None:
            return
        file = _relative(at.f_code.co_filename)
        for site, lines in self._sites.items():
            if site.file == file and at.f_lineno in lines and site.kind == _public(error):
                self._made[error] = site

    def note_error(self, error: object) -> None:
        """An error that a test expected. Dynamo passes on copies: their place is found by text."""
        if isinstance(error, RewrightError):
            made = self._made.get(error) or self._by_text(_public(error), error.message)
            self._note(made, str(error))

    def note_warning(self, warning: object) -> None:
        """A warning that a test expected. Its place is found by its text."""
        if isinstance(warning, RewrightWarning):
            self._note(self._by_text(type(warning).__name__, str(warning)), str(warning))

    def _by_text(self, kind: str, text: str) -> Site | None:
        """The place whose template fits a text best."""
        fitting = [
            site
            for site in self._sites
            if site.kind == kind
            and re.search(r"[a-z]{2}", site.template)
            and re.fullmatch(_pattern(site.template), text, re.DOTALL)
        ]
        return max(fitting, key=lambda site: len(site.template), default=None)

    def _note(self, site: Site | None, text: str) -> None:
        if site is not None:  # a test may make an error itself
            self.seen.append(Example(site, _without_this_machine(text), self._test))


def _pattern(template: str) -> str:
    return ".*".join(map(re.escape, template.split(ANYTHING)))


def _public(error: RewrightError) -> str:
    """The name of the error's class, or of the nearest one that is public."""
    return next(base.__name__ for base in type(error).__mro__ if base.__name__ in kinds())


def _may_see_errors(item: pytest.Item) -> bool:
    """Whether the source of a test, or of a helper that it calls, speaks of errors."""
    if not isinstance(item, pytest.Function):
        return False
    known = {**item.function.__globals__, **dict(inspect.getmembers(item.cls))}
    helpers = [known.get(name) for name in item.function.__code__.co_names]
    called = [helper for helper in helpers if inspect.isfunction(helper)]
    return any(_SPEAKS.search(inspect.getsource(function)) for function in (item.function, *called))


_SPEAKS = re.compile(r"raises|warns|main\(|refus|explain|error|fail", re.IGNORECASE)


def record(arguments: list[str]) -> Recorder:
    """Run tests, and note what they see."""
    recorder = Recorder()
    made, left, warned, loaded = (
        RewrightError.__init__,
        pytest.RaisesExc.__exit__,
        pytest.WarningsRecorder.__exit__,
        Command.load,
    )

    @functools.wraps(made)
    def make(self: RewrightError, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        recorder.note_made(self, sys._getframe(1))

    def leave(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        recorder.note_error(error)
        return left(self, kind, error, trace)

    def leave_warned(self: Any, *args: Any) -> Any:
        for item in self.list:
            recorder.note_warning(item.message)
        return warned(self, *args)

    def load(self: Command) -> Any:
        run = loaded(self)

        def run_and_note(argv: Any) -> int:
            try:
                return run(argv)
            except RewrightError as error:
                recorder.note_error(error)
                raise

        return run_and_note

    with (
        mock.patch.object(RewrightError, "__init__", make),
        mock.patch.object(pytest.RaisesExc, "__exit__", leave),
        mock.patch.object(pytest.WarningsRecorder, "__exit__", leave_warned),
        mock.patch.object(Command, "load", load),
    ):
        pytest.main(["-q", "-p", "no:xdist", "-p", "no:cacheprovider", *arguments], [recorder])
    return recorder


_PLACES = (
    (str(ROOT), ""),
    (sysconfig.get_paths()["purelib"], "site-packages"),
    (sysconfig.get_paths()["stdlib"], "lib"),
    (sys.executable, "python"),
    (sys.prefix, ""),
    (str(Path.home()), "~"),
)


def _without_this_machine(text: str) -> str:
    """The text without folders, addresses and process ids, which differ from run to run."""
    temporary = re.escape(tempfile.gettempdir())
    text = re.sub(rf"{temporary}/pytest-of-\w+/pytest-\d+/[\w\-\[\].]+", "DIR", text)
    text = re.sub(rf"{temporary}/tmp\w+", "DIR", text)
    for place, shown in _PLACES:
        text = text.replace(f"{place}/", f"{shown}/" if shown else "").replace(place, shown)
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def _without_names(text: str) -> str:
    """The text with what is variable replaced, so that the same sentence is the same text."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|[%@][\w.]+|\[[^\]]*\]", "'…'", text)
    return re.sub(r"\d+", "0", text)


def _relative(file: str) -> str:
    path = Path(file).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else file


# --- The page --------------------------------------------------------------------------------


def merged(old: Iterable[Example], recorder: Recorder) -> list[Example]:
    """One example for each key: the one that was there, renewed, or else the shortest."""
    kept = {example.key: example for example in old if example.site in recorder._sites}
    ran = {nodeid.partition("::")[0] for nodeid in recorder.tests}
    seen = sorted(recorder.seen, key=lambda example: (example.key, len(example.text), example.text))
    for key, group in groupby(seen, key=lambda example: example.key):
        found, before = list(group), kept.get(key)
        if before is None or (before.test in ran and before not in found):
            kept[key] = found[0]
    return sorted(kept.values(), key=lambda example: (example.site, example.text))


def load() -> list[Example]:
    """What was recorded."""
    rows = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else []
    return [Example(Site(r["kind"], r["file"], r["template"]), r["text"], r["test"]) for r in rows]


def save(examples: Iterable[Example]) -> None:
    """Keep what was recorded."""
    rows = [attrs.asdict(e.site) | {"text": e.text, "test": e.test} for e in examples]
    DATA.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_HEAD = """\
# Error messages

Made by `python -m tests.error_messages`: an example of each message that the tests hold, as they
saw it, by class and by the file that it comes from. Every error is a
`rewright.errors.RewrightError`, and keeps its parts as attributes: `message` is the first line,
`where` and `hint` are the next.
"""


def page(examples: Iterable[Example]) -> str:
    """The page."""
    return "\n".join(_lines(list(examples))).rstrip("\n") + "\n"


def _lines(examples: list[Example]) -> Iterator[str]:
    yield _HEAD
    for name, kind in kinds().items():
        chosen = [example for example in examples if example.site.kind == name]
        if not chosen:
            continue
        yield f"## {name}\n"
        yield inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0] + "\n"
        for file, group in groupby(chosen, key=lambda example: example.site.file):
            yield f"`{file}`\n"
            for example in group:
                yield from ("```text", *_shown(example.text), "```\n")


def _shown(text: str) -> list[str]:
    lines = text.splitlines()
    more = len(lines) - LONGEST
    return lines if more <= 1 else [*lines[:LONGEST], f"  … and {more} lines more"]


def main() -> int:
    """Record the tests that are named, merge, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.error_messages", description=__doc__)
    parser.add_argument("tests", nargs="*", help="arguments of pytest: folders, files, options")
    parser.add_argument("--unseen", action="store_true", help="list the places without an example")
    args, more = parser.parse_known_args()
    recorder = record([*args.tests, *more]) if args.tests else Recorder()
    examples = merged(load(), recorder)
    save(examples)
    PAGE.write_text(page(examples), encoding="utf-8")
    unseen = sorted(sites().keys() - {example.site for example in examples})
    print(f"{len(examples)} messages; {len(unseen)} places without an example")
    for site in unseen if args.unseen else ():
        print(f"{site.file}: {site.kind}: {site.template}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
