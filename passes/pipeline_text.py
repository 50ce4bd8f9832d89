"""The text of pipelines: ``canonicalize,repeat{max=4}(fold{max_growth=2.0},dce)``.

    pipeline := [step ("," step)*]
    step     := name [options]  |  "repeat" [options] "(" pipeline ")"
    options  := "{" [option ("," option)*] "}"
    option   := name "=" value
    value    := word | number | "string" | "[" [value ("," value)*] "]"

Options at their default are left out. What a value means depends on the type of the option, which
is the annotation of the pass's field: ``True``, ``None``, a member of an enum by its name in kebab
case, one of the words of a ``Literal``. A string stands without quotes where it is a word.
"""

from __future__ import annotations

import enum
import json
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import attrs

from rewright.errors import ParseError, PassError, did_you_mean
from rewright.passes.manager import Pass, Pipeline, Repeat, Step

REPEAT: Final = "repeat"

_WORD: Final = r"[A-Za-z_][\w./*-]*"
_TOKEN: Final = re.compile(
    rf"""
    \s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|(?:inf|nan)(?![\w./*-])))
    |   (?P<word>{_WORD})
    |   (?P<string>"(?:[^"\\]|\\.)*")
    |   (?P<sign>[,={{}}()\[\]])
    |   (?P<bad>\S)
    )
    """,
    re.VERBOSE | re.ASCII,
)


# --------------------------------------------------------------------------- printing


def format_step(step: Step) -> str:
    """A step as pipelines write it."""
    if isinstance(step, Repeat):
        options = _format_options(step, ("max",))
        return f"{REPEAT}{options}({','.join(map(format_step, step.steps))})"
    return step.name + _format_options(step, option_types(type(step)))


def _format_options(step: Step, names: Sequence[str] | Mapping[str, Any]) -> str:
    fields = attrs.fields_dict(type(step))
    given = [
        f"{name}={_format_value(getattr(step, name))}"
        for name in names
        if not _is_default(fields[name], getattr(step, name))
    ]
    return f"{{{','.join(given)}}}" if given else ""


def _is_default(field: attrs.Attribute[Any], value: Any) -> bool:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    return bool(type(value) is type(default) and repr(value) == repr(default))


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_format_value, value))}]"
    if isinstance(value, enum.Enum):
        return _enum_word(value)
    if isinstance(value, str):
        plain = re.fullmatch(_WORD, value, re.ASCII) and value not in ("inf", "nan", *_WORDS)
        return value if plain else json.dumps(value)
    return repr(value)


def _enum_word(member: enum.Enum) -> str:
    return member.name.lower().replace("_", "-")


# --------------------------------------------------------------------------- types of options

_WORDS: Final[dict[str, Any]] = {"True": True, "False": False, "None": None}


_known_types: Final[dict[type[Pass], dict[str, Any]]] = {}


def option_types(cls: type[Pass]) -> dict[str, Any]:
    """The type of each option of a pass, by name, in order.

    Raises:
        PassError: an option is of a type that pipelines can't write.
    """
    if cls not in _known_types:
        _known_types[cls] = _option_types(cls)
    return _known_types[cls]


