"""Python source under construction: unique names, indented lines, and the objects they use.

The text is a whole module: run it and it defines what it says, but for the few objects that
have no text of their own (a compiled function, an opaque attribute), which are put into the
module's namespace before it runs. Names that the module defines for itself begin with an
underscore, local ones do not, so that neither can hide the other.
"""

from __future__ import annotations

import contextlib
import keyword
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import sympy
import torch

from rewright.caller import GENERATED
from rewright.errors import UnsupportedError
from rewright.ir.attributes import Opaque, Record
from rewright.ir.sizes import to_python

_NO_NAME: Final = re.compile(r"\W+", re.ASCII)
_WORD: Final = re.compile(r"\b[A-Za-z_]\w*", re.ASCII)

IMPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("math", "torch"),
    "math": ("inf", "nan"),
    "torch": ("Tensor", "is_grad_enabled"),
    "torch._C": (
        *("_fft", "_linalg", "_nn", "_special", "_VariableFunctions"),
        *("_is_alias_of", "_is_any_autocast_enabled"),
    ),
    "rewright.backends.torch.implementations": ("implementation",),
    "rewright.backends.torch.runtime": (
        *("bind_all", "check_failed", "flat", "operator", "restride"),
    ),
}
"""What generated source may import: the names, by module (``""``: modules themselves)."""

_BUILTINS: Final = (
    *("abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "round", "str"),
    *("tuple", "type", "Exception", "complex"),
)
RESERVED: Final = frozenset([*_BUILTINS, *(name for names in IMPORTS.values() for name in names)])
"""Names that mean something in generated source, and that no value may have."""


class Names:
    """Hands out Python identifiers, each once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*RESERVED, *keyword.kwlist, *keyword.softkwlist, *taken}
        self._count: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        """A local name as near to `hint` as can be: ``layers.0.weight`` is ``layers_0_weight``."""
        name = _NO_NAME.sub("_", hint).strip("_") or "v"
        return self._first_free(name if not name[0].isdigit() else f"v{name}")

    def private(self, hint: str) -> str:
        """A name for the module, with an underscore before it."""
        return self._first_free("_" + _NO_NAME.sub("_", hint).strip("_"))

    def _first_free(self, name: str) -> str:
        candidate = name
        while candidate in self._taken:
            self._count[name] = self._count.get(name, 0) + 1
            candidate = f"{name}_{self._count[name]}"
        self._taken.add(candidate)
        return candidate


@attrs.define(eq=False)
class Module:
    """The text of a module, written from top to bottom.

    Attributes:
        title: the comment that it begins with.
        names: the names that the module defines.
        without: the kernels that it may not call, by name.
        objects: what the text uses and can't say, by name.
    """

    title: str
    names: Names = attrs.field(factory=Names)
    without: frozenset[str] = frozenset()
    objects: dict[str, Any] = attrs.field(factory=dict, init=False)
    _defined: dict[str, str] = attrs.field(factory=dict, init=False)
    _lines: list[str] = attrs.field(factory=list, init=False)
    _depth: int = attrs.field(default=0, init=False)

    def define(self, hint: str, text: str) -> str:
        """The name of a module-level constant whose value is the expression `text`."""
        if text not in self._defined:
            self._defined[text] = self.names.private(hint)
        return self._defined[text]

    def hold(self, hint: str, value: Any) -> str:
        """The name of an object that has no text."""
        for name, held in self.objects.items():
            if held is value:
                return name
        name = self.names.private(hint)
        self.objects[name] = value
        return name

    def __len__(self) -> int:
        """The number of lines so far."""
        return len(self._lines)

    def line(self, text: str = "") -> None:
        """Adds a line at the present depth."""
        self._lines.append("    " * self._depth + text if text else "")

    @contextlib.contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A line that ends in a colon, and what is under it."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def text(self) -> str:
        """The whole source."""
        title = [f"# {line}" for line in self.title.splitlines()]
        defined = [f"{name} = {text}" for text, name in self._defined.items()]
        body = [*defined, "", "", *self._lines] if defined else ["", *self._lines]
        return "\n".join([*title, *_imports("\n".join(body)), "", *body, ""])

    def run(self, name: str) -> dict[str, Any]:
        """The namespace after the source has run; tracebacks show its lines.

        Args:
            name: what tracebacks call the file.
        """
        source = self.text()
        filename = f"{name}{GENERATED}"
        namespace = {"__name__": filename, "__loader__": _Loader(source), **self.objects}
        exec(compile(source, filename, "exec"), namespace)
        return namespace


@attrs.frozen
class _Loader:
    """Gives :mod:`linecache` the source for as long as a function made from it lives."""

    source: str

    def get_source(self, _: str) -> str:
        return self.source


def note_place(error: BaseException) -> None:
    """Adds to an error that a call raised which line of generated source it comes from.

    That line ends with the user's own. Python's own report of an error shows no source that is in
    no file; before Python 3.11 errors take no notes.
    """
    last = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.endswith(GENERATED):
            last = frame, line
    if last is None or not hasattr(error, "add_note"):
        return
    frame, line = last
    name = frame.f_code.co_filename
    # Not by linecache, which knows one source by a name: many programs are called alike.
    source = frame.f_globals["__loader__"].get_source(name)
    text = re.sub(r"\s+#", "  #", source.splitlines()[line - 1].strip())
    note = f"in {name}:{line}: {text}"
    if text and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _imports(body: str) -> list[str]:
    """The imports that `body` needs."""
    used = set(_WORD.findall(body))
    lines = []
    for module, names in IMPORTS.items():
        needed = [name for name in names if name in used]
        if module and needed:
            lines.append(f"from {module} import {', '.join(needed)}")
        elif needed:
            lines += [f"import {name}" for name in needed]
    return lines


def tuple_of(items: Iterable[str]) -> str:
    """The expression of a tuple."""
    parts = [*items]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def targets(names: Iterable[str]) -> str:
    """The left side of an assignment that takes a sequence apart."""
    parts = [*names]
    return f"{parts[0]}," if len(parts) == 1 else ", ".join(parts)


def literal(value: Any, module: Module, symbols: Mapping[sympy.Symbol, str]) -> str:
    """Python source of an attribute that holds neither operands nor regions.

    Raises:
        UnsupportedError: there is no source for such a thing.
    """
    match value:
        case None | bool() | int() | str() | float():
            return repr(value)  # inf and nan are imported
        case complex():
            return f"complex({value.real!r}, {value.imag!r})"
        case sympy.Basic() if value.free_symbols <= symbols.keys():
            return to_python(value, symbols)
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(value)
        case torch.device():
            return module.define(str(value), f"torch.device({str(value)!r})")
        case tuple():
            return tuple_of(literal(item, module, symbols) for item in value)
        case Record():
            items = (f"{name!r}: {literal(item, module, symbols)}" for name, item in value.items)
            return f"{{{', '.join(items)}}}"
        case Opaque():
            return module.hold(value.label, value.value)
    raise UnsupportedError(f"the attribute {value!r} can't be written as Python source")
