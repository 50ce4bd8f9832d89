"""What is legal for settings: a text that says so, and a function that checks and converts.

A function takes what a user gave and returns what :class:`~rewright.settings.Settings` holds, or
raises ValueError, which becomes an error with the setting's name and the text.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias, final

import attrs

from rewright.errors import SettingsError, did_you_mean

Scalar: TypeAlias = bool | int | float | str | None


@final
class Options(Mapping[str, Scalar]):
    """An immutable mapping from names to plain values: hashable, ordered by name, picklable."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Scalar] = MappingProxyType({})) -> None:
        self._items = {name: items[name] for name in sorted(items)}

    def __getitem__(self, name: str) -> Scalar:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@attrs.frozen
class Legal:
    """The legal values of a setting.

    Attributes:
        text: which they are, for messages and tables.
        convert: brings one into its canonical form.

    Raises:
        ValueError: by `convert`: the value is not one of them.
    """

    text: str
    convert: Callable[[Any], Any]


def setting(legal: Legal, *, default: Any, doc: str) -> Any:
    """An attribute of the settings' class."""

    def convert(value: Any, field: Any) -> Any:
        try:
            return legal.convert(value)
        except SettingsError:  # says more than that
            raise
        except ValueError:
            raise SettingsError(
                f"{value!r} is not a legal value of the setting {field.name!r}",
                setting=field.name,
                hint=f"legal values: {legal.text}",
            ) from None

    converter = attrs.Converter(convert, takes_field=True)
    return attrs.field(
        default=default, converter=converter, metadata={"legal": legal.text, "doc": doc}
    )


def choice(*choices: str, default: str, doc: str) -> Any:
    """A setting that is one of a few words."""
    return setting(_words(*choices), default=default, doc=doc)


def flag(*, doc: str) -> Any:
    """A setting that is on or off; off by default."""
    return setting(_FLAG, default=False, doc=doc)


# --------------------------------------------------------------------------- kinds of values


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _words(*words: str | None) -> Legal:
    def convert(value: Any) -> Any:
        _require(isinstance(value, str | None) and value in words)
        return value

    return Legal(", ".join(map(repr, words)), convert)


def _whole(text: str, least: int, most: float = float("inf"), *, optional: bool = False) -> Legal:
    def convert(value: Any) -> Any:
        if value is None:
            _require(optional)
        else:
            _require(isinstance(value, int) and not isinstance(value, bool))
            _require(least <= value <= most)
        return value

    return Legal(text, convert)


def _bool(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _path(value: Any) -> str | None:
    _require(value is None or (isinstance(value, str | os.PathLike) and str(value) != ""))
    return None if value is None else str(value)


def _text(value: Any) -> Any:
    _require(value is None or (isinstance(value, str) and value != ""))
    return value


def _device(value: Any) -> str | None:
    """The canonical text of a device. torch is not imported: ``str(torch.device)`` is text."""
    _require(value is None or re.fullmatch(r"cpu|cuda(:\d+)?", str(value)) is not None)
    return None if value is None else str(value)


def _target(value: Any) -> Any:
    """The target; which compute capabilities there are, the library knows."""
    pattern = r"auto|cpu|cuda|tensorrt|rtx(:\d+\.\d(,\s*\d+\.\d)*)?"
    _require(isinstance(value, str) and re.fullmatch(pattern, value) is not None)
    return value


def _globs(value: Any) -> tuple[str, ...]:
    """Names; a single text is no sequence of letters."""
    _require(isinstance(value, Sequence | frozenset | set) and not isinstance(value, str | bytes))
    ordered = sorted(value) if isinstance(value, frozenset | set) else value
    _require(all(isinstance(item, str) and item for item in ordered))
    return tuple(ordered)


def _kernels(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping))
    for name in value:
        if name not in KERNEL_NAMES:
            raise SettingsError(
                f"there is no kernel {name!r} to switch off",
                setting="disabled_kernels",
                hint=did_you_mean(str(name), KERNEL_NAMES),
            )
    return tuple(sorted({*value}))


def _numerics(value: Any) -> bool | float:
    _require(isinstance(value, bool) or (isinstance(value, float) and value > 0))
    return value  # type: ignore[no-any-return]


def _pipeline(value: Any) -> Any:
    """A pipeline, or its text. What it means is known to `rewright.passes`, which is above this."""
    _require(value is None or isinstance(value, str) or hasattr(value, "steps"))
    return value


def _inductor_options(value: Any) -> Options:
    """The options as plain values, their names known to the installed Inductor."""
    if isinstance(value, Options):
        return value
    _require(isinstance(value, Mapping))
    if value:
        from torch._inductor import list_options

        known = list_options()
        for name, option in value.items():
            if name not in known:
                raise SettingsError(
                    f"Inductor has no option {name!r}",
                    setting="inductor_options",
                    hint=did_you_mean(str(name), known),
                )
            if not isinstance(option, Scalar):
                raise SettingsError(
                    f"the Inductor option {name!r} has the value {option!r}",
                    setting="inductor_options",
                    hint="bool, int, float, str and None can be given here",
                )
    return Options(value)


KERNEL_NAMES: Final = ("attention", "conv-relu", "depthwise")
"""The choices of kernels that can be switched off."""

_FLAG: Final = Legal("True, False", _bool)
LEVEL: Final = _whole("0, 1, 2, 3", 0, 3)
ENGINE_LEVEL: Final = _whole("None, or 0 to 5", 0, 5, optional=True)
COUNT: Final = _whole("an integer, at least 1", 1)
BYTES: Final = _whole("None, or a number of bytes above 0", 1, optional=True)
BUDGET: Final = _whole("None, or a number of bytes, 0 among them", 0, optional=True)
NUMERICS: Final = Legal("True, False, or a tolerance above 0", _numerics)
FILE: Final = Legal("None, or the path of a file", _path)
FOLDER: Final = Legal("None, or the path of a folder", _path)
TEXT: Final = Legal("None, or a text", _text)
PIPELINE: Final = Legal("None, a rewright.passes.Pipeline, or its text", _pipeline)
TARGET: Final = Legal(
    "'auto', 'cpu', 'cuda', 'rtx', 'rtx:8.9,12.0' (compute capabilities), 'tensorrt'", _target
)
HARDWARE: Final = _words(None, "ampere+", "same-capability")
PRECISION: Final = _words(None, "fp32", "fp16", "bf16")
KERNELS: Final = Legal(f"a sequence of {', '.join(map(repr, KERNEL_NAMES))}", _kernels)
GLOBS: Final = Legal("a sequence of names, in which * stands for anything", _globs)
DEVICE: Final = Legal("None, 'cpu', 'cuda', 'cuda:N', or such a torch.device", _device)
INDUCTOR_OPTIONS: Final = Legal(
    "a mapping from names of torch._inductor.config to plain values", _inductor_options
)
