"""The store: whole entries or none, whatever processes, disks and bits do."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import rewright
from rewright import store as module
from rewright.digest import CHUNK, digest, digests
from rewright.errors import ArtifactError, SettingsError
from rewright.store import Store, default_store, format_size, parse_size

SOURCE = Path(rewright.__file__).resolve().parents[1]
MIB = 1 << 20


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def contents(name: object, size: int = 1000) -> bytes:
    return random.Random(str(name)).randbytes(size)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", 10 * MIB)


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_warned", set())


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code`, with what it mostly needs imported."""
    head = "import os, sys, random\nfrom pathlib import Path\nfrom rewright.store import Store\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


# --------------------------------------------------------------------------- what is put is got


@pytest.mark.parametrize("size", [0, 1, 1000, 3 * MIB])
def test_what_is_put_is_got(store: Store, size: int) -> None:
    data = contents("a", size)
    assert store.get(key("a")) is None
    assert store.put(key("a"), data, {"about": "ä", "list": [1, None, 2.5]})
    entry = store.get(key("a"))
    assert entry is not None
    assert (entry.data, entry.metadata) == (data, {"about": "ä", "list": [1, None, 2.5]})
    assert store.get(key("b")) is None


def test_a_key_is_no_path(store: Store) -> None:
    for bad in ("", "../../etc/passwd", key("a")[:-1], key("a").upper()):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            store.get(bad)


def test_the_last_put_wins(store: Store) -> None:
    store.put(key("a"), b"old", {})
    store.put(key("a"), b"new", {})
    entry = store.get(key("a"))
    assert entry is not None
    assert entry.data == b"new"
    assert len(store.entries()) == 1


def test_nothing_but_entries_is_left(store: Store) -> None:
    store.put(key("a"), b"data", {})
    assert [path.name for path in store.folder.iterdir()] == [f"{key('a')}.entry"]
    assert store.folder.stat().st_mode & 0o077 == 0, "engines of others are not for us to run"


# --------------------------------------------------------------------------- damage


def _path(store: Store, name: object = "a") -> Path:
    return store.folder / f"{key(name)}.entry"


