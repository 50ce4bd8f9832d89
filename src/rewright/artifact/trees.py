"""Trees of arguments and results as JSON, and back without the classes of the model.

    None                                                a leaf
    {"class": "builtins.dict", "context": ["a", "b"], "children": [None, None]}

A file never makes this process import what it names. A class is looked for, in this order,

1. among the containers of Python and torch, of :data:`_BUILTINS`;
2. among the classes that are registered as pytrees in this process; for named tuples, among the
   classes of the modules that are loaded;
3. in the libraries of :data:`_LIBRARIES`, if it stands where they keep such classes. These, and
   only these, are imported.

What is found nowhere is a :class:`~rewright.artifact.records.Record` in results, with one warning,
and a named tuple is one with the same fields; in arguments it is an error, for a caller has to make
such objects.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import attrs
import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree
from torch.utils._pytree import SUPPORTED_NODES, TreeSpec

from rewright.artifact.plain import NotPlainError, decode, encode
from rewright.artifact.records import Record
from rewright.caller import warn
from rewright.errors import ArtifactError, RewrightWarning
from rewright.ir.trees import child_keys, children, is_leaf

_LEAF: Final = pytree.tree_structure(0)

_DEEPEST: Final = 200
"""Trees are walked by functions that call themselves."""


@attrs.frozen
class _Library:
    """A library whose classes may be imported because a file names them.

    Attributes:
        modules: where it keeps classes of results; nothing there runs anything when imported.
        register: makes the classes pytrees, where importing them does not: ``module:function``.
    """

    modules: re.Pattern[str]
    register: str | None = None


_LIBRARIES: Final = (
    _Library(re.compile(r"transformers\.modeling_outputs")),
    _Library(re.compile(r"transformers\.models\.\w+\.modeling_\w+")),
    _Library(
        re.compile(r"transformers\.cache_utils"),
        "transformers.integrations.executorch:register_dynamic_cache_export_support",
    ),
    _Library(re.compile(r"diffusers\.models(\.\w+)+")),
)

# --------------------------------------------------------------------------- containers

_FACTORIES: Final = {
    kind.__name__: kind for kind in (bool, dict, float, int, list, set, str, tuple)
}


def _default_context(context: Any) -> Any:
    factory, keys = context
    if factory is not None and _FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
        raise NotPlainError(f"the default of a defaultdict is {factory!r}")
    return [factory and factory.__name__, encode(keys)]


def _default_from(context: Any) -> Any:
    name, keys = context
    return [None if name is None else _FACTORIES[name], _keys(keys)]


def _keys(context: Any) -> list[Any]:
    keys = decode(context)
    if not isinstance(keys, list) or len({*keys}) != len(keys):
        raise ValueError("the keys of a dict are no list of different keys")
    return keys


def _nothing(context: Any) -> None:
    if context is not None:
        raise ValueError(f"a sequence has the context {context!r}")


def _length(context: Any) -> int | None:
    if context is not None and type(context) is not int:
        raise ValueError("the length of a deque is no number")
    return context


_BUILTINS: Final[Mapping[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    f"{kind.__module__}.{kind.__name__}": (kind, to, back)
    for kind, to, back in (
        (tuple, encode, _nothing),
        (list, encode, _nothing),
        (torch.Size, encode, _nothing),
        (immutable_list, encode, _nothing),
        (dict, encode, _keys),
        (collections.OrderedDict, encode, _keys),
        (immutable_dict, encode, _keys),
        (collections.defaultdict, _default_context, _default_from),
        (collections.deque, encode, _length),
    )
}
"""Containers, each with what its context is as JSON, and back."""

_NAMED_TUPLE: Final = "namedtuple"


# --------------------------------------------------------------------------- writing


def encode_tree(spec: TreeSpec | None, where: str) -> Any:
    """A tree as JSON.

    Args:
        spec: a tree, or None where there is none.
        where: what it is the tree of, for errors.

    Raises:
        ArtifactError: a class in it keeps a context that is no plain value.
    """
    return None if spec is None else {"tree": _encode(spec, where)}


def _encode(spec: TreeSpec, where: str) -> Any:
    if is_leaf(spec):
        return None
    subtrees = children(spec)
    below = [_encode(child, where) for child in subtrees]
    if spec.type is collections.namedtuple:
        return {
            "class": _NAMED_TUPLE,
            "context": name_of(spec.context),
            "fields": list(spec.context._fields),
            "children": below,
        }
    name = name_of(spec.type)
    known = _BUILTINS.get(name)
    try:
        context = known[1](spec.context) if known else encode(spec.context)
    except NotPlainError as error:
        raise ArtifactError(
            f"{where} holds a {name}, which keeps a context that can't be saved: {error}",
            hint="return tensors, tuples, lists and dicts, or register the class with names only",
        ) from None
    made = {"class": name, "context": context, "children": below}
    if known is None:
        fields = _fields(spec, len(subtrees))
        declared = (
            [f.name for f in dataclasses.fields(spec.type)]
            if dataclasses.is_dataclass(spec.type)
            else []
        )
        made |= {"fields": fields, "absent": [n for n in declared if n not in fields]}
    return made


def name_of(kind: type) -> str:
    """The name of a class, with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _fields(spec: TreeSpec, count: int) -> list[str]:
    """What the class itself calls its parts, as far as it says."""
    names = [_key(key) for key in child_keys(spec)]
    if len({*names}) != count:
        names = [f"field{number}" for number in range(count)]
    return names


