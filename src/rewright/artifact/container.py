"""The zip of an artifact: stored members, aligned, and laid out in one way only.

A file is read as strictly as it is written: from the names, sizes and checksums in its directory
every header is made again, and must be the very bytes that the file has. So members can't
overlap, hide, repeat or leave gaps, and nothing has a second meaning to another reader. Any
zip tool reads these files; what one writes is refused. Nothing is ever extracted.

    member := local header, padded so that its data starts at a multiple of 64; data
    file   := member... directory end64 locator end
    end    := the end record of a zip, with the comment of :data:`_COMMENT`

Times are zero, and sizes always in the 64-bit fields: equal contents are equal bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import attrs

from rewright.digest import Digester, Read, digests
from rewright.errors import ArtifactError

FORMAT: Final = 1
"""The version of the format. A reader takes its own and older ones."""

ALIGNMENT: Final = 64
"""Data of members starts at multiples of this: what vector instructions and math libraries like."""

MANIFEST: Final = "manifest.json"

MOST_MANIFEST: Final = 256 << 20
"""The most bytes of a manifest; one of a program with 100,000 constants has a tenth of it."""

_NAME: Final = re.compile(
    r"manifest\.json|program\.ir|(weights|prepared|sources)\.safetensors|engines/\d{4}\.engine"
)
"""The members that there may be."""

_COMMENT: Final = re.compile(rb"rewright artifact (\d{4}) manifest sha256 ([0-9a-f]{64})")
_COMMENT_SIZE: Final = len(b"rewright artifact 0001 manifest sha256 ") + 64

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END: Final = struct.Struct("<4s4H2LH")

_FIRST: Final = b"program.ir"  # the member that every artifact begins with
_VERSION: Final = 45  # of the zip format: the first with 64-bit sizes
_DATE: Final = 0x21  # 1980-01-01, the first that a zip can say
_IN_EXTRA: Final = 0xFFFFFFFF
_ZIP64: Final = 1
_PADDING: Final = 0xD935  # the field that Android's zipalign pads with

_TAIL: Final = _END64.size + _LOCATOR.size + _END.size + _COMMENT_SIZE


@attrs.frozen
class Member:
    """A member of an artifact.

    Attributes:
        name: in the zip.
        offset: of its data, from the start of the file.
        size: of its data.
        crc: CRC-32 of its data, which is there for other readers: a zip has it.
    """

    name: str
    offset: int
    size: int
    crc: int


def damaged(path: object, what: str) -> ArtifactError:
    """The error for a file that is not as it was written."""
    return ArtifactError(
        f"the artifact is damaged: {what}",
        path=path,
        hint="copy it again, or save the program again",
    )


# --------------------------------------------------------------------------- headers


def _local(name: str, size: int, crc: int, start: int) -> bytes:
    """The local header at `start`, padded so that the data behind it is aligned."""
    stated = struct.pack("<2H2Q", _ZIP64, 16, size, size)
    bare = start + _LOCAL.size + len(name) + len(stated) + 4
    padding = -bare % ALIGNMENT
    extra = stated + struct.pack("<2H", _PADDING, padding) + bytes(padding)
    fixed = _LOCAL.pack(
        *(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, _IN_EXTRA, _IN_EXTRA),
        *(len(name), len(extra)),
    )
    return fixed + name.encode("ascii") + extra


def _central(name: str, size: int, crc: int, start: int) -> bytes:
    extra = struct.pack("<2H3Q", _ZIP64, 24, size, size, start)
    fixed = _CENTRAL.pack(
        *(b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, crc, _IN_EXTRA, _IN_EXTRA),
        *(len(name), len(extra), 0, 0, 0, 0, _IN_EXTRA),
    )
    return fixed + name.encode("ascii") + extra


def _tail(count: int, size: int, start: int, manifest: str, version: int = FORMAT) -> bytes:
    """All that follows the directory."""
    comment = b"rewright artifact %04d manifest sha256 %s" % (version, manifest.encode("ascii"))
    return b"".join(
        (
            _END64.pack(
                *(b"PK\6\6", _END64.size - 12, _VERSION, _VERSION, 0, 0),
                *(count, count, size, start),
            ),
            _LOCATOR.pack(b"PK\6\7", 0, start + size, 1),
            _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA, len(comment)),
            comment,
        )
    )


# --------------------------------------------------------------------------- writing


class Writer:
    """Writes an artifact to a file that is open for writing, from its start."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._entries: list[bytes] = []

    def add(self, name: str, size: int, pieces: Iterable[bytes | memoryview]) -> str:
        """Writes a member of `size` bytes, which come in pieces; gives its digest."""
        start, crc, count, total = self._at, 0, 0, Digester()
        head = _local(name, size, 0, start)
        self._file.write(head)
        with ThreadPoolExecutor(1, "rewright-digest") as pool:
            for piece in pieces:  # hashing lets go of Python's lock, and takes as long as the rest
                hashed = pool.submit(total.update, piece)
                crc = zlib.crc32(piece, crc)
                count += self._file.write(piece)
                hashed.result()
        if count != size:
            raise ValueError(f"{name} has {count} bytes, and was said to have {size}")
        self._file.seek(start)
        self._file.write(_local(name, size, crc, start))
        self._at = start + len(head) + size
        self._file.seek(self._at)
        self._entries.append(_central(name, size, crc, start))
        return total.digest().hex()

    def finish(self, manifest: bytes) -> None:
        """Writes the manifest, which is the last member, and the directory."""
        self.add(MANIFEST, len(manifest), [manifest])
        directory = b"".join(self._entries)
        self._file.write(directory)
        checksum = hashlib.sha256(manifest).hexdigest()
        self._file.write(_tail(len(self._entries), len(directory), self._at, checksum))


