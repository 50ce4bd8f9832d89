"""A file that keeps how fast kernels were, so that later builds need not time them again.

TensorRT chooses kernels by timing them, which is most of a build's time. What it measured on one
model of GPU is good for other networks there. Whatever goes wrong with the file is a line in the
log: the build times its kernels then.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from rewright.backends.tensorrt.log import LOG

_writing: Final = threading.Lock()


@contextmanager
def timing_cache(config: Any, path: str | None) -> Iterator[None]:
    """A build within the block reads what `path` holds, and adds to it what it measured.

    Args:
        config: TensorRT's configuration of the build.
        path: the file, which need not exist; None: nothing is kept.
    """
    if path is None:
        yield
        return
    file = Path(path).expanduser()
    held = config.create_timing_cache(_read(file))
    if held is None or not config.set_timing_cache(held, False):
        LOG.warning("%s is no timing cache of this TensorRT and GPU: begun anew", file)
        with suppress(OSError):
            file.unlink()
        held = config.create_timing_cache(b"")
        config.set_timing_cache(held, False)
    yield
    with _writing:
        _merge(config, held, file)
        _write(file, bytes(held.serialize()))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        LOG.warning("the timing cache can't be read: %s", error)
        return b""


def _merge(config: Any, held: Any, file: Path) -> None:
    """Adds what others have written meanwhile."""
    data = _read(file)
    other = config.create_timing_cache(data) if data else None
    if other is not None:
        held.combine(other, False)


def _write(file: Path, data: bytes) -> None:
    """Replaces the file at once, so that nobody reads half of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.replace(name, file)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        LOG.warning("the timing cache can't be written: %s", error)
