"""The verifier: says what is wrong with a graph, where, with the lines around it.

What must hold is a table of checks (:mod:`rewright.ir.checks`) and the normal form of the graph's
stage (:mod:`rewright.ir.stages`). On demand every type is inferred anew and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import sympy

from rewright.errors import InferenceError, VerificationError
from rewright.ir.checks import CHECKS, Fault, Scope
from rewright.ir.graph import Graph, Node
from rewright.ir.inference import infer_types
from rewright.ir.ops import Trait
from rewright.ir.printer import print_excerpt
from rewright.ir.sizes import Ranges, same
from rewright.ir.stages import check_stage
from rewright.ir.types import ScalarType, TensorType, Type

_SHOWN: Final = 3
"""So many faults are shown with the lines around them; the others are counted."""

_AROUND: Final = 5
"""So many lines are shown before and after a fault."""


def verify(
    graph: Graph,
    *,
    stage: str | None = None,
    retype: bool = False,
    effects: Sequence[str] | None = None,
) -> None:
    """Checks `graph`, its recipes and its regions. Linear in the number of nodes.

    Args:
        graph: a whole program (no region).
        stage: the normal form it must be in; by default the one it says.
        retype: whether to infer every type anew; a type is wrong only if it differs provably.
        effects: what :func:`effect_order` gave before a pass, which may not have changed it.

    Raises:
        VerificationError: naming every fault, with the lines around the first ones.
    """
    faults = find_faults(graph, stage=stage, retype=retype)
    if effects is not None and not faults and effect_order(graph) != tuple(effects):
        faults = [Fault("effects", _lost_effect(effects, effect_order(graph)), graph)]
    if faults:
        raise _error(graph, faults)


def find_faults(graph: Graph, *, stage: str | None = None, retype: bool = False) -> list[Fault]:
    """All faults of `graph`, in the order of :data:`~rewright.ir.checks.CHECKS`."""
    pending = [Scope(graph, graph, "main")]
    if graph.has_recipes:
        pending.append(Scope(graph.prepare, graph, "prepare"))
    faults: list[Fault] = []
    for scope in pending:  # grows by the regions met
        found = list(_check(scope, retype))
        faults += found
        if any(fault.check == "links" for fault in found):
            return faults  # nothing else can be trusted
        regions = (region for node in scope.nodes for region in node.regions)
        pending += [Scope(region, graph, "region") for region in regions]
    for violation in check_stage(graph, stage or graph.stage):
        faults.append(Fault("stage", str(violation), violation.node.graph, violation.node))
    return faults


def _check(scope: Scope, retype: bool) -> Iterator[Fault]:
    for name, (check, roles) in CHECKS.items():
        if scope.role not in roles:
            continue
        found = [Fault(name, message, scope.graph, node) for message, node in check(scope)]
        yield from found
        if found and name in ("links", "slots"):
            return  # later checks index operands by their slots
    if retype:
        for node in scope.nodes[:-1]:
            for message in _retype(scope, node):
                yield Fault("retype", message, scope.graph, node)


# --------------------------------------------------------------------------- effects


def effect_order(graph: Graph) -> tuple[str, ...]:
    """The names of the nodes with an effect or random numbers, in the order they happen."""
    return tuple(node.op.name for node in graph.walk() if not node.is_pure)


def _lost_effect(before: Sequence[str], after: Sequence[str]) -> str:
    same_until = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    was, now = [*before, "the end"][same_until], [*after, "the end"][same_until]
    return f"effects changed: number {same_until} was {was}, and is {now}"


# --------------------------------------------------------------------------- types anew


def _retype(scope: Scope, node: Node) -> Iterator[str]:
    """How the types of a node's results differ from what its op gives, provably."""
    stated = [value.type for value in node.results]
    try:
        inferred = infer_types(
            node.op,
            node.attributes,
            [value.type for value in node.operands],
            ranges=scope.ranges,
            device=scope.main.device,
            regions=node.regions,
            fresh=lambda letter, _: sympy.Dummy(letter, integer=letter == "u"),
        )
    except InferenceError as error:
        if error.guard is None and not node.op.has(Trait.OPAQUE):  # else nothing is proved
            yield error.message
        return
    if len(inferred) != len(stated):
        yield f"{len(stated)} results, where the op gives {len(inferred)}"
        return
    for index, (old, new) in enumerate(zip(stated, inferred, strict=True)):
        if _differ(old, new, scope.ranges):
            yield f"result {index} is stated as {old}, and is {new}"


def _differ(stated: Type, inferred: Type, ranges: Ranges) -> bool:
    """Whether the two types can't be those of one value."""
    match stated, inferred:
        case TensorType(), TensorType():
            if (stated.dtype, stated.rank, stated.device) != (
                inferred.dtype,
                inferred.rank,
                inferred.device,
            ):
                return True
            pairs = zip(stated.shape, inferred.shape, strict=True)
            return any(same(a, b, ranges) is False for a, b in pairs)
        case ScalarType(), ScalarType():
            return stated.kind != inferred.kind
    return type(stated) is not type(inferred)


# --------------------------------------------------------------------------- the error


def _error(graph: Graph, faults: list[Fault]) -> VerificationError:
    lines = [fault.message for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        lines.append(f"and {len(faults) - _SHOWN} more")
    first = faults[0]
    node = first.node
    return VerificationError(
        f"@{graph.name} is not well formed: " + "; ".join(lines),
        op=node.op.name if node else None,
        where=node.loc if node else None,
        excerpt="\n".join(_excerpt(fault) for fault in faults[:_SHOWN]),
    )


def _excerpt(fault: Fault) -> str:
    """A fault, with the lines around it."""
    title = f"{fault.check}: {fault.message}"
    if fault.node is None or not fault.node.is_attached or fault.check == "links":
        return title  # there are no lines around it, or they can't be walked
    return f"{title}\n{print_excerpt(fault.node, around=_AROUND)}"
