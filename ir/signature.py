"""How a program is called: the structure of its arguments and results around a graph.

A graph takes and returns flat lists of values. A :class:`Signature` says how a caller's
arguments flatten to them and how the outputs are put together again, and gives each argument
the name that error messages use.
"""

from __future__ import annotations

from typing import Any

import attrs
from torch.utils._pytree import TreeSpec


@attrs.frozen
class Argument:
    """One leaf of a caller's arguments.

    Attributes:
        name: how the caller knows it: ``x``, ``kwargs['mask']``, ``cache[0].key``.
        input: the number of the graph input that it becomes, or None.
        constant: the name of the source that it binds (a parameter passed by the JIT), or None.
        literal: where it is neither: the value that it was compiled for, and must equal.
    """

    name: str
    input: int | None = None
    constant: str | None = None
    literal: Any = None


@attrs.frozen
class Signature:
    """The flat order of arguments and results, and the trees that they come from.

    Attributes:
        arguments: the leaves of ``(args, kwargs)``, in pytree order.
        in_spec: the tree of ``(args, kwargs)``; None where a caller passes flat arguments.
        out_spec: the tree of the result, whose leaves are the graph's outputs in order; None
            where a caller gets a flat list.
        parameter_names: names of the model's forward parameters, for messages and for calling
            by keyword what was exported by position.
    """

    arguments: tuple[Argument, ...]
    in_spec: TreeSpec | None = None
    out_spec: TreeSpec | None = None
    parameter_names: tuple[str, ...] = ()
