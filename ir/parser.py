"""Graphs from text: what :mod:`rewright.ir.printer` writes, and what people write by hand.

    parse_graph(print_graph(graph))      the same graph, without the data of its sources

A hand-written tokenizer and a recursive descent that recurs for regions, not for nodes; nothing
in a text is ever evaluated. Arguments may stand by position or by name. A comment alone on its
line is skipped; one that ends the line of a node is the node's location.

The grammar, with ``x*`` for any number of x between commas::

    text     := "graph" @name block tail
    block    := "(" (%value ":" type)* ")" "->" (type | "(" type* ")") clause* "{" node... end "}"
    clause   := "where" given*  |  "device" device  |  "stage" word
    given    := symbol "in" "{" range* "}" ["with" expression] "=" binding
    binding  := %value | "dim" "(" %value "," int ")"
    node     := [%value* "="] op "(" argument* ")" [":" type*] ["#" location] region...
    argument := [name "="] (value | @constant | ^region | attribute | "[" argument* "]")
    region   := "region" ^name block tail
    end      := "return" (value ["{" spec "}"])* ("writeback" value "=" value)...
    spec     := ["strides=" list] ["alias=" base ("|>" op "(" argument* ")")...] ["shares=" base]
    base     := value | "output" "(" int ")"
    tail     := ["constants" "{" (kind @name ":" type ["also" @name*])... "}"]
                ["prepare" "{" (node | @name "=" (value | @name))... "}"]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from rewright.errors import did_you_mean
from rewright.ir.expression_text import format_expr, parse_expression
from rewright.ir.expressions import symbol
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.lexer import Token, Tokens
from rewright.ir.literals import parse_type, read_device, read_list, read_name, read_string
from rewright.ir.parser_nodes import read_node, read_outputs
from rewright.ir.parser_scope import RecipeScope, Scope, hint_of
from rewright.ir.sizes import Range
from rewright.ir.types import Type

KINDS: Final = ("parameter", "buffer", "nonpersistent", "constant")
"""The kinds of sources."""


def parse_graph(text: str, *, filename: str | None = None) -> Graph:
    """The graph that prints as `text`. Its sources have no data.

    Args:
        text: one graph with its constants and recipes.
        filename: where the text comes from, for errors.

    Raises:
        ParseError: the text is not a graph; says where, and what was expected there.
    """
    tokens = Tokens(text, filename)
    tokens.expect("graph")
    graph = Graph(read_name(tokens, tokens.expect_kind("constant", "the graph's name (@name)")))
    _read_block(Scope(tokens, graph))
    if tokens.next.kind != "end":
        raise tokens.unexpected("the end of the text")
    return graph


def _read_block(scope: Scope) -> None:
    """Reads everything after the name of a graph or region."""
    returned, given = _read_header(scope)
    end = _read_body(scope)
    for entry in given:
        _bind(scope, entry)
    _read_tail(scope)
    types = tuple(value.type for value in scope.graph.outputs)  # constants have theirs by now
    if types != returned:
        found, stated = _listed(types), _listed(returned)
        raise scope.tokens.error(f"{found} is returned, but the header says {stated}", end)


def _opened(token: Token) -> str:
    return f"the block that opens at {token.line}:{token.column}"


# --------------------------------------------------------------------------- the header


@attrs.frozen
class _Given:
    """One entry of ``where``: a symbol, and the dimension or scalar that gives it."""

    symbol: Token
    ranges: tuple[Range, ...]
    equation: Any
    value: Token
    dim: int | None


def _read_header(scope: Scope) -> tuple[tuple[Type, ...], list[_Given]]:
    """Reads inputs, types of results, and clauses; returns the types and the sizes."""
    tokens = scope.tokens

    def read_input(_: Tokens) -> None:
        token = tokens.expect_kind("value")
        tokens.expect(":", "and the type of the input")
        scope.define(token, scope.graph.add_input(parse_type(tokens), hint_of(token)))

    if tokens.next.text != "(":
        raise tokens.unexpected("'(' and the inputs")
    read_list(tokens, read_input, end=")")
    tokens.expect("->", "and the types that are returned")
    several = tokens.next.text == "("
    returned = read_list(tokens, parse_type, end=")") if several else (parse_type(tokens),)
    given: list[_Given] = []
    while tokens.next.text in _CLAUSES:
        given += _CLAUSES[tokens.take().text](scope)
        tokens.accept(",")
    return returned, given


def _read_device(scope: Scope) -> list[_Given]:
    scope.graph.device = read_device(scope.tokens)
    return []


def _read_stage(scope: Scope) -> list[_Given]:
    tokens = scope.tokens
    if tokens.next.kind not in ("word", "string"):
        raise tokens.unexpected("the name of a stage")
    token = tokens.take()
    scope.graph.stage = token.text if token.kind == "word" else read_string(tokens, token)
    return []


def _read_where(scope: Scope) -> list[_Given]:
    tokens = scope.tokens
    given = [_read_given(tokens)]
    while tokens.next.text == "," and tokens.after_next.text not in _CLAUSES:
        tokens.take()
        given.append(_read_given(tokens))
    return given


_CLAUSES: Final[dict[str, Callable[[Scope], list[_Given]]]] = {
    "where": _read_where,
    "device": _read_device,
    "stage": _read_stage,
}


def _read_given(tokens: Tokens) -> _Given:
    """Reads ``s0 in {1..8..32} with 2*s0 + 1 = dim(%x, 0)``."""
    name = tokens.expect_kind("word", "a symbol, like s0")
    if not re.fullmatch(r"[suf]\d+", name.text):
        raise tokens.error(f"{name.text!r} is no symbol: symbols are s0, u0, f0 ...", name)
    tokens.expect("in", "and the ranges of the symbol")
    if tokens.next.text != "{":
        raise tokens.unexpected("'{' and a range for each profile, like {1..8..32}")
    ranges = read_list(tokens, _read_range, end="}")
    equation = parse_expression(tokens) if tokens.accept("with") else symbol(name.text)
    tokens.expect("=", "and where the symbol comes from")
    if not tokens.accept("dim"):
        value = tokens.expect_kind("value", "a value, or dim(value, number)")
        return _Given(name, ranges, equation, value, None)
    tokens.expect("(")
    value = tokens.expect_kind("value")
    tokens.expect(",", "and the number of a dimension")
    dim = int(tokens.expect_kind("int", "the number of a dimension").text)
    tokens.expect(")")
    return _Given(name, ranges, equation, value, dim)


def _read_range(tokens: Tokens) -> Range:
    """Reads ``1..8..32``, min to max; each of the three may be missing."""
    start = tokens.next
    points: list[int | None] = []
    while True:
        sign = -1 if tokens.accept("-") else 1
        points.append(sign * int(tokens.take().text) if tokens.next.kind == "int" else None)
        if not tokens.accept(".."):
            break
    if len(points) not in (2, 3):
        raise tokens.error("a range reads min..max or min..opt..max", start)
    try:
        return Range(points[0], points[1] if len(points) == 3 else None, points[-1])
    except ValueError as error:
        raise tokens.error(str(error), start) from None


def _bind(scope: Scope, given: _Given) -> None:
    """Checks that a size is what the header says, and makes it known to the graph."""
    info = SymbolInfo(given.ranges, scope.value(given.value), given.dim)
    name = symbol(given.symbol.text)
    if name in scope.graph.symbols:
        raise scope.tokens.error(f"{name} is given twice", given.symbol)
    if info.equation != given.equation:
        found = "nothing" if info.equation is None else format_expr(info.equation)
        raise scope.tokens.error(
            f"{name} is given by {format_expr(given.equation)}, "
            f"but there the type of {given.value.text} says {found}",
            given.symbol,
        )
    scope.graph.symbols[name] = info


# --------------------------------------------------------------------------- the body


def _read_body(scope: Scope) -> Token:
    """Reads nodes, outputs and write-backs, brackets included; gives the word ``return``."""
    tokens = scope.tokens
    opening = tokens.expect("{", "to open the body")
    while tokens.next.text != "return":
        if tokens.next.kind == "end" or tokens.next.text == "}":
            raise tokens.unexpected(f"'return', to end {_opened(opening)}")
        read_node(scope, _read_block)
    word = tokens.take()
    values, specs = read_outputs(scope)
    location = scope.location()
    writebacks = []
    while tokens.accept("writeback"):
        target = _read_target(scope)
        tokens.expect("=", "and the value that is written back")
        writebacks.append((target, scope.read_value()))
    scope.graph.set_outputs(values, results=specs, writebacks=writebacks)
    scope.graph.terminator.loc = location
    tokens.expect("}", f"to close {_opened(opening)}")
    return word


def _read_target(scope: Scope) -> Value:
    token = scope.tokens.next
    target = scope.read_value()
    if not (target.is_constant or target.is_input):
        raise scope.tokens.error("only inputs and constants can be written back", token)
    return target


def _listed(types: Iterable[Type]) -> str:
    return ", ".join(map(str, types)) or "nothing"


# --------------------------------------------------------------------------- the tail


def _read_tail(scope: Scope) -> None:
    """Reads sources and recipes; each constant that was mentioned must be one of them."""
    tokens = scope.tokens
    while tokens.next.text in _SECTIONS and tokens.after_next.text == "{":
        read = _SECTIONS[tokens.take().text]
        opening = tokens.take()
        read(scope, opening)
    scope.check_constants()


def _more(tokens: Tokens, opening: Token) -> bool:
    """Whether the section goes on; reads its closing bracket where it does not."""
    if tokens.next.kind == "end":
        raise tokens.unexpected(f"'}}', to close {_opened(opening)}")
    return not tokens.accept("}")


def _read_sources(scope: Scope, opening: Token) -> None:
    """Reads lines like ``parameter @fc.weight : f32[8, 4] also @tied.weight``."""
    tokens = scope.tokens
    while _more(tokens, opening):
        tokens.forget()
        kind = tokens.expect_kind("word", f"one of {', '.join(KINDS)}")
        if kind.text not in KINDS:
            hint = did_you_mean(kind.text, KINDS)
            raise tokens.error(f"there is no kind of constant {kind.text!r}", kind, hint)
        token = tokens.expect_kind("constant")
        tokens.expect(":", "and the type of the constant")
        value_type = parse_type(tokens)
        aliases: list[str] = []
        while tokens.accept("," if aliases else "also"):
            aliases.append(read_name(tokens, tokens.expect_kind("constant")))
        scope.declare(token, kind.text, value_type, aliases)


def _read_recipes(scope: Scope, opening: Token) -> None:
    """Reads nodes, and lines like ``@again = @fc.weight``."""
    tokens = scope.tokens
    recipes = RecipeScope(tokens, scope.graph.prepare, scope)
    while _more(tokens, opening):
        tokens.forget()
        start = tokens.at
        if tokens.next.kind == "constant" and tokens.after_next.text == "=":
            name = tokens.take()
            tokens.take()
            if tokens.next.kind in ("constant", "value"):
                recipes.define(name, recipes.read_value())
                continue
            tokens.at = start
        read_node(recipes, _read_block)
    recipes.finish()


_SECTIONS: Final[dict[str, Callable[[Scope, Token], None]]] = {
    "constants": _read_sources,
    "prepare": _read_recipes,
}
