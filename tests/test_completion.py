"""Shell completion: the scripts, and what bash makes of its own."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from rewright import cli
from rewright.completion import SHELLS, Word, words_of


def sample() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    build = argparse.ArgumentParser()
    build.add_argument("file")
    build.add_argument("-o", "--output", type=Path, help="where to; a file")
    build.add_argument("--level", choices=["low", "high"], help="it's [much] (default: low)")
    build.add_argument("--quiet", action="store_true", help="say: nothing")
    keep = argparse.ArgumentParser()
    commands = keep.add_subparsers()
    commands.add_parser("ls", help="list them")
    commands.add_parser("rm", help="remove some")
    return {"build": ("make it", build), "keep": ("what is kept", keep)}


def test_words_are_those_of_the_parser():
    build, keep = (words_of(parser) for _, parser in sample().values())
    assert build[1:] == [
        Word(("-o", "--output"), "where to", takes_value=True, takes_file=True),
        Word(("--level",), "it's [much]", ("low", "high"), takes_value=True),
        Word(("--quiet",), "say: nothing"),
    ]
    assert [word.names for word in keep[1:]] == [("ls",), ("rm",)]


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _rewright"
    done = subprocess.run(
        ["bash", "-c", f'{code}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True, text=True, cwd=script.parent,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_choices_and_files(tmp_path):
    script = tmp_path / "script"
    script.write_text("\n".join(SHELLS["bash"](sample())))
    assert complete(script, "rewright", "b") == ["build"]
    assert complete(script, "rewright", "build", "--l") == ["--level"]
    assert complete(script, "rewright", "build", "--level", "h") == ["high"]
    assert complete(script, "rewright", "keep", "l") == ["ls"]
    assert complete(script, "rewright", "build", "scr") == ["script"]


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("zsh", ["'*--level[it s  much ]:value:(low high)'", "'*--output[where to]:value:_files'"]),
        (
            "fish",
            ["complete -c rewright -n '__fish_seen_subcommand_from keep' -a ls -d 'list them'"],
        ),
    ],
)
def test_other_shells(shell, lines):
    script = "\n".join(SHELLS[shell](sample()))
    for line in lines:
        assert line.replace("'*", "*").replace("]'", "]") in script.replace("'*", "*")


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_the_command_knows_every_command(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert name in script
    assert "torch-backend" in script
    if shell != "fish" and shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
