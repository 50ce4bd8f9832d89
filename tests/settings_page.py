"""docs/SETTINGS.md, made from the declarations in ``rewright.settings``.

python -m tests.settings_page > docs/SETTINGS.md
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Iterator

import attrs

from rewright.settings import _MODES, Settings

_HEAD = """\
# Settings

Made by `python -m tests.settings_page`; a test keeps it up to date. `rewright settings` prints the
same. Each can be given in four ways:

| way | as |
|---|---|
| ahead of time | a keyword: `rewright.compile(model, args, optimization_level=3)` |
| just in time | `torch.compile(model, backend="rewright", options={"optimization_level": 3})` |
| command line | `rewright compile model.pt2 -o model.rw --set optimization_level=3` |
| environment | only those that say so below; it is asked for what a compile leaves at its default |

An unknown name, an illegal value, and settings that contradict each other are errors: nothing is
ignored.

## Modes

`mode` of `torch.compile` stands for these settings:

| mode | settings |
|---|---|
"""

ENVIRONMENT = {
    "REWRIGHT_BISECT": "How many passes and rewrites a process may do; `rewright bisect` sets it.",
    "REWRIGHT_CACHE_DIR": "The folder that keeps what was built; `rewright cache` lists it.",
    "REWRIGHT_CACHE_SIZE": "The most bytes that it keeps, as in `8G`; `0` switches it off.",
}
"""Variables of the environment that are no settings of one compile."""


def settings_page() -> str:
    """The whole page."""
    return "\n".join(_lines()).rstrip("\n") + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD.rstrip("\n")
    for mode in _MODES:
        chosen = Settings.from_mode(mode)
        filters = [field for field in attrs.fields(Settings) if _is_set(field, chosen)]
        given = ", ".join(f"{field.name}={getattr(chosen, field.name)!r}" for field in filters)
        yield f"| `{mode}` | {f'`{given}`' if given else 'the defaults'} |"
    yield "\n## All settings\n"
    types = {field.name: field.type for field in attrs.fields(Settings)}
    for row in Settings.describe():
        yield f"### {row.name}\n"
        text, variable = _without_variable(row.doc)
        yield text + "\n"
        yield f"* type: `{_type(types[row.name])}`"
        yield f"* default: `{row.default}`"
        yield f"* legal: {row.legal}"
        if variable:
            yield f"* environment: `{variable}`"
        yield ""
    yield "## Elsewhere in the environment\n"
    yield "| variable | what it does |"
    yield "|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items())


def _is_set(field: attrs.Attribute, chosen: Settings) -> bool:
    return getattr(chosen, field.name) != field.default


def _without_variable(doc: str) -> tuple[str, str]:
    """The text, and the variable of the environment that its last sentence names."""
    match = re.fullmatch(r"(.*) Also (REWRIGHT_\w+(?:=1)?)\.", doc)
    return (match[1], match[2]) if match else (doc, "")


def _type(declared: object) -> str:
    if typing.get_origin(declared) is typing.Literal:
        return "str"
    return declared.__name__ if isinstance(declared, type) else str(declared).replace("typing.", "")


if __name__ == "__main__":
    sys.stdout.write(settings_page())
