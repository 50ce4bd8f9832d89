"""Gives every node to a backend, and wraps what each takes into segments.

    a, b, c  (all taken by a backend)  ->  rw.segment(..., { a, b, c }, backend=...)

:mod:`~rewright.passes.partition.assignment` says who takes what,
:mod:`~rewright.passes.partition.phases` what goes together, without cycles, in linear time.
A segment with fewer than `min_block_size` nodes that compute is given back to torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import attrs

from rewright.errors import PassError, did_you_mean
from rewright.ir.graph import Graph, Node
from rewright.passes.manager import Pass, PassContext
from rewright.passes.partition.assignment import Assignment, Overrides, assign, count_computing
from rewright.passes.partition.backend import SegmentBackend
from rewright.passes.partition.extraction import extract, runs, sort_by_phase
from rewright.passes.partition.phases import LOOSE, phases_of
from rewright.passes.partition.report import PartitionReport, report_of
from rewright.passes.registry import register_pass


@register_pass
@attrs.frozen
class Partition(Pass):
    """nodes that a backend takes  ->  rw.segment

    Attributes:
        backends: names of backends, the preferred one first; torch takes the rest.
        min_block_size: a segment holds at least so many nodes that compute something.
        torch_ops: names of ops, or globs, that stay in torch.
        torch_modules: paths of modules, or globs, that stay in torch with all that is in them.
        torch_nodes: single nodes that stay: ``linear_3``, or a source line ``model.py:41``.
        require_full: whether it is an error that anything stays in torch, but for casts of f64
            that comes in or goes out.
    """

    may_be_skipped: ClassVar[bool] = False

    backends: tuple[str, ...] = ()
    min_block_size: int = 3
    torch_ops: tuple[str, ...] = ()
    torch_modules: tuple[str, ...] = ()
    torch_nodes: tuple[str, ...] = ()
    require_full: bool = False

    def run(self, graph: Graph, context: PassContext) -> None:
        """Partitions `graph`; its report is ``context.reports["partition"]``.

        Raises:
            PassError: a backend or an override is unknown; something stays in torch although
                nothing may.
        """
        backends = [_backend(name, context.backends) for name in self.backends]
        overrides = Overrides(self.torch_ops, self.torch_modules, self.torch_nodes)
        report = partition(graph, backends, overrides, self.min_block_size)
        context.reports["partition"] = report
        left = [node for node in report.left if not node.is_boundary]
        if self.require_full and left:
            raise PassError(
                f"{len(left)} of {report.nodes} nodes would stay in Torch:\n{report}",
                hint="leave require_full_compilation out, or change what the reasons name",
            )


def _backend(name: str, known: Mapping[str, SegmentBackend]) -> SegmentBackend:
    if name not in known:
        raise PassError(
            f"there is no backend {name!r} to partition for",
            hint=did_you_mean(name, known)
            if known
            else "compile for a target that has it; on the command line, --target rtx",
        )
    return known[name]


def partition(
    graph: Graph,
    backends: list[SegmentBackend],
    overrides: Overrides = Overrides(),  # noqa: B008 - frozen
    min_block_size: int = 1,
) -> PartitionReport:
    """Partitions `graph` in place.

    Args:
        graph: a whole program without segments.
        backends: the preferred one first.
        overrides: what stays in torch anyhow.
        min_block_size: a segment holds at least so many nodes that compute something.

    Returns:
        What was done.

    Raises:
        PassError: `overrides` name what there is not.
    """
    total = len(graph)
    assignment = assign(graph, backends, overrides)
    phases = phases_of(graph, assignment)
    while _give_back_small(assignment, phases, min_block_size):
        phases = phases_of(graph, assignment)
    nodes, colors = assignment.nodes, assignment.colors
    found = runs(nodes, phases, colors, assignment.torch)
    if found:
        sort_by_phase(graph, nodes, phases)
    loose = frozenset(node for node, phase in zip(nodes, phases, strict=True) if phase == LOOSE)
    for number, (color, members) in enumerate(found):
        backend = backends[color]
        extract(
            graph,
            members,
            backend.name,
            f"{backend.name}_{number}",
            partial(_takes, backend),
            loose,
        )
    if found:
        graph.erase([n for n in loose if not any(value.uses for value in n.results)])
    return report_of(graph, total, assignment.reasons)


def _takes(backend: SegmentBackend, node: Node) -> bool:
    return backend.refuse(node) is None


def _give_back_small(assignment: Assignment, phases: list[int], least: int) -> bool:
    """Sends segments with too few computing nodes to torch; whether there were any.

    Once is enough with one backend: the phases after the one that is given back move up
    together, so that no segment grows or falls apart. With several, a neighbor may grow.
    """
    counts: Counter[int] = Counter()
    for node, phase in zip(assignment.nodes, phases, strict=True):
        counts[phase] += count_computing(node)
    small = {phase for phase, count in counts.items() if count < least}
    changed = False
    for at, (phase, color) in enumerate(zip(phases, assignment.colors, strict=True)):
        if color != assignment.torch and phase in small and phase != LOOSE:
            size = counts[phase]
            nodes = f"{size} node{'s' * (size != 1)}"
            reason = f"its segment would compute {nodes}, and min_block_size is {least}"
            assignment.send_to_torch(at, reason)
            changed = True
    return changed
