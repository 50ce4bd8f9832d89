"""What stays in torch beside the segments of other backends, outlined for a compiler of torch's.

    a, b, c  (in torch, side by side)  ->  rw.segment(..., { a, b, c }, backend="inductor")

It runs after ``partition``, and by the same rules: segments never wait for themselves. What has an
effect, draws random numbers or tells a size that only a run can know stays where it is.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from rewright.ir.graph import Graph, Node
from rewright.passes.manager import Pass, PassContext
from rewright.passes.partition.partition import partition
from rewright.passes.registry import register_pass


@attrs.frozen
class _Everything:
    """A backend that takes all that it is asked for."""

    name: str

    def refuse(self, _: Node) -> None:
        """It can run every node."""


@register_pass
@attrs.frozen
class OutlineTorch(Pass):
    """nodes in torch beside segments  ->  rw.segment

    Attributes:
        backend: what runs them.
        min_block_size: a segment holds at least so many nodes that compute something.
    """

    may_be_skipped: ClassVar[bool] = False

    backend: str = "inductor"
    min_block_size: int = 1

    def run(self, graph: Graph, context: PassContext) -> None:
        """Outlines what is not in a segment yet."""
        partition(graph, [_Everything(self.backend)], min_block_size=self.min_block_size)
