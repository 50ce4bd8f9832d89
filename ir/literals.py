"""How names, types and attributes are written: each spelling with its reader beside it.

    names        attn.q.weight   "odd name"
    types        f16[s0, 128] on cuda:1   int   float(0.5)   bool(s0 == 4)   none   object<Handle>
    attributes   None True -1 0.125 nan complex(0.0, -1.0) "text" 2*s0 + 1
                 f16 strided channels_last cuda:0     [1, [2, 3]]     {mode="same", "a b"=1}

What is read back is the very same: ``1`` is no ``1.0``, and ``-0.0`` and ``nan`` stay themselves.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import sympy
import torch

from rewright.errors import ParseError
from rewright.ir.attributes import Opaque, Record
from rewright.ir.expression_text import OPERATORS, format_expr, parse_expression
from rewright.ir.lexer import Token, Tokens
from rewright.ir.types import (
    DTYPE_NAMES,
    DTYPES,
    NoneType,
    OpaqueType,
    ScalarType,
    TensorType,
    Type,
)

# --------------------------------------------------------------------------- names and strings

_DOTTED: Final = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def format_string(text: str) -> str:
    """`text` in quotes, on one line: as it is where it can be printed, otherwise escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def read_string(tokens: Tokens, token: Token, text: str | None = None) -> str:
    """The string that `token` (or `text`, a part of it) quotes.

    Raises:
        ParseError: it has an escape that JSON does not have.
    """
    try:
        return str(json.loads(token.text if text is None else text))
    except ValueError:
        raise tokens.error("this string has an escape that JSON does not know", token) from None


def format_name(name: str) -> str:
    """The name of a constant, graph or region, without its sigil."""
    return name if _DOTTED.fullmatch(name) else format_string(name)


def read_name(tokens: Tokens, token: Token) -> str:
    """The name that `token` spells after its sigil."""
    name = token.text[1:]
    return read_string(tokens, token, name) if name.startswith('"') else name


def format_key(key: str) -> str:
    """The name of an argument or of an item of a record."""
    return key if _IDENTIFIER.fullmatch(key) else format_string(key)


def accept_key(tokens: Tokens) -> str | None:
    """Reads ``name =`` or ``"odd name" =`` if it comes next."""
    if tokens.after_next.text != "=" or tokens.next.kind not in ("word", "string"):
        return None
    token = tokens.take()
    tokens.take()
    return read_string(tokens, token) if token.kind == "string" else token.text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint that names what is spelled most like `name`, if anything is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else None


# --------------------------------------------------------------------------- types

_SCALARS: Final = ("int", "float", "bool")

_TORCH_DTYPES: Final = {
    str(dtype).removeprefix("torch."): name for dtype, name in DTYPE_NAMES.items()
}


def _dtype_hint(word: str, known: Iterable[str]) -> str | None:
    """What to write for `word`, which is no dtype of the IR but may be torch's name of one."""
    ours = _TORCH_DTYPES.get(word)
    return f"torch.{word} is written {ours}" if ours else nearest(word, known)


def parse_type(tokens: Tokens) -> Type:
    """Reads a type.

    Raises:
        ParseError: there is none, or its dtype is unknown.
    """
    token = tokens.next
    if token.kind == "object":
        return OpaqueType(tokens.take().text[len("object<") : -1])
    if token.kind != "word":
        raise tokens.unexpected("a type, like f16[s0, 128]")
    tokens.take()
    if tokens.next.text == "[":
        return _tensor_type(tokens, token)
    if token.text == "none":
        return NoneType()
    if token.text in _SCALARS:
        return ScalarType(token.text, _known_value(tokens))
    if token.text in DTYPES:
        raise tokens.unexpected(f"'[' and a shape after {token.text}")
    hint = _dtype_hint(token.text, [*DTYPES, *_SCALARS, "none"])
    raise tokens.error(f"there is no type {token.text!r}", token, hint)


def _tensor_type(tokens: Tokens, dtype: Token) -> TensorType:
    if dtype.text not in DTYPES:
        hint = _dtype_hint(dtype.text, DTYPES)
        raise tokens.error(f"there is no dtype {dtype.text!r}", dtype, hint)
    dims = tokens.ahead("]")
    key = (dtype.text, *dims)
    known = tokens.known.get(key) if dims else None
    if known is None:
        known = TensorType(DTYPES[dtype.text], read_list(tokens, parse_expression))
        tokens.known[key] = known
    else:
        tokens.at += len(dims)
    if not tokens.accept("on"):
        return known
    return TensorType(known.dtype, known.shape, read_device(tokens))


def _known_value(tokens: Tokens) -> Any:
    if not tokens.accept("("):
        return None
    value = parse_expression(tokens)
    tokens.expect(")")
    return value


def read_device(tokens: Tokens) -> str:
    """Reads the name of a device: ``cpu``, ``cuda:0``."""
    name = tokens.expect_kind("word", "a device, like cuda:0").text
    if tokens.next.text == ":" and tokens.after_next.kind == "int":
        tokens.take()
        name += f":{tokens.take().text}"
    return name