def _key(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            found = getattr(key, attribute)
            return found if isinstance(found, str) else f"field{found}"
    return str(key)


# --------------------------------------------------------------------------- reading


def decode_tree(made: Any, where: str, *, replace: bool) -> TreeSpec | None:
    """The tree that :func:`encode_tree` gave as `made`.

    Args:
        made: JSON.
        where: what it is the tree of, for messages.
        replace: whether classes that are not at hand are replaced by records.

    Raises:
        ArtifactError: a class is not at hand.
        ValueError, TypeError, LookupError: `made` is no tree.
    """
    if made is None:
        return None
    missing: dict[str, None] = {}
    spec = _decode(made["tree"], where, missing if replace else None, 0)
    if missing:
        warn(
            f"{where} holds objects of {', '.join(missing)}, which this process does not have: "
            "records with the same fields stand for them\n"
            "  import the module that defines and registers the class before rewright.load",
            RewrightWarning,
        )
    return spec


def _decode(tree: Any, where: str, missing: dict[str, None] | None, depth: int) -> TreeSpec:
    if depth > _DEEPEST:
        raise ValueError("a tree is too deep")
    if tree is None:
        return _LEAF
    name, context = tree["class"], tree["context"]
    below = [_decode(child, where, missing, depth + 1) for child in tree["children"]]
    if not isinstance(name, str):
        raise TypeError("the name of a class is no text")
    if name in _BUILTINS:
        kind, _, back = _BUILTINS[name]
        held = back(context)
        keys = held[1] if kind is collections.defaultdict else held
        if isinstance(keys, list) and len(keys) != len(below):
            raise ValueError(f"{len(below)} values for the keys {keys}")
        return TreeSpec(kind, held, below)
    fields = tree["fields"]
    if not _are_names(fields) or len(fields) != len(below):
        raise ValueError(f"the fields of {name} are not those of its values")
    if name == _NAMED_TUPLE:
        named = _named_tuple(context, tuple(fields), where, missing)
        return TreeSpec(collections.namedtuple, named, below)
    found = _registered(name) or _imported(name)
    if found is not None:
        return TreeSpec(found, decode(context), below)
    if missing is None:
        raise _not_here(name, where)
    if not _are_names(tree["absent"]):
        raise ValueError(f"the absent fields of {name} are no names")
    missing[name] = None
    return TreeSpec(Record, [name, fields, tree["absent"]], below)


def _are_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(item, str) for item in found)


def _not_here(name: str, where: str) -> ArtifactError:
    module = name.rpartition(".")[0]
    return ArtifactError(
        f"{where} hold objects of {name}, a class that this process does not have",
        hint=f"import {module}, and register the class as a pytree, before rewright.load: "
        "loading a file never imports what it names",
    )


def _registered(name: str) -> type | None:
    """The class of that name that is registered as a pytree."""
    return next((kind for kind in SUPPORTED_NODES if _is_called(kind, name)), None)


def _is_called(kind: Any, name: str) -> bool:
    return isinstance(kind, type) and name_of(kind) == name


def _imported(name: str) -> type | None:
    """The class of that name in one of the libraries that may be imported."""
    module = name.rpartition(".")[0]
    for library in _LIBRARIES:
        if library.modules.fullmatch(module):
            try:
                import_module(module)
                if library.register is not None:
                    place, _, function = library.register.partition(":")
                    getattr(import_module(place), function)()
            except (ImportError, AttributeError):  # not installed, or another version
                return None
            return _registered(name)
    return None


def _named_tuple(
    name: Any, fields: tuple[str, ...], where: str, missing: dict[str, None] | None
) -> type:
    """The class of a named tuple: the one that is loaded here, or one just like it."""
    if not isinstance(name, str):
        raise TypeError("the name of a class is no text")
    for kind in _loaded(name):
        if issubclass(kind, tuple) and getattr(kind, "_fields", None) == fields:
            return kind
    if missing is None:
        raise _not_here(name, where)
    short = name.rpartition(".")[2]
    return collections.namedtuple(short, fields)


def _loaded(name: str) -> Iterator[type]:
    """The class of that name, if its module is loaded. Runs nothing: modules may make names."""
    path = name.split(".")
    for cut in range(len(path) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(path[:cut]))
        for part in path[cut:]:
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if isinstance(found, type):
            yield found