def _option_types(cls: type[Pass]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    found = {field.name: hints[field.name] for field in attrs.fields(cls) if field.init}
    for name, wanted in found.items():
        if not _is_writable(wanted):
            raise PassError(
                f"the option {name!r} of pass {cls.name} is a {wanted}",
                pass_name=cls.name,
                hint="options are bool, int, float, str, None, Literal, Enum, unions and "
                "tuple[T, ...] of them",
            )
    return found


def _is_writable(wanted: Any) -> bool:
    if wanted in (bool, int, float, str, type(None)) or get_origin(wanted) is Literal:
        return True
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return True
    args = get_args(wanted)
    if get_origin(wanted) is tuple:
        return len(args) == 2 and args[1] is ... and _is_writable(args[0])
    return get_origin(wanted) in _UNIONS and all(map(_is_writable, args))


_UNIONS: Final = (Union, types.UnionType)


def describe_type(wanted: Any) -> str:
    """The type of an option, for people: ``int``, ``'a' or 'b'``, ``[str, ...]``."""
    args = get_args(wanted)
    if get_origin(wanted) is Literal:
        return " or ".join(map(_format_value, args))
    if get_origin(wanted) is tuple:
        return f"[{describe_type(args[0])}, ...]"
    if args:
        return " or ".join(map(describe_type, args))
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return " or ".join(map(_enum_word, wanted))
    return "None" if wanted is type(None) else str(wanted.__name__)


# --------------------------------------------------------------------------- values

_NO: Final = object()


class _Word(str):
    """A word without quotes."""

    __slots__ = ()


def _fit(raw: Any, wanted: Any) -> Any:
    """`raw`, as read, as a value of type `wanted`; `_NO` where it is none."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in _UNIONS:
        fits = (_fit(raw, part) for part in sorted(args, key=_looseness))
        return next((value for value in fits if value is not _NO), _NO)
    if origin is Literal:
        return next((item for item in args if _fit(raw, type(item)) == item), _NO)
    if origin is tuple:
        parts = [_fit(part, args[0]) for part in raw] if isinstance(raw, tuple) else [_NO]
        return _NO if _NO in parts else tuple(parts)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return next((member for member in wanted if _enum_word(member) == raw), _NO)
    if isinstance(raw, _Word) and wanted in (bool, type(None)):
        value = _WORDS.get(raw, _NO)
        return value if type(value) is wanted else _NO
    if wanted is float and type(raw) is int:
        return float(raw)
    if wanted is str:
        return str(raw) if isinstance(raw, str) and (type(raw) is str or raw not in _WORDS) else _NO
    return raw if type(raw) is wanted else _NO


def _looseness(wanted: Any) -> int:
    """What takes more is asked later: a float takes ints, a str takes words."""
    return (wanted is float) + 2 * (wanted is str)


# --------------------------------------------------------------------------- reading


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Reader:
    """The tokens of a text, and how far they have been read."""

    def __init__(self, text: str, named: Mapping[str, Pipeline]) -> None:
        self.text = text
        self.named = named
        self.tokens = [
            _Token(kind, found[kind], found.start(kind))
            for found in _TOKEN.finditer(text)
            if (kind := found.lastgroup) is not None
        ]
        self.tokens.append(_Token("end", "", len(text.rstrip())))
        self.place = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def accept(self, sign: str) -> bool:
        found = self.next.kind == "sign" and self.next.text == sign
        self.place += found
        return found

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            raise self.unexpected(repr(sign))

    def expect_word(self, what: str) -> _Token:
        if self.next.kind != "word":
            raise self.unexpected(what)
        return self.take()

    def unexpected(self, expected: str) -> ParseError:
        found = "the end" if self.next.kind == "end" else repr(self.next.text)
        return self.error(f"expected {expected}, found {found}", self.next)

    def error(self, message: str, at: _Token, hint: str | None = None) -> ParseError:
        before = self.text[: at.at]
        line = before.count("\n")
        return ParseError(
            message,
            file="pipeline",
            line=line + 1,
            column=at.at - (before.rfind("\n") + 1) + 1,
            source=self.text.split("\n")[line],
            hint=hint,
        )


def parse_pipeline(text: str, named: Mapping[str, Pipeline] | None = None) -> Pipeline:
    """The pipeline that prints as `text`.

    Args:
        text: steps, one after another.
        named: pipelines whose names may stand for their steps.

    Raises:
        ParseError: `text` is no pipeline, or names a pass or option that there is not.
    """
    reader = _Reader(text, named or {})
    steps = _read_steps(reader, "end")
    if reader.next.kind != "end":
        raise reader.unexpected("',' or the end")
    return Pipeline(steps)


def _read_steps(reader: _Reader, end: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    if reader.next.kind == end or reader.next.text == end:
        return ()
    while True:
        steps += _read_step(reader)
        if not reader.accept(","):
            return tuple(steps)


def _read_step(reader: _Reader) -> tuple[Step, ...]:
    from rewright.passes.registry import get_pass

    name = reader.expect_word("the name of a pass")
    if name.text == REPEAT:
        return (_read_repeat(reader, name),)
    if name.text in reader.named:
        return reader.named[name.text].steps
    try:
        cls = get_pass(name.text)
    except PassError as error:
        # Two passes of one name: the text is not to blame, and where they stand has to be said.
        places = f": {error.where}" if error.where else ""
        raise reader.error(f"{error.message}{places}", name, error.hint) from error.__cause__
    given = _read_options(reader, cls.name, option_types(cls))
    return (_make(reader, name, cls, given),)


def _make(reader: _Reader, name: _Token, cls: Any, given: dict[str, Any]) -> Any:
    """An instance; what its own validators refuse is an error at its name."""
    try:
        return cls(**given)
    except PassError as error:
        raise reader.error(error.message, name, error.hint) from error
    except (TypeError, ValueError) as error:
        raise reader.error(f"{name.text} can't be made: {error}", name) from error


def _read_repeat(reader: _Reader, name: _Token) -> Repeat:
    given = _read_options(reader, REPEAT, {"max": int})
    reader.expect("(")
    steps = _read_steps(reader, ")")
    reader.expect(")")
    made: Repeat = _make(reader, name, Repeat, {"steps": steps, **given})
    return made


def _read_options(reader: _Reader, owner: str, known: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if not reader.accept("{"):
        return given
    while not reader.accept("}"):
        name = reader.expect_word("the name of an option")
        if name.text not in known:
            hint = did_you_mean(name.text, known) if known else f"{owner} has no options"
            raise reader.error(f"{owner} has no option {name.text!r}", name, hint)
        if name.text in given:
            raise reader.error(f"{name.text!r} is given twice", name)
        reader.expect("=")
        at = reader.next
        given[name.text] = value = _fit(_read_value(reader), known[name.text])
        if value is _NO:
            wanted = describe_type(known[name.text])
            raise reader.error(f"{name.text!r} of {owner} takes {wanted}", at)
        if reader.next.text != "}":
            reader.expect(",")
    return given


def _read_value(reader: _Reader) -> Any:
    """A word, number, string or tuple of values, not yet fitted to a type."""
    if reader.accept("["):
        items = []
        while not reader.accept("]"):
            items.append(_read_value(reader))
            if reader.next.text != "]":
                reader.expect(",")
        return tuple(items)
    token = reader.next
    if token.kind == "word":
        return _Word(reader.take().text)
    if token.kind == "string":
        return _string(reader)
    if token.kind == "number":
        return _number(reader.take().text)
    raise reader.unexpected("a value")


def _string(reader: _Reader) -> str:
    token = reader.take()
    try:
        return str(json.loads(token.text))
    except ValueError:
        raise reader.error("this string has an escape that JSON does not know", token) from None


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