# --------------------------------------------------------------------------- reading


@attrs.frozen
class Container:
    """An artifact that is open for reading.

    Attributes:
        path: what errors call it.
        file: the file.
        members: by name.
        manifest: the bytes of the manifest, which pass their checksum.
    """

    path: str
    file: BinaryIO
    members: dict[str, Member]
    manifest: bytes

    def read(self, name: str) -> bytes:
        """All of a member."""
        member = self.members[name]
        return _read(self.file, member.offset, member.size, self.path)

    def read_part(self, name: str, start: int, size: int) -> bytes:
        """As much of a part of a member as there is in the file."""
        return _read_at(self.file, self.members[name].offset + start, size)

    def digests(self, names: Sequence[str]) -> list[str]:
        """The digests of members, as :mod:`rewright.digest` computes them: hexadecimal."""
        members = [self.members[name] for name in names]
        return [found.hex() for found in digests([(m.size, self._reader(m)) for m in members])]

    def _reader(self, member: Member) -> Read:
        def read(start: int, stop: int) -> bytes:
            return _read_at(self.file, member.offset + start, stop - start)

        return read


def open_container(path: str, file: BinaryIO) -> Container:
    """Reads the directory and the manifest of an artifact.

    Args:
        path: what errors call it.
        file: it, open for reading.

    Raises:
        ArtifactError: it is none, of a newer format, truncated, or changed.
    """
    size = file.seek(0, 2)
    if size < _TAIL:
        raise _no_artifact(path, file)
    tail = _read(file, size - _TAIL, _TAIL, path)
    stated = _COMMENT.fullmatch(tail[-_COMMENT_SIZE:])
    if stated is None or tail[-_COMMENT_SIZE - _END.size :][:4] != b"PK\5\6":
        raise _no_artifact(path, file)
    version = int(stated[1])
    if version > FORMAT:
        raise ArtifactError(
            f"the artifact has format {version}, and this Rewright reads up to {FORMAT}",
            path=path,
            hint="load it with a newer Rewright",
        )
    *_, count, _, length, start = _END64.unpack_from(tail)
    if version < 1 or start + length + _TAIL != size:
        raise damaged(path, "its directory is not where it should be")
    if length > count * (_CENTRAL.size + 28 + 255):
        raise damaged(path, "its directory has an absurd size")
    manifest = stated[2].decode()
    if tail != _tail(count, length, start, manifest, version):
        raise damaged(path, "its end is not as it was written")
    members = _members(_read(file, start, length, path), path)
    if len(members) != count:
        raise damaged(path, f"it has {len(members)} members, and says {count}")
    _check_headers(members, file, start, path)
    return Container(path, file, members, _manifest(members, file, manifest, path))


