"""Tokens of the IR's text, and the cursor that parsers read them with.

A token never spans lines. Comments run from ``#`` to the end of the line; they are kept apart,
by line, as the one that ends a node's line gives the node's location.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from rewright.errors import ParseError

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\f]+)
  | (?P<comment>\#.*)
  | (?P<value>%\w+(?:\.\w+)*)
  | (?P<constant>@(?:\w+(?:\.\w+)*|"(?:[^"\\]|\\.)*"))
  | (?P<region>\^(?:\w+(?:\.\w+)*|"(?:[^"\\]|\\.)*"))
  | (?P<object>object<[^<>]*>)
  | (?P<word>[A-Za-z_]\w*(?:\.\w+)*)
  | (?P<float>\d+\.(?!\.)\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
  | (?P<int>\d+)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<sign>\|>|->|\.\.|//|\*\*|==|!=|<=|>=|[-+*/<>(){}\[\],:=])
  | (?P<bad>.)
    """,
    re.VERBOSE | re.ASCII,
)

_KINDS: Final = {
    "value": "a value (%x)",
    "constant": "a constant (@name)",
    "region": "a region (^name)",
    "word": "a word",
    "int": "an integer",
    "string": 'a string ("...")',
}
"""How errors speak of the kinds of token."""


class Token(NamedTuple):
    """A piece of text: its kind (a group of the pattern, or ``end``), and where it stands."""

    kind: str
    text: str
    line: int
    column: int

    @property
    def end(self) -> int:
        """The column right after it."""
        return self.column + len(self.text)


class Tokens:
    """The tokens of a text, and the place up to which they have been read."""

    def __init__(self, text: str, filename: str | None = None) -> None:
        self.filename = filename
        self.lines = text.split("\n")
        self.comments: dict[int, Token] = {}
        self.at = 0
        self._tokens: list[Token] = []
        for number, line in enumerate(self.lines, 1):
            self._scan(line, number)
        last = max((n for n, line in enumerate(self.lines, 1) if line.strip()), default=1)
        end = Token("end", "", last, len(self.lines[last - 1].rstrip()) + 1)
        self._tokens += [end] * 3  # so that looking ahead needs no check

    def _scan(self, line: str, number: int) -> None:
        for found in _TOKEN.finditer(line):
            kind = found.lastgroup
            if kind == "space":
                continue
            assert kind is not None
            token = Token(kind, found.group(), number, found.start() + 1)
            if kind == "comment":
                self.comments[number] = token
            else:
                self._tokens.append(token)

    # -- reading

    @property
    def next(self) -> Token:
        """The token that is read next; its kind is ``end`` after the last."""
        return self._tokens[self.at]

    @property
    def after_next(self) -> Token:
        """The token after the next."""
        return self._tokens[self.at + 1]

    @property
    def last(self) -> Token:
        """The token that was read last."""
        return self._tokens[self.at - 1]

    def take(self) -> Token:
        """Reads the next token, whatever it is."""
        token = self._tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Reads the next token if it is spelled `text`."""
        if self._tokens[self.at].text == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str, why: str = "") -> Token:
        """Reads the next token, which must be spelled `text`.

        Raises:
            ParseError: it is not; `why` says more, ``to close ...``.
        """
        if self._tokens[self.at].text != text:
            raise self.unexpected(f"{text!r}{why and ' '}{why}")
        return self.take()

    def expect_kind(self, kind: str, what: str = "") -> Token:
        """Reads the next token, which must be of `kind`.

        Raises:
            ParseError: it is not; `what` says what was expected instead of the kind's own name.
        """
        if self._tokens[self.at].kind != kind:
            raise self.unexpected(what or _KINDS[kind])
        return self.take()

    # -- errors

    def error(
        self, message: str, token: Token | None = None, hint: str | None = None
    ) -> ParseError:
        """An error at `token`, or at the next one."""
        token = token or self.next
        return ParseError(
            message,
            file=self.filename,
            line=token.line,
            column=token.column,
            source=self.lines[token.line - 1],
            hint=hint,
        )

    def unexpected(self, expected: str) -> ParseError:
        """An error: the next token is not what was `expected`."""
        token = self.next
        if token.kind == "bad" and token.text == '"':
            return self.error("this string is not closed on its line")
        found = "the end of the text" if token.kind == "end" else repr(token.text)
        return self.error(f"expected {expected}, found {found}")
