"""What names mean while a graph is parsed: values, constants, and the places of both."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from rewright.ir.graph import Constant, Graph, Value
from rewright.ir.lexer import Token, Tokens
from rewright.ir.literals import format_name, nearest, read_name
from rewright.ir.location import Location
from rewright.ir.types import NoneType, Type


def hint_of(token: Token) -> str:
    """What a value remembers of its name: nothing, where it is a number or a recipe's."""
    name = token.text[1:]
    return "" if name.isdigit() or token.kind == "constant" else name


@attrs.define(eq=False)
class Scope:
    """The names of one graph or region. They are known with their sigil: ``%x``, ``@a.b``.

    Attributes:
        tokens: what is read.
        graph: what is built.
        outer: the scope around it, for a region.
        results: the kinds of token that may name a result.
    """

    tokens: Tokens
    graph: Graph
    outer: Scope | None = None
    results: tuple[str, ...] = ("value",)
    _values: dict[str, Value] = attrs.field(factory=dict, init=False)
    _places: dict[str, Token] = attrs.field(factory=dict, init=False)
    _constants: dict[str, Constant] = attrs.field(factory=dict, init=False)
    _mentions: dict[str, Token] = attrs.field(factory=dict, init=False)
    _declared: dict[str, None] = attrs.field(factory=dict, init=False)

    # -- values

    def key(self, token: Token) -> str:
        """The one spelling of a name, sigil included: ``@"a"`` is ``@a``."""
        if '"' not in token.text:
            return token.text
        return f"{token.text[0]}{format_name(read_name(self.tokens, token))}"

    def define(self, token: Token, value: Value) -> None:
        """Gives `value` the name that `token` spells.

        Raises:
            ParseError: another value has it.
        """
        name = self.key(token)
        first = self._places.get(name)
        if first is not None:
            hint = f"first on line {first.line}"
            raise self.tokens.error(f"{name} is defined twice", token, hint)
        self._values[name] = value
        self._places[name] = token

    def value(self, token: Token) -> Value:
        """The value or constant that `token` names.

        Raises:
            ParseError: there is no such value up to here.
        """
        if token.kind == "constant":
            return self.constant(token)
        known = self._values.get(token.text)
        if known is None:
            raise self.tokens.error(f"{token.text} is not defined", token, self._why_not(token))
        return known

    def read_value(self) -> Value:
        """Reads a value or a constant."""
        if self.tokens.next.kind not in ("value", "constant"):
            raise self.tokens.unexpected("a value (%x) or a constant (@name)")
        return self.value(self.tokens.take())

    def _why_not(self, token: Token) -> str | None:
        name = re.escape(token.text)
        definition = re.compile(rf"\s*(?:[%@]\S+,\s*)*{name}\s*(?:,\s*[%@]\S+\s*)*=(?!=)")
        for number, line in enumerate(self.tokens.lines[token.line :], token.line + 1):
            if definition.match(line):
                return f"it is defined after its use, on line {number}"
        if self.outer is not None and token.text in self.outer._values:
            return f"a region sees nothing of the graph around it: make {token.text} an input"
        return nearest(token.text, self._values)

    # -- constants

    def constant(self, token: Token) -> Value:
        """The constant that `token` names; it may be declared later."""
        key = self.key(token)
        known = self._constants.get(key)
        if known is None:
            name = read_name(self.tokens, token)
            known = self._constants[key] = Constant(NoneType(), self.graph, 0, "", name)
            self._mentions[key] = token
        return known

    def declare(
        self, token: Token, kind: str, value_type: Type, aliases: Iterable[str] = ()
    ) -> None:
        """Makes the constant that `token` names known to the graph.

        Raises:
            ParseError: there is one of that name.
        """
        key = self.key(token)
        if key in self._declared:
            raise self.tokens.error(f"there are two constants called {key}", token)
        self._declared[key] = None
        Scope.constant(self, token)
        constant = self._constants[key]
        constant.kind, constant.aliases = kind, tuple(aliases)
        constant.index = len(self.graph.constants)
        self.graph.constants[constant.name] = constant
        constant.type = value_type

    def check_constants(self) -> None:
        """Checks that every constant that was mentioned was declared.

        Raises:
            ParseError: one was not.
        """
        for key, token in self._mentions.items():
            if key not in self._declared:
                hint = nearest(key, self._declared)
                raise self.tokens.error(f"there is no constant {key}", token, hint)

    # -- locations

    def location(self) -> Location | None:
        """The location that ends the line of the token that was read last.

        Raises:
            ParseError: the line ends in a comment of another kind.
        """
        comment = self.tokens.comments.get(self.tokens.last.line)
        if comment is None:
            return None
        try:
            return Location.parse(comment.text[1:])
        except ValueError:
            raise self.tokens.error(
                "this is not a location",
                comment,
                "a location reads `# file.py:41 (module.path) by rule`; "
                "other comments stand on lines of their own",
            ) from None


@attrs.define(eq=False)
class RecipeScope(Scope):
    """The names in ``prepare``: ``@name`` is an earlier recipe, or else a source."""

    results: tuple[str, ...] = ("value", "constant")
    _recipes: dict[str, Token] = attrs.field(factory=dict, init=False)

    def define(self, token: Token, value: Value) -> None:
        """Gives `value` a name; a constant's name makes it that constant's recipe."""
        Scope.define(self, token, value)
        if token.kind == "constant":
            self._recipes[self.key(token)] = token

    def constant(self, token: Token) -> Value:
        """An earlier recipe, or a source."""
        key = self.key(token)
        if key in self._recipes:
            return self._values[key]
        self._mentions.setdefault(key, token)
        assert self.outer is not None
        return self.outer.constant(token)

    def finish(self) -> None:
        """Makes the recipes known as the prepared constants of the graph.

        Raises:
            ParseError: one is used by a recipe before it.
        """
        assert self.outer is not None
        for key, token in self._recipes.items():
            if key in self._mentions:
                raise self.tokens.error(
                    f"{key} is used before its recipe",
                    self._mentions[key],
                    f"the recipe is on line {token.line}",
                )
            self.outer.declare(token, "prepared", self._values[key].type)
        names = [read_name(self.tokens, token) for token in self._recipes.values()]
        self.graph.prepared_names += names
        self.graph.set_outputs([self._values[key] for key in self._recipes])
