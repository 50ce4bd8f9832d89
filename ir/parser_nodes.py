"""Nodes and results from text: the lines between the brackets of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import torch

from rewright.errors import ParseError, RewrightError, UnsupportedError
from rewright.ir.attributes import Attributes, map_leaves
from rewright.ir.builder import make_node
from rewright.ir.expression_text import parse_expression
from rewright.ir.graph import Graph, ResultSpec, Value, ViewStep
from rewright.ir.lexer import Token, Tokens
from rewright.ir.literals import (
    accept_key,
    format_name,
    nearest,
    parse_attribute,
    parse_type,
    read_list,
    read_name,
)
from rewright.ir.ops import Op, get_op, known_ops
from rewright.ir.parser_scope import Scope, hint_of
from rewright.ir.types import Type

ReadRegion: TypeAlias = Callable[[Scope], None]
"""Reads a region, after its name, into the graph of a scope."""


# --------------------------------------------------------------------------- operators, arguments


def _find_op(tokens: Tokens, what: str = "an operator, like aten.relu") -> tuple[Token, Op]:
    token = tokens.expect_kind("word", what)
    try:
        return token, get_op(token.text)
    except UnsupportedError as error:
        names = {op.name for op in known_ops()} | {
            name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names()
        }
        near = {name for name in names if name.partition(".")[0] == token.text.partition(".")[0]}
        hint = (nearest(token.text, near) if near else None) or error.hint
        raise tokens.error(f"there is no operator {token.text}", token, hint) from None


def _read_arguments(
    tokens: Tokens, token: Token, op: Op, named: Callable[[Tokens], Any] | None
) -> dict[str, Any]:
    """Reads the arguments of a call, brackets included.

    Args:
        tokens: where to read from.
        token: the op's name, which is at fault where the arguments don't fit.
        op: what is called.
        named: reads a value, constant or region; None where there may be none.

    Returns:
        The arguments by parameter name, in the op's order, without those at their default.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}

    def read(_: Tokens) -> None:
        start = tokens.next
        key = accept_key(tokens)
        if key is None:
            if kwargs:
                raise tokens.error("an argument by position follows one by name", start)
            args.append(parse_attribute(tokens, named))
        elif key in kwargs:
            raise tokens.error(f"the argument {key!r} is given twice", start)
        else:
            kwargs[key] = parse_attribute(tokens, named)

    if tokens.next.text != "(":
        raise tokens.unexpected("'(' and the arguments")
    read_list(tokens, read, end=")")
    try:
        return op.bind(args, kwargs)
    except ParseError:
        raise
    except RewrightError as error:
        raise tokens.error(error.message, token, error.hint) from None


# --------------------------------------------------------------------------- nodes


@attrs.frozen
class _RegionName:
    """Stands for a region until the regions of its node have been read."""

    token: Token


def read_node(scope: Scope, read_region: ReadRegion) -> None:
    """Reads one node with its regions and adds it to the graph of `scope`.

    Raises:
        ParseError: it is not well formed, or uses what is not defined.
    """
    tokens = scope.tokens
    tokens.forget()
    results = _read_results(scope)
    token, op = _find_op(tokens)

    def named(_: Tokens) -> Any:
        name = tokens.take()
        return _RegionName(name) if name.kind == "region" else scope.value(name)

    given = _read_arguments(tokens, token, op, named)
    types = _read_types(tokens, token, op, len(results))
    location = scope.location()
    line = tokens.last.line
    regions = _read_regions(scope, read_region)
    if not regions and tokens.next.line == line and tokens.next.text != "}":
        raise tokens.unexpected("the end of the line")
    placed = _with_regions(tokens, token, given, regions)
    node = make_node(op, placed, types, location, [hint_of(name) for name in results])
    scope.graph.insert(node)
    for name, value in zip(results, node.results, strict=True):
        scope.define(name, value)


def _read_results(scope: Scope) -> list[Token]:
    """Reads ``%a, %b =``, if it is there."""
    tokens = scope.tokens
    results: list[Token] = []
    while tokens.next.kind in scope.results:
        results.append(tokens.take())
        if not tokens.accept(","):
            tokens.expect("=", "and an operator")
            break
    return results


