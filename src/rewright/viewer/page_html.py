"""The page: the template with its style, its scripts and its data put in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

__all__ = ["embedded", "page"]

SCRIPTS: Final = (
    "ir",
    "diff",
    "layout",
    "grouping",
    "drawing",
    "lists",
    "inspector",
    "panels",
    "app",
)
"""The scripts, in the order in which they build on each other."""


def page(data: Mapping[str, Any]) -> str:
    """The page of what :func:`rewright.viewer.data.collect` gives; it needs no network."""
    parts = {
        "TITLE": escape(f"{data['title']} – Rewright"),
        "STYLE": _resource("style.css"),
        "DATA": embedded(data),
        "SCRIPT": "\n".join(_resource(f"{name}.js") for name in SCRIPTS),
    }
    start, *rest = _resource("page.html").split("{{")
    pieces = [start]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [parts[name], after]
    return "".join(pieces)


def embedded(data: Mapping[str, Any]) -> str:
    """`data` as JSON that may stand in a script element: nothing in it ends or opens a tag."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _resource(name: str) -> str:
    return (files("rewright.viewer") / "page" / name).read_text(encoding="utf-8")
