"""The manifest of an artifact: read, and checked as far as every reader relies on it.

Nothing here imports torch: ``rewright inspect`` reads no more than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rewright.artifact.container import MANIFEST, Container, damaged
from rewright.artifact.plain import loads

_FIELDS: Final[Mapping[str, type]] = {
    "format": int,
    "producer": dict,
    "members": dict,
    "settings": dict,
    "signature": dict,
    "constants": dict,
    "left_out": list,
    "engines": list,
    "reports": dict,
    "operators": list,
    "summary": dict,
}

_NEEDED: Final = (
    "program.ir",
    "weights.safetensors",
    "prepared.safetensors",
    "sources.safetensors",
)


def read_manifest(container: Container) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        ArtifactError: it is not well formed, or speaks of other members than there are.
    """
    path = container.path
    try:
        made = loads(container.manifest)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its manifest can't be read: {error}") from error
    if not isinstance(made, dict) or made.keys() != _FIELDS.keys():
        raise damaged(path, "its manifest does not have the fields of one")
    for name, kind in _FIELDS.items():
        if not isinstance(made[name], kind):
            raise damaged(path, f"{name} in its manifest is no {kind.__name__}")
    stated = {name: item.get("size") for name, item in made["members"].items() if _is_member(item)}
    found = {m.name: m.size for m in container.members.values() if m.name != MANIFEST}
    if stated != found or len(stated) != len(made["members"]):
        raise damaged(path, "its members are not those of its manifest")
    if missing := [name for name in _NEEDED if name not in found]:
        raise damaged(path, f"{missing[0]} is missing")
    return made


def _is_member(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("digest"), str)
