"""`rewright cache`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rewright import cli
from rewright.store import Store, default_store, format_size

KEYS = {"a": "ab" * 32, "b": "ac" * 32, "c": "cd" * 32}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1M")
    store = default_store()
    for number, (name, key) in enumerate(KEYS.items()):
        store.put(key, bytes(1000 * (number + 1)), {"about": f"@{name}, a library 1.2"})
        os.utime(store.folder / f"{key}.entry", (number, number))
    return store


def _run(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert cli.main(["cache", *argv]) == status
    shown = capsys.readouterr()
    return shown.err if status else shown.out


def _shown(store: Store, names: str = "abc") -> str:
    """The size of the files of some entries, as it is shown."""
    paths = (store.folder / f"{KEYS[name]}.entry" for name in names)
    return format_size(sum(path.stat().st_size for path in paths))


def _kept(store: Store) -> str:
    return "".join(sorted(name for name, key in KEYS.items() if store.get(key)))


def test_ls(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = _run(capsys, "ls").splitlines()
    assert head.split() == ["key", "size", "last", "used", "what"]
    assert [row.split()[0] for row in rows] == [KEYS[name][:12] for name in "cba"]
    assert rows[0].endswith("@c, a library 1.2")
    assert rows[0].split()[1:3] == _shown(store, "c").split()


def test_without_a_command_it_lists(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys) == _run(capsys, "ls")


def test_ls_shows_damage(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.folder / f"{KEYS['a']}.entry").write_bytes(b"x" * 200)
    assert "damaged: it does not start like one" in _run(capsys, "ls")


def test_ls_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_run(capsys, "ls", "--json"))
    assert [info["key"] for info in found] == [KEYS[name] for name in "cba"]
    assert found[2]["metadata"] == {"about": "@a, a library 1.2"}
    assert found[2]["used"] == 0
    assert found[2]["size"] == (store.folder / f"{KEYS['a']}.entry").stat().st_size
    assert found[2]["fault"] is None


def test_size(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "size") == (
        f"{store.folder}: 3 entries, {_shown(store)} of at most 1.0 MiB\n"
    )
    facts = json.loads(_run(capsys, "size", "--json"))
    total = sum(path.stat().st_size for path in store.folder.iterdir())
    assert facts == {
        "folder": str(store.folder), "entries": 3, "bytes": total, "limit": 1 << 20,
    }  # fmt: skip


def test_rm_by_the_start_of_a_key(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _shown(store, "ac")
    assert _run(capsys, "rm", "AB", "c", "cd") == f"removed 2 entries: {shown}\n"
    assert _kept(store) == "b"


def test_rm_all(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    left = store.folder / f"{KEYS['a']}.x.tmp"
    left.write_bytes(b"of a killed writer")
    os.utime(left, (1, 1))
    found = json.loads(_run(capsys, "rm", "--all", "--json"))
    assert sorted(found["removed"]) == sorted(KEYS.values())
    assert found["bytes"] > 6000
    assert not [*store.folder.iterdir()]
    assert _run(capsys, "ls") == f"nothing is kept in {store.folder}\n"
    assert _run(capsys, "ls", "--json") == "[]\n"
    assert _run(capsys, "rm", "--all") == "removed 0 entries: 0 B\n"


def test_rm_refuses_what_is_not_clear(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 keys start with 'a'" in _run(capsys, "rm", "cd", "a", status=2)
    assert "no entry has the key 'ff'" in _run(capsys, "rm", "cd", "ff", status=2)
    assert "no entry has the key ''" in _run(capsys, "rm", "", status=2)
    assert _kept(store) == "abc", "nothing is removed where anything is wrong"


@pytest.mark.parametrize("argv", [["rm"], ["rm", "--all", "ab"], ["list"], ["ls", "x"]])
def test_usage(argv: list[str], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["cache", *argv])
    assert stopped.value.code == 2
    assert "usage: rewright cache" in capsys.readouterr().err
    assert _kept(store) == "abc"


def test_a_cache_that_is_off_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "0")
    assert _run(capsys, "size").endswith("none: 0 entries, 0 B and the cache is off\n")
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "much")
    assert "write 10G, 500M" in _run(capsys, "size", status=2)
    assert not (tmp_path / "none").exists()


def test_it_needs_no_torch(fresh_python) -> None:
    code = "import sys; from rewright import cli; cli.main(['cache', 'size'])"
    assert fresh_python(f"{code}; print('torch' in sys.modules)").endswith("False")
