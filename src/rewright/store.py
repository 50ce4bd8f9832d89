"""A store of bytes in files, by key: for processes that share a folder, and may be killed.

    store = default_store()
    store.put(key, data, {"about": "..."})
    entry = store.get(key)              # None, or what was put, whole and checked

* An entry is a file named by its key: a header (magic, version, lengths, checksums), metadata as
  JSON, data. What does not pass its checksums is reported, removed, and counts as not there.
* A file is written under another name, synced, renamed, and the folder synced. So readers need no
  locks: they see a whole entry or none, also when a writer is killed or another one writes the
  same key.
* The files that killed writers leave are removed by later ones. A writer holds a lock on its own
  file while it lives, which is how the two are told apart.
* Past its limit, the store removes what was not used for longest. A file's time of modification
  says when it was used last.
* A folder that can't be written to, or a full disk, is a warning in the log: :meth:`Store.put`
  returns False, and life goes on.

``REWRIGHT_CACHE_DIR`` and ``REWRIGHT_CACHE_SIZE`` set the folder and the limit.
"""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from rewright.digest import digest
from rewright.errors import ArtifactError, SettingsError

__all__ = ["DEFAULT_LIMIT", "Entry", "Info", "Store", "default_store", "format_size", "parse_size"]

LOG: Final = logging.getLogger("rewright.cache")

_fcntl: Final[Any] = import_module("fcntl") if os.name == "posix" else None
"""File locks. Where there are none, the files of killed writers are told by their age."""

DEFAULT_LIMIT: Final = 10 << 30
"""Bytes that are kept where nobody says otherwise."""

VERSION: Final = 1
"""The version of the format of an entry."""

_MAGIC: Final = b"REWRIGHT"
_FRONT: Final = struct.Struct("<8sIIQ32s")
"""Magic, version, bytes of metadata, bytes of data, digest of the data."""

_HEADER: Final = _FRONT.size + 32
"""The front is followed by the digest of key, front and metadata."""

_SUFFIX: Final = ".entry"
_UNFINISHED: Final = ".tmp"
_KEY: Final = re.compile(r"[0-9a-f]{64}")

_FRESH: Final = 60.0
"""Seconds for which an unfinished file is left alone: its writer may not have its lock yet."""

_ABANDONED: Final = 24 * 3600.0
"""Seconds after which an unfinished file is nobody's, where there are no locks."""


class _DamagedError(Exception):
    """What is wrong with an entry."""


@attrs.frozen
class Entry:
    """What was put.

    Attributes:
        key: 64 hexadecimal digits.
        data: the bytes.
        metadata: what describes them: JSON.
    """

    key: str
    data: bytes = attrs.field(repr=lambda data: f"{len(data)} bytes")
    metadata: Mapping[str, Any]


@attrs.frozen
class Info:
    """An entry as a listing has it: its data is not read.

    Attributes:
        key: 64 hexadecimal digits.
        size: bytes of its file.
        used: when it was put or last got, in seconds since the epoch.
        metadata: what describes it; empty where that is damaged.
        fault: what is wrong with it, as far as that can be seen without its data.
    """

    key: str
    size: int
    used: float
    metadata: Mapping[str, Any]
    fault: str | None = None