def _read_types(tokens: Tokens, token: Token, op: Op, count: int) -> list[Type]:
    """Reads the types of `count` results, which must be as many as `op` has."""
    if op.results is not None and op.results != count:
        raise tokens.error(f"{op.name} has {_results(op.results)}, {count} are named here", token)
    types: list[Type] = []
    if count:
        what = f"and the {'types' if count > 1 else 'type'} of what {op.name} gives"
        tokens.expect(":", what, here=True)
        types.append(parse_type(tokens))
        while tokens.accept(","):
            types.append(parse_type(tokens))
    if len(types) != count:
        raise tokens.error(f"{_results(count)} named, but {len(types)} types stated", token)
    return types


def _results(number: int) -> str:
    return f"{number} result{'' if number == 1 else 's'}"


def _read_regions(scope: Scope, read_region: ReadRegion) -> dict[str, Graph]:
    tokens = scope.tokens
    regions: dict[str, Graph] = {}
    while tokens.accept("region"):
        token = tokens.expect_kind("region")
        name = read_name(tokens, token)
        if name in regions:
            raise tokens.error(f"this node has two regions called {token.text}", token)
        graph = Graph(name, device=scope.graph.device, stage=scope.graph.stage)
        read_region(Scope(tokens, graph, scope))
        regions[name] = graph
    return regions


def _with_regions(
    tokens: Tokens, token: Token, given: Mapping[str, Any], regions: Mapping[str, Graph]
) -> dict[str, Any]:
    """The arguments with regions in the place of their names; each has one place."""
    left = dict(regions)

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, _RegionName):
            return leaf
        name = read_name(tokens, leaf.token)
        if name not in regions:
            raise tokens.error(f"no region {leaf.token.text} follows this node", leaf.token)
        if name not in left:
            raise tokens.error(f"the region {leaf.token.text} is an argument twice", leaf.token)
        return left.pop(name)

    placed = {name: map_leaves(value, put) for name, value in given.items()}
    for name in left:
        raise tokens.error(f"the region ^{format_name(name)} is no argument of this node", token)
    return placed


# --------------------------------------------------------------------------- what is returned


def read_outputs(scope: Scope) -> tuple[list[Value], list[ResultSpec]]:
    """Reads what follows the word ``return`` on its line.

    Raises:
        ParseError: it is not well formed, or returns what is not defined.
    """
    tokens = scope.tokens
    values: list[Value] = []
    specs: list[ResultSpec] = []
    while tokens.next.kind in ("value", "constant"):
        values.append(scope.value(tokens.take()))
        specs.append(_read_spec(scope) if tokens.next.text == "{" else ResultSpec())
        if not tokens.accept(","):
            break
    return values, specs


def _read_spec(scope: Scope) -> ResultSpec:
    """Reads what the caller gets beyond the numbers: ``{strides=..., alias=..., shares=...}``."""
    found: dict[str, Any] = {}

    def read(tokens: Tokens) -> None:
        start = tokens.next
        key = accept_key(tokens)
        if key == "strides" and tokens.next.text == "[":
            found["strides"] = read_list(tokens, parse_expression)
        elif key == "alias":
            named = tokens.next.kind in ("value", "constant")
            found["alias"] = scope.read_value() if named else _read_output(tokens)
            views = []
            while tokens.accept("|>"):
                views.append(_read_view(tokens))
            found["views"] = tuple(views)
        elif key == "shares":
            found["shares"] = _read_output(tokens)
        else:
            raise tokens.error("expected strides=[...], alias=... or shares=...", start)

    read_list(scope.tokens, read, end="}")
    return ResultSpec(**found)


def _read_output(tokens: Tokens) -> int:
    tokens.expect("output", "and its number, like output(0)")
    tokens.expect("(")
    number = int(tokens.expect_kind("int", "the number of an earlier output").text)
    tokens.expect(")")
    return number


def _read_view(tokens: Tokens) -> ViewStep:
    token, op = _find_op(tokens, "a view operator, like aten.permute")
    without_base = attrs.evolve(op, params=op.params[1:])
    arguments = _read_arguments(tokens, token, without_base, None)
    pick = 0
    if tokens.accept("["):
        pick = int(tokens.expect_kind("int", "the number of a result").text)
        tokens.expect("]")
    return ViewStep(op, Attributes(arguments), pick)