def _is_gone_and_reported(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert store.get(key("a")) is None
    assert not _path(store).exists()
    assert store.get(key("a")) is None
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "damaged" in line.message
    assert str(_path(store)) in line.message


def test_every_cut_is_found(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put(key("a"), contents("a", 40), {"about": "a"})
    whole = _path(store).read_bytes()
    for length in range(len(whole)):
        module._warned.clear()
        _path(store).write_bytes(whole[:length])
        _is_gone_and_reported(store, caplog)
    module._warned.clear()
    _path(store).write_bytes(whole + b"\0")
    _is_gone_and_reported(store, caplog)


def test_every_flipped_bit_is_found(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put(key("a"), contents("a", 20), {"about": "a"})
    whole = _path(store).read_bytes()
    for bit in range(8 * len(whole)):
        module._warned.clear()
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        _path(store).write_bytes(changed)
        _is_gone_and_reported(store, caplog)


def test_an_entry_under_another_key_is_found(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(key("b"), b"data", {})
    _path(store, "b").rename(_path(store))
    _is_gone_and_reported(store, caplog)


def test_damage_shows_in_the_listing(store: Store) -> None:
    store.put(key("a"), contents("a"), {"about": "a"})
    store.put(key("b"), contents("b"), {"about": "b"})
    _path(store).write_bytes(_path(store).read_bytes()[:500])
    found = {info.key: info for info in store.entries()}
    assert found[key("b")].fault is None
    assert found[key("b")].metadata == {"about": "b"}
    assert "500 bytes" in str(found[key("a")].fault)


def test_a_good_entry_in_the_place_of_a_damaged_one_stays(store: Store) -> None:
    """Another process may have replaced the file since it was read."""
    store.put(key("a"), b"bad", {})
    stat = _path(store).stat()
    held = _path(store).open("rb")  # its inode can't be taken by the next file
    store.put(key("a"), b"good", {})
    store._remove_damaged(_path(store), stat, "a test")
    held.close()
    assert _path(store).exists()


def test_discard(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put(key("a"), b"data", {})
    store.discard(key("a"), "it is of no use")
    assert "it is of no use" in caplog.text
    assert store.get(key("a")) is None
    store.discard(key("b"), "it is not there")


# --------------------------------------------------------------------------- the limit


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, 5 * 1500)
    for number in range(5):
        store.put(key(number), contents(number, 1200), {})
        os.utime(_path(store, number), (number, number))
    assert store.get(key(0)) is not None  # used just now, so 1 is the oldest
    store.put(key(5), contents(5, 2500), {})
    assert {n for n in range(6) if _path(store, n).exists()} == {0, 3, 4, 5}
    assert store.size() <= store.limit
    assert [info.key for info in store.entries()][:2] == [key(5), key(0)]


def test_bytes_are_counted_and_not_entries(tmp_path: Path) -> None:
    store = Store(tmp_path, 100_000)
    for number in range(50):
        store.put(key(number), contents(number, 1000), {})
    assert len(store.entries()) == 50
    store.put(key("big"), contents("big", 95_000), {})
    assert _path(store, "big").exists()
    assert store.size() <= 100_000


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, 5000)
    store.put(key("a"), contents("a", 3000), {})
    assert not store.put(key("b"), contents("b", 5000), {})
    assert [info.key for info in store.entries()] == [key("a")]


# --------------------------------------------------------------------------- processes

_USE = """
folder, limit, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store, rng, found = Store(folder, limit), random.Random(seed), 0
for _ in range(60):
    number = rng.randrange(12)
    name = f"{number:064x}"
    entry = store.get(name)
    if entry is not None:
        found += 1
        whole = random.Random(number).randbytes(200_000 + number)
        assert entry.data == whole and entry.metadata == {"number": number}, number
    if entry is None or rng.random() < 0.3:
        data = random.Random(number).randbytes(200_000 + number)
        assert store.put(name, data, {"number": number})
print(found)
"""


@pytest.mark.parametrize("limit", [10 * MIB, MIB], ids=["roomy", "evicting"])
def test_eight_processes(tmp_path: Path, limit: int) -> None:
    processes = [python(_USE, tmp_path, limit, seed) for seed in range(8)]
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outcomes
    assert all(int(out) > 0 for out, _ in outcomes), "they read what the others wrote"
    assert not any(error for _, error in outcomes), "nothing was damaged"
    store = Store(tmp_path, limit)
    assert store.size() <= limit
    for info in store.entries():
        assert info.fault is None
        assert store.get(info.key) is not None
    assert all(path.suffix == ".entry" for path in tmp_path.iterdir())


_DIE = """
import time
store, place = Store(Path(sys.argv[1])), sys.argv[2]
store.put("a" * 64, b"a" * 1000, {})
def stop(*args):
    print("here", flush=True)
    time.sleep(60)
setattr(os, place, stop)
store.put("a" * 64, b"b" * 1000, {})
store.put("b" * 64, b"b" * 1000, {})
"""


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_writer_that_is_killed_before_it_is_done(tmp_path: Path, place: str) -> None:
    process = python(_DIE, tmp_path, place)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    store = Store(tmp_path)
    (left,) = tmp_path.glob("*.tmp")
    os.utime(left, (time.time() - 3600,) * 2)
    store.sweep()
    assert left.exists(), "its writer lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    entry = store.get("a" * 64)
    assert entry is not None
    assert entry.data == b"a" * 1000, "the one before is still whole"
    assert store.put("c" * 64, b"c", {})
    assert not left.exists(), "the next writer clears up"
    assert {info.key[0] for info in store.entries()} == {"a", "c"}


_WRITE = """
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    store.put(f"{number % 5:064x}", bytes([number % 251]) * 3_000_000, {"number": number})
    if number == 0:
        print("here", flush=True)
"""


def test_writers_that_are_killed_at_any_time(tmp_path: Path) -> None:
    rng = random.Random(5)
    for _ in range(12):
        process = python(_WRITE, tmp_path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    store = Store(tmp_path)
    found = store.entries()
    assert found, "the first was done each time"
    for info in found:
        entry = store.get(info.key)
        assert entry is not None
        assert entry.data == bytes([entry.metadata["number"] % 251]) * 3_000_000
    for left in tmp_path.glob("*.tmp"):
        os.utime(left, (1, 1))
    store.sweep()
    assert not [*tmp_path.glob("*.tmp")]


def test_a_file_that_was_just_begun_is_left_alone(store: Store) -> None:
    store.put(key("a"), b"a", {})
    fresh = store.folder / f"{key('b')}.x.tmp"
    fresh.write_bytes(b"")
    store.sweep()
    assert fresh.exists()


def test_files_of_others_are_left_alone(store: Store) -> None:
    store.put(key("a"), b"a", {})
    for name in ("notes.txt", "x.entry", "x.tmp"):
        (store.folder / name).write_text("mine")
        os.utime(store.folder / name, (1, 1))
    store.sweep()
    store.remove(info.key for info in store.entries())
    assert sorted(path.name for path in store.folder.iterdir()) == ["notes.txt", "x.entry", "x.tmp"]


# --------------------------------------------------------------------------- the disk

_READ_ONLY = """
folder = Path(sys.argv[1])
store = Store(folder)
store.put("a" * 64, b"data", {})
for path in folder.iterdir():
    path.chmod(0o444)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
print(store.get("a" * 64), store.put("b" * 64, b"data", {}), store.put("c" * 64, b"data", {}))
"""


def test_a_folder_for_reading_only() -> None:
    """What is there is read; what can't be kept is said once."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "cache"
        out, error = python(_READ_ONLY, folder).communicate(timeout=60)
        os.chmod(folder, 0o755)
    assert "data=4 bytes" in out, error
    assert out.strip().endswith("False False")
    assert error.count("can't be written to") == 1
    assert "Permission denied" in error


def test_a_folder_that_can_be_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    assert not store.put(key("a"), b"data", {})
    assert "can't be written to" in caplog.text
    assert store.get(key("a")) is None
    with pytest.raises(ArtifactError, match="can't be used"):
        store.entries()


_FULL = """
import resource
store = Store(Path(sys.argv[1]))
store.put("a" * 64, b"small", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print(store.put("b" * 64, b"b" * 10**6, {}), store.get("a" * 64) is not None)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    out, error = python(_FULL, tmp_path).communicate(timeout=60)
    assert out == "False True\n", error
    assert "nothing is kept: File too large" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 64 + ".entry"]


def test_ctrl_c_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(number: int) -> None:
        raise KeyboardInterrupt

    store.put(key("a"), b"a", {})
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        store.put(key("b"), b"b", {})
    assert [path.suffix for path in store.folder.iterdir()] == [".entry"]


# --------------------------------------------------------------------------- the environment


def test_default_store(tmp_path: Path) -> None:
    home = {"XDG_CACHE_HOME": str(tmp_path)}
    assert default_store(home) == Store(tmp_path / "rewright", 10 << 30)
    named = {"REWRIGHT_CACHE_DIR": "/x/y", "REWRIGHT_CACHE_SIZE": "2.5 GiB"}
    assert default_store(home | named) == Store(Path("/x/y"), 5 << 29)
    assert default_store({"REWRIGHT_CACHE_SIZE": "0"}).limit == 0
    assert default_store({}).folder == Path.home() / ".cache" / "rewright"
    with pytest.raises(SettingsError, match=r"'10 apples'.*no size"):
        default_store({"REWRIGHT_CACHE_SIZE": "10 apples"})


def test_without_a_home_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nowhere)
    assert default_store({}).limit == 0
    assert "REWRIGHT_CACHE_DIR" in caplog.text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("1K", 1024),
        ("10g", 10 << 30),
        ("1.5 MiB", 3 << 19),
        ("2TB", 2 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1 X", "1e9", "ten"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


# --------------------------------------------------------------------------- digests


def test_digests_depend_on_the_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents("large", 3 * CHUNK + 17)
    found = digest(data)
    monkeypatch.setattr("rewright.digest._cores", lambda: 1)
    assert digest(data) == found
    assert digest(bytearray(data)) == found
    assert digest(memoryview(data)) == found


def test_digests_of_many_are_those_of_each() -> None:
    parts = [contents(n, size) for n, size in enumerate((0, 1, CHUNK, 2 * CHUNK + 1, 5, 0))]
    together = digests([(len(p), lambda a, b, p=p: p[a:b]) for p in parts])
    assert together == [digest(part) for part in parts]
    assert len({*together}) == 5  # the two empty ones are equal


def test_no_byte_is_left_out() -> None:
    data = bytearray(2 * CHUNK + 3)
    seen = {digest(data)}
    for at in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 2):
        data[at] = 1
        seen.add(digest(data))
    seen.add(digest(data[:-1]))
    seen.add(digest(data + b"\0"))
    assert len(seen) == 10
