"""How torch computes the ops of ours: implementations, declared beside the reference.

An op of ``rw.`` means what its reference function says (:mod:`rewright.ir.rw_ops`), and without
an implementation that is what runs. An implementation is another function of the same
parameters, for the nodes that its condition accepts; the first declared one that does is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs
from torch import Tensor

from rewright.backends.torch.runtime import restride
from rewright.ir.graph import Node
from rewright.ir.ops import Op

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Implementation:
    """A function that computes an op.

    Attributes:
        op: the op's name.
        name: the function's name, unique among all.
        function: takes the op's parameters.
        when: whether it can take a node; it is given the node.
    """

    op: str
    name: str
    function: Callable[..., Any]
    when: Callable[[Node], bool]


_table: Final[dict[str, list[Implementation]]] = {}
_by_name: Final[dict[str, Implementation]] = {}


def implements(op: str, *, when: Callable[[Node], bool] = lambda _: True) -> Callable[[F], F]:
    """Declares a function as an implementation of the op called `op`.

    Raises:
        ValueError: another implementation has the function's name.
    """

    def declare(function: F) -> F:
        made = Implementation(op, function.__name__, function, when)
        if made.name in _by_name:
            raise ValueError(f"there are two implementations called {made.name}")
        _by_name[made.name] = made
        _table.setdefault(op, []).append(made)
        return function

    return declare


def implementations() -> tuple[Implementation, ...]:
    """All that are declared, in order."""
    return tuple(_by_name.values())


def implementation_of(op: Op, node: Node | None) -> Implementation | None:
    """What computes `node`, or None where that is the op's own function."""
    if node is None:
        return None
    return next((item for item in _table.get(op.name, ()) if item.when(node)), None)


def implementation(name: str) -> Callable[..., Any]:
    """The function of the implementation called `name`; generated source asks for it."""
    return _by_name[name].function


# --------------------------------------------------------------------------- the table


@implements("rw.layout")
def layout(tensor: Tensor, strides: Sequence[int]) -> Tensor:
    """The same numbers at these strides, copied only where they are not there already."""
    return restride(tensor, strides)
