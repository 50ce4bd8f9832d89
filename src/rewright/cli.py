"""The command ``rewright``: one table of subcommands, each loaded when it is run."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module

import attrs

import rewright
from rewright.errors import (
    ArtifactError,
    InputError,
    ParseError,
    RewrightError,
    SettingsError,
    did_you_mean,
)

__all__ = ["COMMANDS", "Command", "main"]


@attrs.frozen
class Command:
    """A subcommand: ``run`` is ``module:function``, called with the arguments that follow its name.

    The function parses them itself and returns the exit status. ``parser`` names the function of
    the same module that makes its parser.
    """

    run: str
    summary: str
    parser: str = "parser"

    def load(self) -> Callable[[Sequence[str]], int]:
        """The function. Imports its module."""
        module, _, function = self.run.partition(":")
        loaded: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
        return loaded

    def make_parser(self) -> argparse.ArgumentParser:
        """The command's parser. Imports its module."""
        make = getattr(import_module(self.run.partition(":")[0]), self.parser)
        made: argparse.ArgumentParser = make()
        return made


COMMANDS = {
    "bench": Command("rewright.run_cli:bench", "measure a saved program", "bench_parser"),
    "bisect": Command(
        "rewright.bisect:main", "find the pass and the rewrite that make a command fail"
    ),
    "cache": Command("rewright.cache_cli:main", "list and remove what earlier compiles left"),
    "compile": Command("rewright.compile_cli:main", "compile an exported program, and save it"),
    "completion": Command(
        "rewright.cli:completion", "write the completion of a shell", "completion_parser"
    ),
    "demo": Command("rewright.demo:main", "compile a small model both ways and show what happened"),
    "doctor": Command("rewright.doctor:main", "say what this machine has, and what is wrong"),
    "inspect": Command("rewright.artifact.inspect:main", "show what is in a saved program"),
    "opt": Command("rewright.opt:main", "run passes on the text of a graph, and look into them"),
    "passes": Command("rewright.pass_list:main", "list the passes and rules that there are"),
    "run": Command("rewright.run_cli:run", "call a saved program once", "run_parser"),
    "settings": Command(
        "rewright.cli:settings", "list the settings that a compile takes", "settings_parser"
    ),
    "view": Command("rewright.viewer.command:main", "make a page of what the passes did"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="rewright",
        description="A declarative graph-rewriting compiler for PyTorch inference.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {cmd.summary}" for name, cmd in COMMANDS.items())
        + "\n\n`rewright COMMAND --help` says what a command takes."
        + "\nexample: rewright compile model.pt2 -o model.rw && rewright run model.rw --random",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rewright {rewright.__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


_WRONG_INPUTS = (ArtifactError, InputError, ParseError, SettingsError)
"""What a command was given is not right."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, by default the process's own; returns the exit status.

    0: done. 1: a :class:`~rewright.errors.RewrightError`, shown without a traceback. 2: wrong
    usage, or one of those errors that say that what was given is not right.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    if args.command not in COMMANDS:
        parser.error(f"no command {args.command!r}: {did_you_mean(args.command, COMMANDS)}")
    try:
        return COMMANDS[args.command].load()(args.arguments)
    except RewrightError as error:
        print(f"rewright {args.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, _WRONG_INPUTS) else 1
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is left must not be written at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except KeyboardInterrupt:
        return 130


def settings_parser() -> argparse.ArgumentParser:
    """The arguments of ``rewright settings``."""
    made = argparse.ArgumentParser(
        prog="rewright settings",
        description="List the settings that a compile takes.",
        epilog="example: rewright settings precision target",
    )
    made.add_argument("names", metavar="NAME", nargs="*", help="only these (default: all)")
    made.add_argument("--json", action="store_true", help="write JSON")
    return made


def settings(argv: Sequence[str]) -> int:
    """``rewright settings``: every setting with its default, its legal values and what it does."""
    from rewright.settings import Settings

    options = settings_parser().parse_args(argv)
    rows = {row.name: row for row in Settings.describe()}
    for name in options.names:
        if name not in rows:
            raise SettingsError(
                f"there is no setting {name!r}", setting=name, hint=did_you_mean(name, rows)
            )
    shown = [rows[name] for name in options.names or rows]
    if options.json:
        print(json.dumps([attrs.asdict(row) for row in shown], indent=2))
        return 0
    for row in shown:
        print(f"{row.name} = {row.default}")
        print(f"    legal: {row.legal}")
        print(textwrap.fill(row.doc, 88, initial_indent="    ", subsequent_indent="    "))
        print()
    return 0


def completion_parser() -> argparse.ArgumentParser:
    """The arguments of ``rewright completion``."""
    from rewright.completion import SHELLS

    made = argparse.ArgumentParser(
        prog="rewright completion",
        description="Write a script that completes rewright's commands and options in a shell.",
        epilog='example: eval "$(rewright completion bash)"',
    )
    made.add_argument("shell", choices=list(SHELLS), help="which shell")
    return made


def completion(argv: Sequence[str]) -> int:
    """``rewright completion``: the script of a shell."""
    from rewright.completion import SHELLS

    shell = completion_parser().parse_args(argv).shell
    known = {name: (command.summary, command.make_parser()) for name, command in COMMANDS.items()}
    print("\n".join(SHELLS[shell](known)))
    return 0
