"""Shell completion of ``rewright``, made from the parsers of its commands."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["SHELLS", "Word", "words_of"]


@attrs.frozen
class Word:
    """A word that may follow.

    Attributes:
        names: the option's names, or that of a command.
        help: what it does.
        choices: what may follow it.
        takes_value: whether a value follows it.
        takes_file: whether that is a file.
    """

    names: tuple[str, ...]
    help: str = ""
    choices: tuple[str, ...] = ()
    takes_value: bool = False
    takes_file: bool = False


def words_of(parser: argparse.ArgumentParser) -> list[Word]:
    """The options of a command, and its subcommands."""
    words = []
    for action in parser._actions:
        text = (action.help or "").split(";")[0].split(" (default")[0]
        if isinstance(action, argparse._SubParsersAction):
            known = {choice.dest: choice.help or "" for choice in action._choices_actions}
            words += [Word((name,), known.get(name, "")) for name in action.choices]
        elif action.option_strings and action.help != argparse.SUPPRESS:
            words.append(
                Word(
                    tuple(action.option_strings),
                    text,
                    tuple(map(str, action.choices or ())),
                    action.nargs != 0,
                    action.type is Path,
                )
            )
    return words


Commands = Mapping[str, tuple[str, argparse.ArgumentParser]]
"""What each command does, and its parser, by its name."""


def bash(commands: Commands) -> Iterator[str]:
    """A script for ``eval "$(rewright completion bash)"``."""
    yield "_rewright() {"
    yield '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""'
    yield "  if ((COMP_CWORD == 1)); then"
    yield f'    COMPREPLY=($(compgen -W {shlex.quote(" ".join(commands))} -- "$word")); return'
    yield "  fi"
    yield '  case "${COMP_WORDS[1]} $before" in'
    for name, (_, parser) in commands.items():
        for word in words_of(parser):
            for option in word.names if word.choices else ():
                choices = shlex.quote(" ".join(word.choices))
                reply = f'COMPREPLY=($(compgen -W {choices} -- "$word"))'
                yield f'    "{name} {option}") {reply}; return;;'
    yield "  esac"
    yield '  case "${COMP_WORDS[1]}" in'
    for name, (_, parser) in commands.items():
        names = " ".join(option for word in words_of(parser) for option in word.names)
        yield f"    {name}) words={shlex.quote(names)};;"
    yield "  esac"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield '  [[ $word == -* ]] || COMPREPLY+=($(compgen -f -- "$word"))'
    yield "}"
    yield "complete -o filenames -F _rewright rewright"


def zsh(commands: Commands) -> Iterator[str]:
    """A script for ``eval "$(rewright completion zsh)"``, after ``compinit``."""
    yield "#compdef rewright"
    yield "_rewright() {"
    yield "  local -a commands=("
    for name, (summary, _) in commands.items():
        yield f"    {shlex.quote(f'{name}:{_plain(summary)}')}"
    yield "  )"
    yield "  if ((CURRENT == 2)); then _describe command commands; return; fi"
    yield '  local command="${words[2]}"'
    yield "  shift words; ((CURRENT--))"
    yield '  case "$command" in'
    for name, (_, parser) in commands.items():
        specs = [spec for word in words_of(parser) for spec in _zsh_specs(word)]
        yield f"    {name}) _arguments {' '.join(map(shlex.quote, [*specs, '*:file:_files']))};;"
    yield "  esac"
    yield "}"
    yield "compdef _rewright rewright"


def _zsh_specs(word: Word) -> Iterator[str]:
    if not word.names[0].startswith("-"):
        return
    value = ""
    if word.takes_value:
        value = f":value:({' '.join(word.choices)})" if word.choices else ":value:_files"
    for name in word.names:
        yield f"*{name}[{_plain(word.help)}]{value}"


def fish(commands: Commands) -> Iterator[str]:
    """A script for ``rewright completion fish | source``."""
    for name, (summary, _) in commands.items():
        about = shlex.quote(_plain(summary))
        yield f"complete -c rewright -n __fish_use_subcommand -f -a {name} -d {about}"
    for name, (_, parser) in commands.items():
        for word in words_of(parser):
            parts = [f"complete -c rewright -n '__fish_seen_subcommand_from {name}'"]
            for option in word.names:
                bare = option.lstrip("-")
                parts.append(
                    f"-l {bare}" if option.startswith("--")
                    else f"-s {bare}" if option.startswith("-") else f"-a {bare}"
                )  # fmt: skip
            if word.takes_value:
                parts.append("-r")
            if word.choices:
                parts.append(f"-f -a {shlex.quote(' '.join(word.choices))}")
            yield f"{' '.join(parts)} -d {shlex.quote(_plain(word.help))}"


def _plain(text: str) -> str:
    """`text` without what shells would take as a part of a specification."""
    return "".join(" " if c in "[]:'`\\$\"" else c for c in " ".join(text.split()))


SHELLS: Final[Mapping[str, Callable[[Commands], Iterator[str]]]] = {
    "bash": bash,
    "fish": fish,
    "zsh": zsh,
}
"""How each shell is told."""
