"""Nested arguments and results: taken apart and put together, in words or as generated code.

Trees are torch's pytrees. The generated code knows tuples, lists and dicts itself; every other
registered class goes through the functions that it was registered with.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
from torch.utils._pytree import SUPPORTED_NODES, TreeSpec

from rewright.backends.torch.source import Module, Names, tuple_of
from rewright.errors import InputError
from rewright.ir.trees import children as children
from rewright.ir.trees import is_leaf as is_leaf

_PLAIN: Final = (tuple, list, dict)


def class_of(spec: TreeSpec) -> type:
    """The class of the container that `spec` stands for."""
    return spec.context if spec.type is namedtuple else spec.type


# --------------------------------------------------------------------------- in words


def take_apart(spec: TreeSpec, value: Any, path: str, name: str) -> Iterator[Any]:
    """The leaves of `value`.

    Args:
        spec: the structure that it must have.
        value: what a caller gave.
        path: what it is called.
        name: the argument that it is a part of.

    Raises:
        InputError: it has another structure.
    """
    if is_leaf(spec):
        yield value
        return
    expected = class_of(spec)
    if type(value) is not expected:
        raise _other(path, name, _described(spec), f"a {type(value).__qualname__}")
    given: Any = value
    if expected is dict:
        if given.keys() != set(spec.context):
            raise _other(path, name, f"the keys {spec.context}", f"{[*given]}")
        parts = [given[key] for key in spec.context]
        keys = [f"[{key!r}]" for key in spec.context]
    else:
        parts, context = SUPPORTED_NODES[spec.type].flatten_fn(given)
        keys = [f"[{index}]" for index in range(len(parts))]
        if len(parts) != spec.num_children:
            raise _other(path, name, f"{spec.num_children} elements", f"{len(parts)}")
        if context != spec.context:
            raise _other(path, name, f"the structure {spec.context}", f"{context}")
    for child, part, key in zip(children(spec), parts, keys, strict=True):
        yield from take_apart(child, part, path + key, name)


def _described(spec: TreeSpec) -> str:
    described = f"a {class_of(spec).__qualname__}"
    return f"{described} of {spec.num_children}" if spec.type in (tuple, list) else described


def _other(path: str, name: str, expected: str, got: str) -> InputError:
    return InputError(
        f"{path}: expected {expected}, got {got}",
        name=name,
        hint="arguments must be nested as they were when the program was compiled",
    )


# --------------------------------------------------------------------------- as generated code


@attrs.define(eq=False)
class Unpacker:
    """Writes the statements that take arguments apart.

    Attributes:
        module: what they are written to.
        names: the local names.
        spell: how a builtin is spelled where an argument may have its name.
        tests: the conditions under which the statements are right, as they come up.
        leaves: the names of the leaves, in order.
    """

    module: Module
    names: Names
    spell: Callable[[str], str]
    tests: list[str] = attrs.field(factory=list)
    leaves: list[str] = attrs.field(factory=list)

    def unpack(self, spec: TreeSpec, name: str) -> None:
        """Takes apart what is called `name`."""
        if is_leaf(spec):
            self.leaves.append(name)
            return
        parts = [self.names.unique(f"{name}_{key}") for key in _keys(spec)]
        self._take(spec, name, parts)
        for child, part in zip(children(spec), parts, strict=True):
            self.unpack(child, part)

    def _take(self, spec: TreeSpec, name: str, parts: Sequence[str]) -> None:
        left = tuple_of(parts)
        expected = class_of(spec)
        text = expected.__name__ if expected in _PLAIN else ""
        kind = self.spell(text) if text else self.module.hold(expected.__name__, expected)
        if expected is not dict:
            self.tests.append(f"{self.spell('type')}({name}) is {kind}")
        if expected is dict:
            # At once: torch warns of a tensor that is indexed by a string.
            with self.module.block(f"if {self.spell('type')}({name}) is not {kind}:"):
                self.module.line(f"raise {self.spell('Exception')}")
            self.tests.append(f"{self.spell('len')}({name}) == {len(parts)}")
            for part, key in zip(parts, spec.context, strict=True):
                self.module.line(f"{part} = {name}[{self._key(key)}]")
        elif expected in (tuple, list):
            self.module.line(f"{left} = {name}")
        else:
            flatten = self.module.hold("flatten", SUPPORTED_NODES[spec.type].flatten_fn)
            context = self.names.unique(f"{name}_context")
            self.module.line(f"{left}, {context} = {flatten}({name})")
            self.tests.append(f"{context} == {self.module.hold('context', spec.context)}")

    def _key(self, key: Any) -> str:
        return repr(key) if isinstance(key, str | int) else self.module.hold("key", key)


def _keys(spec: TreeSpec) -> list[Any]:
    return list(spec.context) if spec.type is dict else list(range(spec.num_children))


def build(spec: TreeSpec, leaves: Iterator[str], module: Module) -> str:
    """The expression that puts `leaves` (source) together."""
    if is_leaf(spec):
        return next(leaves)
    parts = [build(child, leaves, module) for child in children(spec)]
    if spec.type is tuple:
        return tuple_of(parts)
    if spec.type is list:
        return f"[{', '.join(parts)}]"
    if spec.type is dict and all(isinstance(key, str) for key in spec.context):
        items = (f"{key!r}: {part}" for key, part in zip(spec.context, parts, strict=True))
        return f"{{{', '.join(items)}}}"
    make = module.hold("unflatten", SUPPORTED_NODES[spec.type].unflatten_fn)
    return f"{make}([{', '.join(parts)}], {module.hold('context', spec.context)})"
