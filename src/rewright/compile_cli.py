"""``rewright compile``: an exported program to a saved one."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from rewright.errors import InputError, SettingsError

__all__ = ["main", "parse_inputs", "parse_settings", "parser"]

_SHAPE: Final = re.compile(r"\d+(?:[x,]\d+)*")


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright compile",
        description="Compile what torch.export.save wrote, and save the program, which "
        "rewright.load reads without the model's code.",
        epilog="example: rewright compile bert.pt2 -o bert.rw --input ids=1x8:4x64:8x128 "
        "--set target=rtx --set precision=fp16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("model", metavar="MODEL.pt2", type=Path, help="the exported program")
    made.add_argument(
        "-o", "--output", metavar="OUT.rw", type=Path, required=True, help="the file to write"
    )
    made.add_argument(
        "--input", metavar="NAME=MIN:OPT:MAX", action="append", default=[],
        help="the shapes that an input may have: x=1x8:4x64:8x128; one shape fixes it; several "
        "for one input are several ranges",
    )  # fmt: skip
    made.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[],
        help="a setting; `rewright settings` lists them",
    )  # fmt: skip
    made.add_argument(
        "--no-sources", action="store_true",
        help="leave out weights that were only prepared: smaller, and can't be refitted",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="write the report as JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright compile``; returns the exit status."""
    from rich.console import Console

    options = _parsed(argv)
    settings, inputs = parse_settings(options.set), parse_inputs(options.input)
    if not options.output.resolve().parent.is_dir():
        raise InputError(
            "there is no folder to write to", where=options.output.parent, hint="make it first"
        )
    start = time.perf_counter()
    with Console(stderr=True).status(f"loading {options.model} ...") as status:
        exported = _load(options.model)
        status.update("compiling ...")
        import rewright

        program = rewright.compile_exported(exported, inputs or None, **settings)
        status.update(f"writing {options.output} ...")
        program.save(options.output, sources=not options.no_sources)
    seconds = time.perf_counter() - start
    if options.json:
        made = {
            "file": str(options.output),
            "bytes": options.output.stat().st_size,
            "seconds": seconds,
        }
        sys.stdout.write(
            json.dumps({**made, "report": program.report().to_json()}, indent=2) + "\n"
        )
    else:
        from rewright.store import format_size

        program.report().show()
        size = format_size(options.output.stat().st_size)
        sys.stdout.write(f"wrote {options.output}: {size}, in {seconds:.1f} s\n")
    return 0


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; a setting that is given like an option exits with how to give it."""
    from rewright.settings import Settings

    made = parser()
    names = {row.name for row in Settings.describe()}
    for item in argv:
        name = item.partition("=")[0].removeprefix("--").replace("-", "_")
        if item.startswith("--") and name in names:
            made.error(f"{name} is a setting, not an option: --set {name}=VALUE")
    return made.parse_args(argv)


def _load(path: Path) -> Any:
    """What ``torch.export.save`` wrote to `path`.

    Raises:
        InputError: there is no such file, or it is not one.
    """
    import torch

    from rewright.frontends.export_log import torch_log_kept

    if not path.is_file():
        raise InputError("there is no such file", where=path, hint=_EXPORT)
    try:
        with torch_log_kept():
            return torch.export.load(path)
    except Exception as error:  # torch raises of every kind on what it can't read
        said = (str(error).splitlines() or [""])[0]
        if path.suffix == ".rw":
            raise InputError(
                "this is no exported program, but, by its name, a compiled one",
                where=path, hint="rewright inspect shows what is in it, rewright run calls it",
            ) from error  # fmt: skip
        raise InputError(
            f"the file is no exported program that torch {torch.__version__} can read: {said}",
            where=path, hint=_EXPORT,
        ) from error  # fmt: skip


_EXPORT: Final = "torch.export.save(torch.export.export(model, args), 'model.pt2') writes one"


def parse_inputs(texts: Iterable[str]) -> list[Any]:
    """The inputs that ``name=min:opt:max`` describe, each an Input or a list of them.

    Raises:
        InputError: a text is not written so.
    """
    from rewright.frontends.inputs import Input

    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, shapes = text.partition("=")
        given = shapes.split(":")
        if (
            not (name and equals)
            or len(given) not in (1, 3)
            or not all(map(_SHAPE.fullmatch, given))
        ):
            raise InputError(
                f"{text!r} does not describe an input",
                where="--input",
                hint="write name=1x8:4x64:8x128 for the least, the typical and the largest shape, "
                "or name=4x64 for a fixed one",
            )
        least, *more = (tuple(int(size) for size in re.split("[x,]", shape)) for shape in given)
        opt, most = more or (None, None)
        found.setdefault(name, []).append(Input(least, opt=opt, max=most, name=name))
    return [items[0] if len(items) == 1 else items for items in found.values()]


_WORDS: Final = {"true": True, "false": False, "none": None, "on": "on", "off": "off"}


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The settings that ``key=value`` give: numbers, true, false, none, Python's lists, else text.

    Raises:
        SettingsError: a text is not written so, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not (key and equals) or key in found:
            raise SettingsError(
                f"{text!r} does not set anything" if key not in found else f"{key} is given twice",
                setting=key or None,
                where="--set",
                hint="write --set key=value; `rewright settings` lists the keys",
            )
        found[key] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
