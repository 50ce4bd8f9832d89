"""The passes there are, by name: ours, those of installed packages, and a user's own.

    @register_pass
    @attrs.frozen
    class MyPass(Pass):
        ...

A package makes its passes known without being imported first by an entry point of the group
``rewright.passes``, whose name is that of the pass:

    [project.entry-points."rewright.passes"]
    my-pass = "my_package.passes:MyPass"

Registering makes a name known and nothing else: what a compile runs is its pipeline.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

import attrs

from rewright.errors import PassError, RewrightError, did_you_mean
from rewright.ir.stages import STAGES
from rewright.passes.manager import Pass
from rewright.passes.pipeline_text import REPEAT, option_types
from rewright.passes.rule import Rule, short_path

_log: Final = logging.getLogger(__name__)

P = TypeVar("P", bound=type[Pass])

GROUP: Final = "rewright.passes"
"""The group of entry points by which installed packages make their passes known."""

DEFAULT: Final = "default"
"""In the text of a compile's pipeline, the pipeline that it would have otherwise."""

_BUILTIN: Final = (
    "rewright.passes.cse",
    "rewright.passes.dce",
    "rewright.passes.decomposition.decompose",
    "rewright.passes.folding.fold_constants",
    "rewright.passes.fusion",
    "rewright.passes.layout.channels_last",
    "rewright.passes.layout.transpositions",
    "rewright.passes.simplify.canonicalize",
    "rewright.passes.partition.partition",
    "rewright.passes.partition.rest",
    "rewright.passes.precision.precision",
    "rewright.passes.precision.truncate_double",
    "rewright.passes.reinplace.reinplace",
    "rewright.passes.verify",
)
"""The modules that register our own passes."""

HOW_TO_KNOW: Final = (
    "`rewright passes` lists what is known; what is yours is known once its file is imported "
    "(rewright opt: --load FILE)"
)
"""A hint for the name of a pass or rule that nothing is like."""

_lock: Final = threading.RLock()
_passes: Final[dict[str, type[Pass]]] = {}


def register_pass(cls: P) -> P:
    """Makes a pass known by its name; a decorator.

    A class that is declared again (in a notebook, by a reload) takes the place of its former self.

    Raises:
        PassError: another pass has the name (one of ours, say), or a rule of another pass has that
            of one of its rules, or the class is not well declared.
    """
    _check(cls)
    if not _is_ours(cls):
        _load_builtin()  # or a name of ours would be found taken by the first compile only
    with _lock:
        other = _passes.get(cls.name)
        if other is not None and _path(other) != _path(cls):
            raise PassError(
                f"there is a pass called {cls.name} already",
                pass_name=cls.name,
                where=f"{location_of(other)} and {location_of(cls)}",
                hint=_another_name(cls, other),
            )
        _check_rules(cls)
        _passes[cls.name] = cls
    return cls


def _check_rules(cls: type[Pass]) -> None:
    """Refuses a pass with a rule that is called like another: rules are found by their names."""
    others = [
        rule for name, known in _passes.items() if name != cls.name for rule in known.all_rules()
    ]
    taken = {rule.name: rule for rule in others}
    for rule in cls.all_rules():
        other = taken.setdefault(rule.name, rule)
        if _path(other) != _path(rule):
            raise PassError(
                f"there is a rule called {rule.name} already",
                pass_name=cls.name,
                where=f"{location_of(other)} and {location_of(rule)}",
                hint=_another_name(rule, other),
            )


def _is_ours(cls: type[Pass | Rule]) -> bool:
    return cls.__module__.startswith("rewright.passes.")


def _another_name(cls: type[Pass | Rule], other: type[Pass | Rule]) -> str:
    if not _is_ours(other):
        return "give one of them another `name`"
    return (
        f'{cls.name} is one of Rewright\'s own: write `name = "my-{cls.name}"` in the class '
        f"{cls.__name__}, or call the class otherwise"
    )