def read_list(tokens: Tokens, read: Callable[[Tokens], Any], end: str = "]") -> tuple[Any, ...]:
    """Reads a bracketed list, whose opening bracket comes next; a comma may end it."""
    opening = tokens.take()
    items = []
    while tokens.next.text != end:
        items.append(read(tokens))
        if not tokens.accept(","):
            break
    tokens.expect(end, f"or ',' in the list that opens at {opening.line}:{opening.column}")
    return tuple(items)


# --------------------------------------------------------------------------- printing attributes

_TORCH_WORDS: Final[dict[str, Any]] = {
    str(item).removeprefix("torch."): item
    for item in vars(torch).values()
    if isinstance(item, torch.layout | torch.memory_format)
}
_WORDS: Final[dict[str, Any]] = {
    "None": None,
    "True": True,
    "False": False,
    **DTYPES,
    **_TORCH_WORDS,
}
"""Words that are attributes by themselves."""

_SYMBOL: Final = re.compile(r"[suf]\d+", re.ASCII)


def _format_symbolic(expr: Any) -> str:
    """An expression; the symbol ``f16`` gets brackets, as the bare word is the dtype."""
    text = format_expr(expr)
    return f"({text})" if text in DTYPES else text


_FORMATS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): str,
    bool: str,
    int: int.__repr__,
    float: float.__repr__,
    complex: lambda value: f"complex({value.real!r}, {value.imag!r})",
    str: format_string,
    sympy.Basic: _format_symbolic,
    torch.dtype: lambda dtype: DTYPE_NAMES[dtype],
    torch.device: str,
    torch.layout: lambda layout: str(layout).removeprefix("torch."),
    torch.memory_format: lambda layout: str(layout).removeprefix("torch."),
    Opaque: lambda value: f"<{value.label}>",
}
"""How each class of leaf is written. Operands and regions are named by the printer."""


def format_attribute(value: Any, name: Callable[[Any], str] = str) -> str:
    """The text of an attribute.

    Args:
        value: an attribute, as in :mod:`rewright.ir.attributes`.
        name: what to write for a leaf that only its node gives a name: an operand, a region.
    """
    if isinstance(value, tuple):
        return f"[{', '.join([format_attribute(item, name) for item in value])}]"
    if isinstance(value, Record):
        items = (f"{format_key(key)}={format_attribute(v, name)}" for key, v in value.items)
        return f"{{{', '.join(items)}}}"
    known = _FORMATS.get(type(value))
    if known is None:  # a subclass: sympy's, an enum's
        known = next((_FORMATS[c] for c in type(value).__mro__ if c in _FORMATS), name)
    return known(value)


# --------------------------------------------------------------------------- parsing attributes


def parse_attribute(tokens: Tokens, named: Callable[[Tokens], Any] | None = None) -> Any:
    """Reads an attribute.

    Args:
        tokens: where to read from.
        named: reads what only a node can hold: a value, a constant, a region.

    Raises:
        ParseError: there is none.
    """
    token = tokens.next
    if token.text == "[":
        return read_list(tokens, lambda inner: parse_attribute(inner, named))
    if token.text == "{":
        return Record(read_list(tokens, lambda inner: _item(inner, named), end="}"))
    if token.kind == "word":
        return _word(tokens, token)
    if token.kind == "string":
        return read_string(tokens, tokens.take())
    if named is not None and token.kind in ("value", "constant", "region"):
        return named(tokens)
    if token.text == "<":
        raise tokens.error(
            "this stands for a Python object, which has no text", hint="it can't be read back"
        )
    if token.kind in ("end", "bad") or token.text in (")", "]", "}", ",", ":", "="):
        raise tokens.unexpected("an argument")
    return parse_expression(tokens)


def _item(tokens: Tokens, named: Callable[[Tokens], Any] | None) -> tuple[str, Any]:
    key = accept_key(tokens)
    if key is None:
        raise tokens.unexpected("name=value")
    return key, parse_attribute(tokens, named)


def _word(tokens: Tokens, token: Token) -> Any:
    following = tokens.after_next.text
    if token.text in _WORDS and following not in OPERATORS:
        tokens.take()
        return _WORDS[token.text]
    if token.text == "complex" and following == "(":
        return _complex(tokens)
    expression = following == "(" or following in OPERATORS or token.text in ("inf", "nan", "not")
    if expression or _SYMBOL.fullmatch(token.text):
        return parse_expression(tokens)
    return _device(tokens, token)


def _complex(tokens: Tokens) -> complex:
    start = tokens.take()
    parts = read_list(tokens, parse_expression, end=")")
    if len(parts) != 2 or not all(type(part) in (int, float) for part in parts):
        raise tokens.error("a complex number is written complex(real, imaginary)", start)
    return complex(*parts)


def _device(tokens: Tokens, token: Token) -> torch.device:
    try:
        return torch.device(read_device(tokens))
    except RuntimeError:
        raise _unknown_word(tokens, token) from None


def _unknown_word(tokens: Tokens, token: Token) -> ParseError:
    return tokens.error(
        f"{token.text!r} is no dtype, layout, memory format, device or size symbol",
        token,
        _dtype_hint(token.text, [*_WORDS, "inf", "nan", "cpu", "cuda", "meta"]),
    )
