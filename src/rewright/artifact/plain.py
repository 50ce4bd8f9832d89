"""Plain Python values as JSON that reads back to the very same values.

None True 7 "text"           themselves
[1, 2]                       [1, 2]
(1, 2)                       {"tuple": [1, 2]}
{"a": 1}                     {"dict": [["a", 1]]}
0.5  nan  -0.0               {"float": "0.5"} ...
1+2j                         {"complex": ["1.0", "2.0"]}
torch.float16                {"dtype": "float16"}      (layouts, memory formats, devices too)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

_LONGEST_INT: Final = 40
"""Digits of an integer in JSON. Python reads long ones in quadratic time, or not at all."""


class NotPlainError(Exception):
    """A value that is written as JSON is none that reads back."""


# --------------------------------------------------------------------------- text


def dumps(value: Any) -> bytes:
    """`value` as JSON: the same bytes for the same value."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1, sort_keys=True)
    return f"{text}\n".encode("ascii")


def loads(data: bytes) -> Any:
    """The JSON in `data`.

    Raises:
        ValueError, RecursionError: it is none; has a key twice, an absurd number, or brackets
            within brackets without end.
    """
    return json.loads(
        data.decode("ascii"),
        object_pairs_hook=_unique,
        parse_int=_int,
        parse_constant=_no_constant,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _int(text: str) -> int:
    if len(text) > _LONGEST_INT:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


# --------------------------------------------------------------------------- values


def encode(value: Any) -> Any:
    """`value` as JSON.

    Raises:
        NotPlainError: it is, or holds, an object of a class that has no such form.
    """
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if len(str(abs(value))) < _LONGEST_INT else {"int": hex(value)}
    if type(value) is list:
        return [encode(item) for item in value]
    kind = next((name for name, form in _FORMS.items() if form[0](value)), None)
    if kind is None:
        raise NotPlainError(f"{value!r:.200} is a {type(value).__module__}.{type(value).__name__}")
    return {kind: _FORMS[kind][1](value)}


def decode(value: Any) -> Any:
    """The value that :func:`encode` gave as `value`.

    Raises:
        ValueError, TypeError: it is none.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind not in _FORMS:
        raise ValueError(f"there is no kind of value {kind!r}")
    return _FORMS[kind][2](held)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _is_torch(name: str) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        import torch

        return isinstance(value, getattr(torch, name))

    return test


def _named(name: str) -> Callable[[Any], Any]:
    """The object of a class of torch's that torch calls so."""

    def find(text: Any) -> Any:
        import torch

        kind = getattr(torch, name)
        for found in vars(torch).values():
            if isinstance(found, kind) and str(found) == f"torch.{text}":
                return found
        raise ValueError(f"torch has no {name} {text!r}")

    return find


def _torch_name(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _device(text: Any) -> Any:
    import torch

    try:
        return torch.device(str(text))
    except RuntimeError:
        raise ValueError(f"there is no device {text!r}") from None


_FORMS: Final[
    Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any], Callable[[Any], Any]]]
] = {
    "int": (_is(int), hex, lambda text: int(text, 16)),
    "float": (_is(float), repr, float),
    "complex": (
        _is(complex),
        lambda value: [repr(value.real), repr(value.imag)],
        lambda parts: complex(float(parts[0]), float(parts[1])),
    ),
    "tuple": (_is(tuple), lambda value: [*map(encode, value)], lambda v: tuple(map(decode, v))),
    "dict": (
        _is(dict),
        lambda value: [[encode(key), encode(item)] for key, item in value.items()],
        lambda pairs: {decode(key): decode(item) for key, item in pairs},
    ),
    "dtype": (_is_torch("dtype"), _torch_name, _named("dtype")),
    "layout": (_is_torch("layout"), _torch_name, _named("layout")),
    "memory_format": (_is_torch("memory_format"), _torch_name, _named("memory_format")),
    "device": (_is_torch("device"), str, _device),
}
"""Each kind: what it is for, as JSON, and back."""
