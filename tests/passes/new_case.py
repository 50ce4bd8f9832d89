"""Adds a case to a file of textual tests, with check lines for what the passes do today.

    python -m tests.passes.new_case tests/passes/text/dce.ir --passes dce < graph.ir

Read what it wrote, and take out the lines that are not what the test is about.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.passes.text_cases import RUN, SPLIT, read_cases, run_command


def new_case(path: Path, arguments: str, graph: str) -> str:
    """The text of a case: the command, check lines for its output, the graph."""
    run = f"rewright opt %s {arguments} | filecheck %s"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.ir"
        file.write_text(graph, encoding="utf-8")
        output = run_command(run, file)
    known = [case.run for case in read_cases(path)] if path.exists() else []
    header = [] if run in known[-1:] else [f"{RUN} {run}"]
    return "\n".join([*header, *check_lines(output), graph.strip()]) + "\n"


def check_lines(output: str) -> Iterator[str]:
    """One line after another, the first by its start only: what follows it is the graph's type."""
    kind = "CHECK"
    for line in output.strip().splitlines():
        text = line.partition("  # ")[0].strip()
        yield f"# {kind + ':':12} {text}"
        kind = "CHECK-NEXT"


def main(argv: Sequence[str] | None = None) -> None:
    """Appends a case to a file."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.passes.new_case")
    parser.add_argument("file", type=Path, help="where the case goes, at the end")
    options, rest = parser.parse_known_args(argv)
    text = new_case(options.file, " ".join(rest), sys.stdin.read())
    start = f"{SPLIT}\n" if options.file.exists() else ""
    with options.file.open("a", encoding="utf-8") as file:
        file.write(start + text)


if __name__ == "__main__":
    main()