def _path(cls: type[Pass | Rule]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _check(cls: Any) -> None:
    """Refuses what could not stand in a pipeline."""
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise PassError(f"{cls!r} is no pass", hint="derive the class from rewright.passes.Pass")
    stated = {name for name in inspect.get_annotations(cls) if not name.startswith("_")}
    lost = {name for name in stated if not _is_class_variable(cls, name)} - {
        field.name for field in attrs.fields(cls)
    }
    if lost:
        raise PassError(
            f"{sorted(lost)[0]!r} of pass {cls.name} is not one of its options",
            pass_name=cls.name,
            where=location_of(cls),
            hint=f"put @attrs.frozen above `class {cls.__name__}`, or annotate it as a ClassVar",
        )
    if cls.name in (REPEAT, DEFAULT):
        raise PassError(f"no pass may be called {cls.name}", hint="give it another `name`")
    for stage in (cls.needs_stage, cls.gives_stage):
        if stage is not None and stage not in STAGES:
            raise PassError(
                f"pass {cls.name} names the stage {stage!r}", hint=did_you_mean(stage, STAGES)
            )
    option_types(cls)
    cls.all_rules()


def _is_class_variable(cls: type, name: str) -> bool:
    return "ClassVar" in str(inspect.get_annotations(cls)[name])


# --------------------------------------------------------------------------- looking up


def get_pass(name: str) -> type[Pass]:
    """The pass called `name`.

    Raises:
        PassError: there is none, with the nearest name; or the package that has it can't be loaded.
    """
    _load_builtin()
    for entry in _entries(tuple(sys.path)):
        if entry.name == name:
            _load(entry)
    if name not in _passes:
        known = {*_passes, *(entry.name for entry in _entries(tuple(sys.path))), REPEAT}
        raise PassError(
            f"there is no pass {name!r}",
            pass_name=name,
            hint=did_you_mean(name, known, otherwise=HOW_TO_KNOW),
        )
    return _passes[name]


def is_installed(cls: type[Pass]) -> bool:
    """Whether `cls` is known without anybody importing its module: ours, or by an entry point."""
    if _is_ours(cls):
        return True
    entries = entry_points(group=GROUP, name=cls.name)
    return any(entry.value == f"{cls.__module__}:{cls.__qualname__}" for entry in entries)


def all_passes() -> dict[str, type[Pass]]:
    """Every pass, by name, in alphabetical order.

    A package whose passes can't be loaded is left out, with a warning in the log.
    """
    _load_builtin()
    for entry in _entries(tuple(sys.path)):
        try:
            _load(entry)
        except PassError as error:
            _log.warning("%s", error)
    return dict(sorted(_passes.items()))


def all_rules() -> dict[str, type[Rule]]:
    """Every rule of every pass, by name, in alphabetical order."""
    rules = {rule.name: rule for cls in all_passes().values() for rule in cls.all_rules()}
    return dict(sorted(rules.items()))


def location_of(cls: type[Pass | Rule]) -> str:
    """Where a pass or rule is declared: ``passes/dce.py:12``."""
    try:
        path = inspect.getsourcefile(cls) or ""
        return f"{short_path(path)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return cls.__module__


def _load_builtin() -> None:
    for module in _BUILTIN:
        import_module(module)


@lru_cache(maxsize=4)
def _entries(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of installed packages on `path`: to look for them takes milliseconds."""
    return tuple(entry_points(group=GROUP))


def _load(entry: EntryPoint) -> None:
    """Registers the pass that an entry point leads to, unless that was done.

    Raises:
        PassError: it can't be loaded, or another pass has its name already.
    """
    known = _passes.get(entry.name)
    if known is not None and entry.value == ":".join(_path(known)):
        return
    source = f"the entry point {entry.name} = {entry.value!r} of {_package(entry)}"
    try:
        found = entry.load()
        register_pass(found)
    except Exception as error:
        what = error.message if isinstance(error, RewrightError) else f"{error}"
        raise PassError(
            f"pass {entry.name} can't be loaded: {what}",
            pass_name=entry.name,
            where=source,
            hint="repair that package or uninstall it",
        ) from error
    if found.name != entry.name:
        raise PassError(
            f"pass {entry.name} can't be loaded: the class is called {found.name}",
            pass_name=entry.name,
            where=source,
            hint="the entry point and the pass have one name",
        )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"
