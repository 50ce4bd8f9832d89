import sys
import types

import pytest

import rewright
from rewright import cli
from rewright.errors import CompileError
from rewright.settings import Settings


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


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_loads(name):
    assert callable(cli.COMMANDS[name].load())
