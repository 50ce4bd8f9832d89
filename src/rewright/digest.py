"""Digests of large memory: SHA-256 over the SHA-256 of chunks, several threads at a time.

SHA-256 has instructions of its own in today's processors, and is two to three times faster there
than BLAKE2; hashlib lets go of Python's lock meanwhile, so threads add up. The chunks have a fixed
size, so that a digest depends on the bytes only, not on how many threads there are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, TypeAlias

__all__ = ["CHUNK", "Digester", "Read", "digest", "digests"]

CHUNK: Final = 8 << 20
"""Bytes of a chunk."""

Read: TypeAlias = Callable[[int, int], Any]
"""Gives the bytes from one offset up to another, as anything with a buffer. Called by threads."""


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """The digest of `data`: 32 bytes."""
    view = memoryview(data)
    return digests([(view.nbytes, lambda start, stop: view[start:stop])])[0]


def digests(sources: Sequence[tuple[int, Read]]) -> list[bytes]:
    """The digest of each source, all of them read by the same few threads.

    Args:
        sources: the number of bytes of each, and what reads them.
    """
    tasks = [
        (read, start, min(start + CHUNK, length))
        for length, read in sources
        for start in range(0, length, CHUNK)
    ]
    workers = min(_cores(), len(tasks))
    if workers < 2 or sum(length for length, _ in sources) < 2 * CHUNK:
        leaves = iter([_leaf(task) for task in tasks])
    else:
        with ThreadPoolExecutor(workers, "rewright-digest") as pool:
            leaves = iter(list(pool.map(_leaf, tasks)))
    return [_root(length, islice(leaves, -(-length // CHUNK))) for length, _ in sources]


class Digester:
    """The digest of bytes that come in pieces, of any sizes."""

    def __init__(self) -> None:
        self._length = 0
        self._leaves: list[bytes] = []
        self._leaf = hashlib.sha256()

    def update(self, piece: bytes | memoryview) -> None:
        """Adds a piece."""
        view = memoryview(piece).cast("B")
        while len(view):
            space = CHUNK - self._length % CHUNK
            part, view = view[:space], view[space:]
            self._leaf.update(part)
            self._length += len(part)
            if self._length % CHUNK == 0:
                self._leaves.append(self._leaf.digest())
                self._leaf = hashlib.sha256()

    def digest(self) -> bytes:
        """The digest of all pieces so far: 32 bytes."""
        last = [self._leaf.digest()] if self._length % CHUNK else []
        return _root(self._length, iter([*self._leaves, *last]))


def _leaf(task: tuple[Read, int, int]) -> bytes:
    read, start, stop = task
    return hashlib.sha256(read(start, stop)).digest()


def _root(length: int, leaves: Iterator[bytes]) -> bytes:
    return hashlib.sha256(length.to_bytes(8, "little") + b"".join(leaves)).digest()


def _cores() -> int:
    """The cores that this process may use; more than eight add nothing, as memory is the limit."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 8)
    return min(os.cpu_count() or 1, 8)
