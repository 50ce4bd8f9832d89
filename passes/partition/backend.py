"""What partitioning asks of a backend: whether it takes a node, and if not, why."""

from __future__ import annotations

from typing import Final, Protocol

from rewright.ir.graph import Node

TORCH: Final = "torch"
"""The backend that takes every node; what it runs stays in the main graph."""


class SegmentBackend(Protocol):
    """A backend that runs segments. Any object with these two will do.

    One with an attribute ``tells_sizes`` that is true may also be given nodes that tell a size
    which only a run can know (``aten.nonzero``), where it does not refuse them.

    Attributes:
        name: what segments say of it: ``tensorrt``.
    """

    @property
    def name(self) -> str:
        """What segments say of it."""
        ...

    def refuse(self, node: Node) -> str | None:
        """Why it can't run `node`, in words that complete "stays in torch: ..."; None if it can."""
        ...
