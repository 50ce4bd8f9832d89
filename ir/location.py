"""Where a node comes from: the user's line, the module path, and the rules that made it."""

from __future__ import annotations

import json
import re
from typing import Final

import attrs

_BARE: Final = re.compile(r"[^\s\"():,]+")


@attrs.frozen
class Location:
    """A line of the user's source.

    Attributes:
        file: path as it should be shown (``model.py``, ``transformers/models/bert/...``).
        line: from 1; 0 when unknown.
        module: path of the module whose forward ran the line, ``layers.3.attn``.
        rules: names of the rules that made the node, the first one first.
    """

    file: str = ""
    line: int = 0
    module: str = ""
    rules: tuple[str, ...] = ()

    def made_by(self, rule: str) -> Location:
        """This location with `rule` added to the rules, once."""
        return self if rule in self.rules else attrs.evolve(self, rules=(*self.rules, rule))

    def __str__(self) -> str:
        """``model.py:41 (layers.3.attn) by merge-projections``, without what is unknown."""
        parts = []
        if self.file:
            parts.append(f"{_quote(self.file)}:{self.line}")
        if self.module:
            parts.append(f"({_quote(self.module)})")
        if self.rules:
            parts.append(f"by {', '.join(_quote(rule) for rule in self.rules)}")
        return " ".join(parts)

    @classmethod
    def parse(cls, text: str) -> Location:
        """The location that prints as `text`.

        Raises:
            ValueError: `text` is no location.
        """
        found = _LOCATION.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"not a location: {text!r}")
        rules = tuple(_unquote(rule) for rule in _NAME.findall(found["rules"] or ""))
        return cls(
            _unquote(found["file"] or ""),
            int(found["line"] or 0),
            _unquote(found["module"] or ""),
            rules,
        )


_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_WORD: Final = rf'(?:{_QUOTED}|[^\s"():,]+)'
_NAME: Final = re.compile(_WORD)
_LOCATION: Final = re.compile(
    rf"(?:(?P<file>{_WORD}):(?P<line>\d+))?\s*(?:\((?P<module>{_WORD})\))?\s*"
    rf"(?:by (?P<rules>{_WORD}(?:, {_WORD})*))?"
)


def _quote(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _unquote(text: str) -> str:
    return json.loads(text) if text.startswith('"') else text
