"""``rewright inspect FILE``: what a saved program holds, from its manifest alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewright.artifact.container import open_container
from rewright.artifact.manifest import read_manifest
from rewright.artifact.parts import PARTS, decode_parts, encode_parts, rows
from rewright.errors import ArtifactError
from rewright.store import format_size

__all__ = ["describe", "main"]


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright inspect",
        description="Show what is in a saved program. Reads its manifest only: no weights, no "
        "engines, no torch.",
        epilog="parts, as report() counts them, too:\n"
        + "".join(f"  {name:<10} {meaning}\n" for name, meaning in PARTS.items())
        + "\nexample: rewright inspect bert.rw --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", help="what program.save() wrote")
    made.add_argument("--json", action="store_true", help="write JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright inspect``; returns the exit status."""
    options = parser().parse_args(argv)
    described = describe(options.file)
    if options.json:
        sys.stdout.write(json.dumps(described, indent=2) + "\n")
    else:
        _show(described)
    return 0


def describe(path: str) -> dict[str, Any]:
    """What is in the artifact at `path`, as plain data.

    Raises:
        ArtifactError: it is none, or its directory or manifest is damaged.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise ArtifactError(
            f"the artifact can't be opened: {error.strerror or error}", path=path
        ) from error
    with file:
        container = open_container(path, file)
        manifest = read_manifest(container)
        size = os.fstat(file.fileno()).st_size
    try:
        return _described(manifest, size)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"the artifact is damaged: its manifest is not that of a program ({error})", path=path
        ) from error


def _described(manifest: Mapping[str, Any], size: int) -> dict[str, Any]:
    summary, signature = manifest["summary"], manifest["signature"]
    names = {a["input"]: a["name"] for a in signature["arguments"] if a["input"] is not None}
    inputs = [[names.get(n, name), kind] for n, (name, kind) in enumerate(summary["inputs"])]
    return {
        "format": manifest["format"],
        "producer": manifest["producer"],
        "program": summary["name"],
        "device": summary["device"],
        "inputs": [{"name": str(name), "type": str(kind)} for name, kind in inputs],
        "outputs": [str(kind) for kind in summary["outputs"]],
        "writebacks": summary["writebacks"],
        "sizes": {str(s): [str(r) for r in ranges] for s, ranges in summary["symbols"].items()},
        "settings": manifest["settings"],
        "parts": encode_parts(decode_parts(summary["parts"])),
        "file": size,
        "engines": [
            {
                "segment": item["segment"],
                "library": item["engine"]["library"],
                "layers": item["engine"]["layers"],
                "bytes": manifest["members"][item["member"]]["size"],
            }
            for item in manifest["engines"]
        ],
        "operators": [str(name) for name in manifest["operators"]],
        "members": manifest["members"],
    }


def _rows(made: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    producer = made["producer"]
    libraries = "".join(f", {name}" for name in producer.get("tensorrt", ()))
    yield "program", f"{made['program']} on {made['device']}"
    yield "made by", f"rewright {producer['rewright']}, torch {producer['torch']}{libraries}"
    yield "format", str(made["format"])
    for at, item in enumerate(made["inputs"]):
        yield "" if at else "inputs", f"{item['name']}: {item['type']}"
    for at, kind in enumerate(made["outputs"]):
        yield "" if at else "outputs", kind
    for at, (symbol, ranges) in enumerate(made["sizes"].items()):
        yield "" if at else "sizes", f"{symbol} in {{{' | '.join(ranges)}}}"
    if made["writebacks"]:
        yield "write-backs", str(made["writebacks"])
    yield from rows(decode_parts(made["parts"]))
    yield "file", format_size(made["file"])
    for at, engine in enumerate(made["engines"]):
        text = f"{engine['segment']}: {engine['layers']} layers, {format_size(engine['bytes'])}"
        yield "" if at else "engine of", f"{text}, {engine['library']}"
    for at, (name, value) in enumerate(made["settings"].items()):
        yield "" if at else "settings", f"{name} = {json.dumps(value)}"
    yield "operators", f"{len(made['operators'])} kinds"


def _show(made: Mapping[str, Any]) -> None:
    """A table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        for label, text in _rows(made):
            sys.stdout.write(f"{label:<12} {_printable(text)}\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for label, text in _rows(made):
        table.add_row(Text(label, style="bold"), Text(_printable(text)))
    Console().print(table)


def _printable(text: str) -> str:
    """`text` without what a terminal would take as a command: a file may say anything."""
    return "".join(c if c.isprintable() else "?" for c in text)
