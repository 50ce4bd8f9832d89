"""Tests of passes as text: graphs with a command to run on them, and what its output must say.

    # RUN: rewright opt %s --passes dce | filecheck %s
    # CHECK:     aten.relu
    # CHECK-NOT: aten.tanh
    graph @unused(%x: f32[4]) -> f32[4] {
      ...
    }
    # -----
    # CHECK: ...                    (a further case; without a RUN line, that of the first holds)

A command that begins with ``not`` has to fail. What it checks is its standard output, and with
``2>&1`` its standard error, too. Commands run in this process: importing torch anew for each would
take longer than all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import attrs
from filecheck.error import ParseError as CheckParseError
from filecheck.matcher import Matcher
from filecheck.options import Options

from rewright import cli

SPLIT = "# -----"
RUN = "# RUN:"


class CaseFailure(AssertionError):
    """A case whose command, or whose output, is not as it says."""


@attrs.frozen
class Case:
    """One graph of a file, with its command.

    Attributes:
        path: the file.
        line: the number of its first line.
        name: the name of the graph, for the test's id.
        run: its command.
        text: its lines, check lines and all.
    """

    path: Path
    line: int
    name: str
    run: str
    text: str


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a file, in order."""
    run, line = "", 1
    for part in path.read_text(encoding="utf-8").split(f"{SPLIT}\n"):
        stated = [row.removeprefix(RUN).strip() for row in part.splitlines() if row.startswith(RUN)]
        run = stated[0] if stated else run
        yield Case(path, line, _name(part), run, part)
        line += part.count("\n") + 1


def _name(text: str) -> str:
    rows = (row for row in text.splitlines() if row.startswith("graph @"))
    return next(rows, "graph @unnamed").removeprefix("graph @").partition("(")[0]


def run_case(case: Case, folder: Path) -> None:
    """Runs the command of a case and checks its output.

    Args:
        case: what to run.
        folder: for the file that the command reads.

    Raises:
        CaseFailure: says what is not as the case says, with the output.
    """
    file = folder / f"{case.path.stem}-{case.name}.ir"
    # Blank lines before it, so that errors name the lines of the file that the case stands in.
    file.write_text("\n" * (case.line - 1) + case.text, encoding="utf-8")
    output = run_command(case.run, file)
    report = StringIO()
    (folder / "output").write_text(output, encoding="utf-8")
    options = Options(match_filename=str(file), input_file=str(folder / "output"))
    try:
        with redirect_stderr(report), redirect_stdout(report):
            failed = Matcher.from_opts(options).run()
    except CheckParseError as error:
        raise CaseFailure(f"line {error.line_no} of {file}: {error.message}") from None
    if failed:
        raise CaseFailure(f"{case.run}\n{report.getvalue()}\nthe output was:\n{output}")


def run_command(command: str, file: Path) -> str:
    """What a command line prints, run in this process on `file`.

    Raises:
        CaseFailure: the line is none that is known here, or the exit status is not as it says.
    """
    command, _, check = command.partition("|")
    words = shlex.split(command)
    fails = words[:1] == ["not"]
    words = words[fails:]
    both = "2>&1" in words
    words = [str(file) if word == "%s" else word for word in words if word != "2>&1"]
    if words[:1] != ["rewright"] or check.split() != ["filecheck", "%s"]:
        raise CaseFailure(f"a RUN line reads `rewright ... | filecheck %s`, not {command!r}")
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(out if both else err):
        status = cli.main(words[1:])
    if bool(status) != fails:
        raise CaseFailure(f"{command} gave {status}\n{out.getvalue()}{err.getvalue()}")
    return out.getvalue()
