"""``rewright bisect COMMAND``: finds the pass, and the rewrite in it, that make a command fail.

The command is run with ``REWRIGHT_BISECT`` set to ever closer limits; its exit status says good (0)
or bad. What is found is named, with the setting that shows the failure with as little as possible.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from rewright.errors import InputError

__all__ = ["Found", "Probe", "main", "search"]


class Probe(NamedTuple):
    """One run of the command.

    Attributes:
        good: whether it succeeded.
        entries: its report: a mapping for each pass and each rewrite, in order.
    """

    good: bool
    entries: Sequence[Mapping[str, Any]]


@attrs.frozen
class Found:
    """Where a command begins to fail.

    Attributes:
        limit: the least limit with which it fails, ``12.5``; one less and it succeeds.
        entry: the report on that pass.
        rewrite: the report on that rewrite; None where the pass fails without any.
        runs: how often the command was run.
    """

    limit: str
    entry: Mapping[str, Any]
    rewrite: Mapping[str, Any] | None
    runs: int

    def __str__(self) -> str:
        lines = [f"pass {self.entry['pass']}: {self.entry['step']} on @{self.entry['graph']}"]
        if self.rewrite is not None:
            number, rule = self.rewrite["rewrite"], self.rewrite["rule"]
            lines.append(f"rewrite {number}: rule {rule} ({self.rewrite['declared']})")
            lines.append(f"node: {self.rewrite['node']}")
            if self.rewrite["where"]:
                lines.append(f"where: {self.rewrite['where']}")
        return "\n".join(lines)


def search(probe: Callable[[str], Probe]) -> Found:
    """Finds the first limit with which a command fails.

    Args:
        probe: runs the command with a limit: ``all``, ``12``, ``12.5``.

    Raises:
        InputError: it does not fail with all passes, or fails with none.
    """
    tries = _Tries(probe)
    passes = _count_passes(tries)
    number = _first(0, passes, lambda count: tries.fails(str(count)))
    entry, *rewrites = [entry for entry in tries.of("all").entries if entry["pass"] == number]
    if not rewrites or tries.fails(f"{number}.0"):
        return Found(str(number), entry, None, len(tries.done))
    count = _first(0, len(rewrites), lambda most: tries.fails(f"{number}.{most}"))
    limit = f"{number}.{count}"
    rewrite = next(e for e in reversed(tries.of(limit).entries) if "rewrite" in e)
    return Found(limit, entry, rewrite, len(tries.done))


@attrs.define
class _Tries:
    """Runs of the command, each limit once.

    Attributes:
        probe: runs it.
        done: the runs, by their limits.
    """

    probe: Callable[[str], Probe]
    done: dict[str, Probe] = attrs.field(factory=dict)

    def of(self, limit: str) -> Probe:
        """The run with `limit`."""
        if limit not in self.done:
            self.done[limit] = self.probe(limit)
        return self.done[limit]

    def fails(self, limit: str) -> bool:
        """Whether the command fails with `limit`."""
        return not self.of(limit).good


def _count_passes(tries: _Tries) -> int:
    """The number of passes that the failing command runs.

    Raises:
        InputError: it does not fail with all passes, or fails with none.
    """
    if not tries.fails("all"):
        raise InputError("the command succeeds with all passes: there is nothing to find")
    count = max((int(entry["pass"]) for entry in tries.of("all").entries), default=0)
    if not count:
        raise InputError(
            "the command fails, but runs no passes of Rewright",
            hint="give the command that compiles",
        )
    if tries.fails("0"):
        raise InputError(
            "the command fails with no passes, too: no pass is at fault",
            hint="passes that can't be skipped still ran; look at what they do",
        )
    return count


def _first(good: int, bad: int, is_bad: Callable[[int], bool]) -> int:
    """A number above `good`, up to `bad`, that is bad and the one before it is not."""
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(middle):
            bad = middle
        else:
            good = middle
    return bad


# --------------------------------------------------------------------------- the command


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright bisect",
        description="Run a command with fewer and fewer passes and rewrites, and name the one "
        "that makes it fail. The command has to fail with all of them.",
        epilog="example: rewright bisect python test_my_model.py",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show only what was found")
    made.add_argument("--timeout", type=float, metavar="S", help="a run that takes longer is bad")
    made.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright bisect``; returns the exit status."""
    parsing = parser()
    options = parsing.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parsing.error("give a command")
    with tempfile.TemporaryDirectory(prefix="rewright-bisect-") as folder:
        found = search(lambda limit: _run(command, limit, Path(folder), options))
    print(found)
    print(f"replay: REWRIGHT_BISECT={found.limit} {shlex.join(command)}")
    return 0


def _run(command: Sequence[str], limit: str, folder: Path, options: argparse.Namespace) -> Probe:
    """One run of the command, with its output kept back."""
    report = folder / f"{limit}.jsonl"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "REWRIGHT_BISECT": f"{limit}:{report}"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=options.timeout, check=False
        )
        status = done.returncode
    except subprocess.TimeoutExpired:
        status = -1
    except OSError as error:
        raise InputError(f"the command can't be run: {error}", where=shlex.join(command)) from None
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    if not options.quiet:
        print(f"{limit:>8}: {'good' if status == 0 else 'bad'}", file=sys.stderr)
    return Probe(status == 0, [json.loads(line) for line in lines])