@attrs.frozen
class Store:
    """A folder of entries. Makes the folder when it first puts something.

    Attributes:
        folder: where the entries are.
        limit: the most bytes that are kept; 0: nothing is kept, nor looked for.
    """

    folder: Path
    limit: int = DEFAULT_LIMIT

    # -- one entry

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None where there is none that is whole. Counts as a use of it."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                try:
                    entry = _read(file, key)
                except _DamagedError as damage:
                    self._remove_damaged(path, os.fstat(file.fileno()), str(damage))
                    return None
            with suppress(OSError):  # in a folder for reading only, nothing is ever removed either
                os.utime(path)
            return entry
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn_once(f"the cache in {self.folder} can't be read: {error.strerror}")
            return None

    def put(self, key: str, data: bytes, metadata: Mapping[str, Any]) -> bool:
        """Keeps an entry; one of the same key is replaced. Returns whether that worked.

        Raises:
            TypeError: the metadata is not JSON.
        """
        path = self._path(key)
        pieces = _packed(key, data, metadata)
        size = sum(map(len, pieces))
        if size > self.limit:
            LOG.info(
                "an entry of %s is not kept: the limit of the cache is %s",
                format_size(size),
                format_size(self.limit),
            )
            return False
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, pieces)
            self._trim(path)
        except OSError as error:
            _warn_once(
                f"the cache in {self.folder} can't be written to, and nothing is kept: "
                f"{error.strerror}"
            )
            return False
        return True

    def discard(self, key: str, fault: str) -> None:
        """Removes an entry that its user found to be wrong, and says so in the log."""
        path = self._path(key)
        with suppress(OSError):
            self._remove_damaged(path, path.stat(), fault)

    # -- all entries

    def entries(self) -> list[Info]:
        """The entries, the one that was used last first.

        Raises:
            ArtifactError: the folder can't be read.
        """
        with _reported(self.folder):
            found = [_inspect(path, stat) for path, stat in self._files(_SUFFIX)]
        return sorted(filter(None, found), key=lambda info: (-info.used, info.key))

    def size(self) -> int:
        """The bytes of all files, unfinished ones too.

        Raises:
            ArtifactError: the folder can't be read.
        """
        with _reported(self.folder):
            files = [*self._files(_SUFFIX), *self._files(_UNFINISHED)]
        return sum(stat.st_size for _, stat in files)

    def remove(self, keys: Iterable[str]) -> None:
        """Removes entries, those that are there.

        Raises:
            ArtifactError: one can't be removed.
        """
        for key in keys:
            path = self._path(key)
            with _reported(path):
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes the files that killed writers left."""
        now = time.time()
        for path, stat in self._files(_UNFINISHED):
            age = now - stat.st_mtime
            if age >= _FRESH and _is_abandoned(path, age):
                with suppress(OSError):
                    path.unlink()

    # -- files

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a key is 64 hexadecimal digits, not {key!r}")
        return self.folder / f"{key}{_SUFFIX}"

    def _files(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        """The files whose names end so; those that are removed meanwhile may be left out."""
        try:
            found = os.scandir(self.folder)
        except FileNotFoundError:
            return
        with found:
            for file in found:
                if file.name.endswith(suffix) and _KEY.match(file.name):
                    with suppress(FileNotFoundError):
                        yield Path(file.path), file.stat(follow_symlinks=False)

    def _write(self, path: Path, pieces: Iterable[bytes]) -> None:
        number, name = tempfile.mkstemp(_UNFINISHED, f"{path.stem}.", self.folder)
        try:
            with os.fdopen(number, "wb") as file:
                _lock(file)
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        _sync_folder(self.folder)

    def _trim(self, kept: Path) -> None:
        """Removes what was not used for longest, until the rest fits; never `kept`."""
        self.sweep()
        files = sorted(self._files(_SUFFIX), key=lambda file: file[1].st_mtime_ns)
        total = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            if total <= self.limit:
                return
            if path != kept:
                path.unlink(missing_ok=True)  # another process may have done it
                total -= stat.st_size
                LOG.debug("removed %s from the cache: %d bytes", path.stem, stat.st_size)

    def _remove_damaged(self, path: Path, stat: os.stat_result, fault: str) -> None:
        """Removes a file, unless another process has put a good one in its place by now."""
        _warn_once(f"the cache entry {path} is damaged ({fault}), and is made anew")
        with suppress(OSError):
            if path.stat().st_ino == stat.st_ino:
                path.unlink()


# --------------------------------------------------------------------------- the format


def _packed(key: str, data: bytes, metadata: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The bytes of a file, in pieces."""
    described = json.dumps(dict(metadata), sort_keys=True).encode()
    front = _FRONT.pack(_MAGIC, VERSION, len(described), len(data), digest(data))
    return front, digest(key.encode() + front + described), described, data


