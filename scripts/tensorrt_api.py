"""Makes tests/backends/tensorrt/api/tables.json: the API of every supported version of TensorRT.

    python scripts/tensorrt_api.py DIR

DIR holds a file for each version, ``tensorrt-11.0.json`` or ``tensorrt_rtx-1.7.1.116.json``, as
read from the binding of that version: for each class its ``members`` (with ``kind`` and
``signature``) and, for an enum, the names under ``enum``. Versions that are not supported are
left out. The table says for each class and member in which versions it is: "*" stands for all.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

TABLES: Final = Path(__file__).parents[1] / "tests/backends/tensorrt/api/tables.json"
OLDEST: Final = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 5)}


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The API of each supported version, by ``package version``, oldest first."""
    found = {}
    for path in folder.glob("*.json"):
        package, version = path.stem.split("-")
        numbers = tuple(map(int, version.split(".")))
        if numbers >= OLDEST[package]:
            found[package, numbers] = json.loads(path.read_text())
    return {f"{p} {'.'.join(map(str, n))}": found[p, n] for p, n in sorted(found)}


def tabulate(versions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One table of all versions."""
    classes: dict[str, dict[str, dict[int, str]]] = {}
    for number, api in enumerate(versions.values()):
        for name, described in api.items():
            members = classes.setdefault(name, {})
            members.setdefault("", {})[number] = ""
            for member in described.get("enum") or ():
                members.setdefault(member, {})[number] = "enum"
            for member, facts in described.get("members", {}).items():
                if not member.startswith("__"):
                    members.setdefault(member, {})[number] = _kind(facts)
    return {
        "versions": list(versions),
        "classes": {
            name: {member: _compact(found, len(versions)) for member, found in sorted(rows.items())}
            for name, rows in sorted(classes.items())
        },
    }


def _kind(facts: Mapping[str, Any]) -> str:
    """``property``, ``property rw``, or the parameters and result of a method."""
    if facts["kind"] == "property":
        return "property rw" if facts.get("writable") else "property"
    texts = facts.get("signature") or ["?"]
    return " | ".join(_signature(text) for text in texts)


def _signature(text: str) -> str:
    """``(input, type) -> IActivationLayer``: names (``=`` marks an optional one) and the result."""
    match = re.search(r"\((.*)\)\s*(?:->\s*(.*))?$", text.strip())
    if match is None:
        return "?"
    depth, parts, current = 0, [], ""
    for char in match[1]:
        depth += (char in "[(") - (char in "])")
        if char == "," and not depth:
            parts.append(current)
            current = ""
        else:
            current += char
    names = [
        re.split(r"[:=]", part.strip())[0].strip() + ("=" if "=" in part else "")
        for part in [*parts, current]
        if part.strip()
    ]
    return f"({', '.join(name for name in names if name != 'self')}) -> {match[2] or '?'}"


def _compact(found: Mapping[int, str], count: int) -> Any:
    """``{text: versions}``; ``*`` for all versions, and the text alone where there is one."""
    by_text: dict[str, list[int]] = {}
    for number, text in found.items():
        by_text.setdefault(text, []).append(number)
    if len(by_text) == 1 and len(found) == count:
        return next(iter(by_text))
    return by_text


def main(arguments: Iterable[str]) -> None:
    """Writes the table."""
    (folder,) = arguments
    table = tabulate(read(Path(folder)))
    TABLES.parent.mkdir(exist_ok=True)
    lines = [f'"versions": {json.dumps(table["versions"])},', '"classes": {']
    rows = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in table["classes"].items()]
    lines += [",\n".join(rows), "}"]
    TABLES.write_text("{" + "\n".join(lines) + "}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