def _no_artifact(path: str, file: BinaryIO) -> ArtifactError:
    file.seek(0)
    start = file.read(_LOCAL.size + len(_FIRST))
    if start.startswith(b"PK\3\4"):
        if start.endswith(_FIRST):
            return damaged(path, "its end is missing or was changed")
        return ArtifactError(
            "this is a zip file, and no artifact of Rewright",
            path=path,
            hint="a .pt2 has to be compiled first: rewright compile model.pt2 -o model.rw; "
            "torch.jit.load reads TorchScript, torch.load a .pt",
        )
    return ArtifactError(
        "this is no artifact of Rewright", path=path, hint="program.save(path) writes one"
    )


def _members(directory: bytes, path: str) -> dict[str, Member]:
    """The members that a directory lists; their offsets are where their headers start, so far."""
    members: dict[str, Member] = {}
    at = 0
    while at < len(directory):
        try:
            fields = _CENTRAL.unpack_from(directory, at)
            crc, length = fields[7], fields[10]
            name = directory[at + _CENTRAL.size :][:length].decode("ascii")
            size, _, start = struct.unpack_from("<3Q", directory, at + _CENTRAL.size + length + 4)
        except (struct.error, UnicodeDecodeError):
            raise damaged(path, "its directory can't be read") from None
        if not _NAME.fullmatch(name) or name in members:
            raise damaged(path, f"it has a member {name[:80]!r} that should not be there")
        entry = _central(name, size, crc, start)
        if directory[at : at + len(entry)] != entry:
            raise damaged(path, f"the entry of {name} is not as it was written")
        members[name] = Member(name, start, size, crc)
        at += len(entry)
    return members


def _check_headers(members: dict[str, Member], file: BinaryIO, end: int, path: str) -> None:
    """Whether the members fill the file up to `end`; makes their offsets those of their data."""
    at = 0
    for name, member in members.items():
        head = _local(name, member.size, member.crc, at)
        if member.offset != at or at + len(head) + member.size > end:
            raise damaged(path, f"{name} is not where it should be")
        if _read(file, at, len(head), path) != head:
            raise damaged(path, f"the header of {name} is not as it was written")
        members[name] = attrs.evolve(member, offset=at + len(head))
        at += len(head) + member.size
    if at != end:
        raise damaged(path, "there is something between its members")


def _manifest(members: dict[str, Member], file: BinaryIO, checksum: str, path: str) -> bytes:
    member = members.get(MANIFEST)
    if member is None or member.size > MOST_MANIFEST:
        raise damaged(path, "it has no manifest, or one of an absurd size")
    data = _read(file, member.offset, member.size, path)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise damaged(path, "its manifest does not pass its checksum")
    return data


def _read(file: BinaryIO, start: int, size: int, path: str) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise damaged(path, "it ends too early")
    return data


_lock: Final = threading.Lock()


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """As many bytes as there are, for several threads: a file has but one position."""
    if hasattr(os, "pread"):
        pieces = []
        while size and (piece := os.pread(file.fileno(), size, start)):
            pieces.append(piece)
            start, size = start + len(piece), size - len(piece)
        return b"".join(pieces)
    with _lock:
        file.seek(start)
        return file.read(size)
