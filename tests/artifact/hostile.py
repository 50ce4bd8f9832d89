"""Artifacts taken apart and put together again: with other contents, and right checksums."""

import io
import json
import zipfile

from rewright.artifact.container import MANIFEST, Writer
from rewright.artifact.plain import dumps


def members(data: bytes) -> dict[str, bytes]:
    """The members of an artifact, by name, in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def sealed(parts: dict[str, bytes], manifest=None) -> bytes:
    """The artifact with these members, whose checksums are right."""
    parts = dict(parts)
    text = parts.pop(MANIFEST)
    file = io.BytesIO()
    writer = Writer(file)
    digests = {
        name: (len(part), writer.add(name, len(part), [part])) for name, part in parts.items()
    }
    if manifest is None:
        try:
            manifest = json.loads(text)
            for name, (size, digest) in digests.items():
                manifest["members"][name] = {"size": size, "digest": digest}
            text = dumps(manifest)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # then it is as it is
    else:
        text = manifest
    writer.finish(text)
    return file.getvalue()


def changed(data: bytes, edit=None, **parts: bytes) -> bytes:
    """The artifact with another manifest or other members; checksums are right."""
    found = members(data)
    found |= {name.replace("__", "."): part for name, part in parts.items()}
    if edit is not None:
        manifest = json.loads(found[MANIFEST])
        edit(manifest)
        found[MANIFEST] = dumps(manifest)
    return sealed(found)
