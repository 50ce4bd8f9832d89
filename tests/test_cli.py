import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import rewright
from rewright import cli
from rewright.errors import ArtifactError, CompileError, InputError, ParseError, SettingsError
from rewright.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def command(monkeypatch):
    """Put a function behind `rewright fake`."""

    def put(run):
        module = types.ModuleType("rewright_fake")
        module.run = run
        monkeypatch.setitem(sys.modules, "rewright_fake", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", cli.Command("rewright_fake:run", "a fake"))

    return put


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"rewright {rewright.__version__}\n"


def test_no_command_shows_them_all(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert command.summary in out


def test_an_unknown_command_is_a_usage_error_with_the_nearest_one(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["setings"])
    assert stopped.value.code == 2
    assert "did you mean 'settings'?" in capsys.readouterr().err


def test_a_command_gets_all_that_follows_its_name(command):
    seen = []
    command(lambda argv: seen.extend(argv) or 7)
    assert cli.main(["fake", "--help", "-x", "--", "y"]) == 7
    assert seen == ["--help", "-x", "--", "y"]


def test_our_errors_are_shown_without_a_traceback(command, capsys):
    def run(argv):
        raise CompileError("no kernel", where="model.py:97")

    command(run)
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err == "rewright fake: no kernel\n  where: model.py:97\n"


@pytest.mark.parametrize("error", [ArtifactError, InputError, ParseError, SettingsError])
def test_what_was_given_wrong_is_status_2(command, capsys, error):
    def run(argv):
        raise error("not so")

    command(run)
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err.startswith("rewright fake: ")


def test_a_reader_that_has_enough_is_no_error():
    code = "import sys; from rewright import cli; sys.exit(cli.main(['settings', '--json']))"
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "{code}" | head -c 10'],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_other_errors_are_bugs_and_keep_their_traceback(command):
    def run(argv):
        raise KeyError("oops")

    command(run)
    with pytest.raises(KeyError):
        cli.main(["fake"])


def test_settings_lists_every_setting(capsys):
    assert cli.main(["settings"]) == 0
    out = capsys.readouterr().out
    for row in Settings.describe():
        assert f"{row.name} = {row.default}" in out


def test_settings_as_json(capsys):
    assert cli.main(["settings", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [row.name for row in Settings.describe()]


def test_settings_by_name(capsys):
    assert cli.main(["settings", "--json", "target", "precision"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["target", "precision"]
    assert cli.main(["settings", "precison"]) == 2
    assert "did you mean 'precision'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name):
    parser = cli.COMMANDS[name].make_parser()
    assert parser.prog == f"rewright {name}"
    assert "example: " in (parser.epilog or "")
    assert f"rewright {name}" in parser.epilog
    assert parser.description


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_loads(name):
    assert callable(cli.COMMANDS[name].load())
