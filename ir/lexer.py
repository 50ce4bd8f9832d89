"""Tokens of the IR's text, and the cursor that parsers read them with.

A token never spans lines. Comments run from ``#`` to the end of the line; they are kept apart,
by line, as the one that ends a node's line gives the node's location.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from rewright.errors import ParseError

_TOKEN: Final = re.compile(
    r"""
    [ \t\r\f]*
    (?: (?P<value>%\w+)
    |   (?P<sign>\|>|->|\.\.|//|\*\*|==|!=|<=|>=|[-+*/<>(){}\[\],:=])
    |   (?P<float>\d+\.(?!\.)\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |   (?P<int>\d+)
    |   (?P<object>object<[^<>]*>)
    |   (?P<word>[A-Za-z_]\w*(?:\.\w+)*)
    |   (?P<constant>@(?:\w+(?:\.\w+)*|"(?:[^"\\]|\\.)*"))
    |   (?P<comment>\#.*)
    |   (?P<string>"(?:[^"\\]|\\.)*")
    |   (?P<region>\^(?:\w+(?:\.\w+)*|"(?:[^"\\]|\\.)*"))
    |   (?P<bad>[^ \t\r\f])
    )
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
    """The tokens of a text, and the place up to which they have been read.

    Lines are cut into tokens when they are come to, and :meth:`forget` lets go of what was read,
    so that a long text is never held as a million tokens.

    Attributes:
        filename: where the text comes from, for errors.
        lines: the lines of the text.
        comments: the comments that end lines, by the number of the line.
        known: what has been read from pieces of the text, by their spelling.
        at: the number of the next token; assign an earlier one to read again from there.
    """

    def __init__(self, text: str, filename: str | None = None) -> None:
        self.filename = filename
        self.lines = text.split("\n")
        self.comments: dict[int, Token] = {}
        self.known: dict[tuple[str, ...], Any] = {}
        self.at = 0
        self._tokens: list[Token] = []
        self._scanned = 0

    def _scan(self) -> None:
        """Adds the tokens of the next line that has any, or an ``end``."""
        before = len(self._tokens)
        while len(self._tokens) == before:
            if self._scanned == len(self.lines):
                self._tokens.append(self._end())
                return
            line = self.lines[self._scanned]
            self._scanned += 1
            for found in _TOKEN.finditer(line):
                kind = found.lastgroup
                assert kind is not None
                token = Token(kind, found[kind], self._scanned, found.start(kind) + 1)
                if kind == "comment":
                    self.comments[self._scanned] = token
                else:
                    self._tokens.append(token)

    def _end(self) -> Token:
        number = max((n for n, line in enumerate(self.lines, 1) if line.strip()), default=1)
        return Token("end", "", number, len(self.lines[number - 1].rstrip()) + 1)

    def forget(self) -> None:
        """Lets go of all tokens that have been read but the last, and of their comments."""
        if self.at > 1:
            del self._tokens[: self.at - 1]
            self.at = 1
            for number in [n for n in self.comments if n <= self.last.line]:
                del self.comments[number]

    # -- reading

    @property
    def next(self) -> Token:
        """The token that is read next; its kind is ``end`` after the last."""
        if self.at >= len(self._tokens):
            self._scan()
        return self._tokens[self.at]

    @property
    def after_next(self) -> Token:
        """The token after the next."""
        while self.at + 1 >= len(self._tokens):
            self._scan()
        return self._tokens[self.at + 1]

    @property
    def last(self) -> Token:
        """The token that was read last."""
        return self._tokens[self.at - 1]

    def ahead(self, end: str) -> tuple[str, ...]:
        """The spelling of what comes next, up to a token `end` and with it.

        Nothing, if that does not follow on the same line.
        """
        first = self.next
        spelled = []
        for at in range(self.at, len(self._tokens)):
            token = self._tokens[at]
            if token.line != first.line:
                break
            spelled.append(token.text)
            if token.text == end:
                return tuple(spelled)
        return ()

    def take(self) -> Token:
        """Reads the next token, whatever it is."""
        token = self.next
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Reads the next token if it is spelled `text`."""
        if self.next.text == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str, why: str = "", *, here: bool = False) -> Token:
        """Reads the next token, which must be spelled `text`.

        Args:
            text: the spelling.
            why: says more in an error: ``to close ...``.
            here: whether it must stand on the line of the token before.

        Raises:
            ParseError: the next token is another.
        """
        if here and self.next.line != self.last.line:
            end = self.last._replace(column=self.last.end)
            raise self.error(f"expected {text!r} {why}, found the end of the line", end)
        if self.next.text != text:
            raise self.unexpected(f"{text!r}{why and ' '}{why}")
        return self.take()

    def expect_kind(self, kind: str, what: str = "") -> Token:
        """Reads the next token, which must be of `kind`.

        Raises:
            ParseError: it is not; `what` says what was expected instead of the kind's own name.
        """
        if self.next.kind != kind:
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