def _read(file: BinaryIO, key: str) -> Entry:
    metadata, length, expected = _read_head(file, key)
    data = file.read(length)
    if len(data) != length or digest(data) != expected:
        raise _DamagedError("its data does not pass its checksum")
    return Entry(key, data, metadata)


def _read_head(file: BinaryIO, key: str) -> tuple[dict[str, Any], int, bytes]:
    """The metadata, and the length and digest of the data that comes next."""
    header = file.read(_HEADER)
    if len(header) != _HEADER:
        raise _DamagedError("its header is cut off")
    front, checksum = header[: _FRONT.size], header[_FRONT.size :]
    magic, version, described, length, expected = _FRONT.unpack(front)
    if magic != _MAGIC:
        raise _DamagedError("it does not start like one")
    if version != VERSION:
        raise _DamagedError(f"its format is version {version}, not {VERSION}")
    size = os.fstat(file.fileno()).st_size
    if size != _HEADER + described + length:
        raise _DamagedError(f"it has {size} bytes, not {_HEADER + described + length}")
    text = file.read(described)
    if digest(key.encode() + front + text) != checksum:
        raise _DamagedError("its header does not pass its checksum")
    return json.loads(text), length, expected


def _inspect(path: Path, stat: os.stat_result) -> Info | None:
    """An entry without its data; None where it has gone."""
    key, fault = path.stem, None
    metadata: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            metadata, _, _ = _read_head(file, key)
    except FileNotFoundError:
        return None
    except _DamagedError as damage:
        fault = str(damage)
    return Info(key, stat.st_size, stat.st_mtime, metadata, fault)


# --------------------------------------------------------------------------- the file system


def _lock(file: BinaryIO) -> None:
    """Locks a file until it is closed, or the process ends; where there are no locks, does not."""
    if _fcntl is not None:
        with suppress(OSError):
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)


def _is_abandoned(path: Path, age: float) -> bool:
    """Whether nobody is writing this unfinished file anymore."""
    if _fcntl is None or age >= _ABANDONED:
        return age >= _ABANDONED
    try:
        with path.open("rb") as file:
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError:  # somebody holds it, or it is gone, or there are no locks here
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a rename last, where folders can be synced."""
    with suppress(OSError):  # the entry is there already; only a loss of power could undo it
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"the cache can't be used: {error.strerror}",
            path=path,
            hint="set REWRIGHT_CACHE_DIR to a folder that can be written to",
        ) from error


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        LOG.warning("%s", text)


# --------------------------------------------------------------------------- sizes and the default

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)


def format_size(size: float) -> str:
    """``1.5 GiB``."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def parse_size(text: str) -> int:
    """The bytes that ``10G``, ``1.5 GiB``, ``500MB`` or ``0`` mean; a K is 1024.

    Raises:
        ValueError: it is not written so.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    power = " KMGT".index(found[2].upper() or " ")
    return int(float(found[1]) * 1024**power)


def default_store(environment: Mapping[str, str] = os.environ) -> Store:
    """The store that the environment names, by default in the user's cache folder.

    Raises:
        SettingsError: ``REWRIGHT_CACHE_SIZE`` is no size.
    """
    stated = environment.get("REWRIGHT_CACHE_SIZE", "")
    try:
        limit = parse_size(stated) if stated else DEFAULT_LIMIT
    except ValueError:
        raise SettingsError(
            f"REWRIGHT_CACHE_SIZE is {stated!r}, which is no size",
            setting="REWRIGHT_CACHE_SIZE",
            hint="write 10G, 500M or a number of bytes; 0 turns the cache off",
        ) from None
    named = environment.get("REWRIGHT_CACHE_DIR")
    if named:
        return Store(Path(named).expanduser(), limit)
    try:
        base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        _warn_once("there is no home folder, and nothing is kept: set REWRIGHT_CACHE_DIR")
        return Store(Path(), 0)
    return Store(base / "rewright", limit)
