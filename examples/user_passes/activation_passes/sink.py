"""Tensors that are made of nothing (aranges, masks of ones) are made when they are needed.

    %i = arange(n)  ...  %y = f(%i)     ->     ...  %i = arange(n); %y = f(%i)

A model often makes them all at its start, and they take memory until their last use.
"""

from itertools import takewhile

import attrs

from rewright.passes import Pass, register_pass


@register_pass
@attrs.frozen
class SinkCreations(Pass):
    """a node without operands  ->  the same node, just before its first user

    Attributes:
        least_elements: smaller tensors stay where they are.
    """

    least_elements: int = 0

    def run(self, graph, context):
        """Moves the nodes of `graph` that it is about."""
        place = graph.positions()
        homes = {}
        for node in graph:
            users = [user for value in node.results for user in value.users]
            if users and self.takes(node):
                homes[node] = min(users, key=lambda user: place.get(user, len(place)))
        for node, first in homes.items():
            between = takewhile(lambda other, first=first: other is not first, node.following())
            if any(other not in homes for other in between):
                node.move_before(first)

    def takes(self, node):
        """Whether a node makes one tensor, surely big enough, of nothing but attributes."""
        if node.operands or len(node.results) != 1 or not node.op.is_pure:
            return False
        elements = getattr(node.result.type, "numel", None)
        return isinstance(elements, int) and elements >= self.least_elements
