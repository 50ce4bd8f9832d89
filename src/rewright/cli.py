"""The command ``rewright``: one table of subcommands, each loaded when it is run."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module

import attrs

import rewright
from rewright.errors import RewrightError, did_you_mean

__all__ = ["COMMANDS", "Command", "main"]


@attrs.frozen
class Command:
    """A subcommand: ``run`` is ``module:function``, called with the arguments that follow its name.

    The function parses them itself and returns the exit status.
    """

    run: str
    summary: str

    def load(self) -> Callable[[Sequence[str]], int]:
        """The function. Imports its module."""
        module, _, function = self.run.partition(":")
        loaded: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
        return loaded


COMMANDS = {
    "bisect": Command(
        "rewright.bisect:main", "find the pass and the rewrite that make a command fail"
    ),
    "cache": Command("rewright.cache_cli:main", "list and remove what earlier compiles left"),
    "demo": Command("rewright.demo:main", "compile a small model both ways and show what happened"),
    "inspect": Command("rewright.artifact.inspect:main", "show what is in a saved program"),
    "opt": Command("rewright.opt:main", "run passes on the text of a graph, and look into them"),
    "passes": Command("rewright.pass_list:main", "list the passes and rules that there are"),
    "settings": Command("rewright.cli:settings", "list the settings that a compile takes"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="rewright",
        description="A declarative graph-rewriting compiler for PyTorch inference.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {cmd.summary}" for name, cmd in COMMANDS.items())
        + "\n\n`rewright COMMAND --help` says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rewright {rewright.__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, by default the process's own; returns the exit status.

    0: done. 1: a :class:`~rewright.errors.RewrightError`, shown without a traceback. 2: usage.
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
        return 1


def settings(argv: Sequence[str]) -> int:
    """``rewright settings``: every setting with its default, its legal values and what it does."""
    from rewright.settings import Settings

    parser = argparse.ArgumentParser(
        prog="rewright settings", description="List the settings that a compile takes."
    )
    parser.parse_args(argv)
    for row in Settings.describe():
        print(f"{row.name} = {row.default}")
        print(f"    legal: {row.legal}")
        print(textwrap.fill(row.doc, 88, initial_indent="    ", subsequent_indent="    "))
        print()
    return 0
