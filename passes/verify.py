"""A pass that changes nothing and checks everything: put it between others to find the culprit."""

from __future__ import annotations

import attrs

from rewright.ir.graph import Graph
from rewright.ir.verifier import verify
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass


@register_pass
@attrs.frozen
class Verify(Pass):
    """a graph that is not well formed  ->  an error

    Attributes:
        retype: whether to infer every type anew and compare.
    """

    retype: bool = True

    def run(self, graph: Graph, context: PassContext) -> None:
        """Checks `graph`, and that it is in the normal form of its stage.

        Raises:
            VerificationError: naming every fault, with the lines around the first ones.
        """
        verify(graph, retype=self.retype)
