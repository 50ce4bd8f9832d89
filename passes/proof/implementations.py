"""Implementations of ops prove themselves against the reference, as rules do against patterns.

The arguments of an op are drawn by its template and parameters, the reference gives the truth in
float64 and the error that is its own, and an implementation may have 1.5 x that error, or 2 ulp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import torch

from rewright.errors import RuleError
from rewright.ir.attributes import Operand
from rewright.ir.calls import flat_results, torch_arguments
from rewright.ir.graph import Node
from rewright.ir.ops import Op, call_args, get_op
from rewright.ir.types import DTYPE_NAMES, TensorType
from rewright.passes.declaration import Spelling
from rewright.passes.patterns import NodePattern, ResultPattern
from rewright.passes.proof.draw import Reject, draw_for
from rewright.passes.proof.examples import Example
from rewright.passes.proof.precision import (
    FEEDS,
    Errors,
    Feed,
    feed,
    in_dtype,
    judge,
    one_thread,
    run,
)
from rewright.passes.proof.prove import INSTANCES, SHAPES
from rewright.passes.proof.sampling import Sampler
from rewright.passes.rule import REFOLD, Exactness
from rewright.passes.variables import Rest

FLOATING: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_TRIES: Final = 200


@attrs.frozen
class ImplementationProof:
    """What was shown of an implementation.

    Attributes:
        op: the op's name.
        name: of the implementation.
        instances: how many calls it was compared on.
        shapes: how many different shapes they had.
        dtypes: of what they were.
    """

    op: str
    name: str
    instances: int
    shapes: int
    dtypes: tuple[torch.dtype, ...]

    def __str__(self) -> str:
        dtypes = " ".join(DTYPE_NAMES[dtype] for dtype in self.dtypes)
        return (
            f"{self.name} of {self.op}: {self.instances} instances of {self.shapes} shapes in "
            f"{dtypes}"
        )


def prove_implementation(
    op: str | Op,
    function: Callable[..., Any],
    *,
    when: Callable[[Node], bool] = lambda _: True,
    exactness: Exactness = REFOLD,
    tolerance: float = 1e-3,
    instances: int = INSTANCES,
    seed: int = 0,
) -> ImplementationProof:
    """Proves that `function` computes `op`.

    Args:
        op: an op with a reference (or a torch operator, which is its own).
        function: takes the op's parameters, on torch tensors.
        when: the nodes that it takes.
        exactness: how far it may be from the reference: see
            :func:`~rewright.passes.proof.precision.judge`.
        tolerance: for FAST_MATH.
        instances: how many calls to compare, at least.
        seed: of all that is drawn.

    Raises:
        RuleError: it differs on a call, which the message shows; or too few calls were found
            that it takes.
    """
    found = get_op(op) if isinstance(op, str) else op
    name = getattr(function, "__name__", repr(function))
    counts: Counter[torch.dtype] = Counter()
    shapes = set()
    rejected: Counter[str] = Counter()
    with one_thread():
        for dtype in FLOATING:
            for number in range(_TRIES):
                if counts[dtype] >= -(-instances // len(FLOATING)):
                    break
                draw = draw_for(f"{found.name} {name} {dtype} {number} {seed}", dtype, mixed=False)
                try:
                    example = Sampler(_any_call(found), draw).run()
                    if dtype not in example.dtypes() or not when(_node(example)):
                        continue
                    _compare(name, example, function, exactness, tolerance)
                except Reject as reject:
                    rejected[str(reject)] += 1
                    continue
                counts[dtype] += 1
                shapes.add(example.shapes())
    if counts.total() < instances or len(shapes) < SHAPES:
        common = "; ".join(reason for reason, _ in rejected.most_common(3))
        raise RuleError(
            f"{name} of {found.name} is not proved: {counts.total()} calls of {len(shapes)} "
            f"shapes were found that it takes, and {instances} of {SHAPES} are needed",
            hint=f"most calls failed because: {common}" if common else None,
        )
    return ImplementationProof(
        found.name, name, counts.total(), len(shapes), tuple(d for d in FLOATING if counts[d])
    )


def _any_call(op: Op) -> Spelling:
    """A pattern that any call of `op` matches."""
    rest = Rest(values=True, name="arguments")
    node = NodePattern(op, {}, rest)
    count = op.results or 1
    return Spelling(
        "call", {"arguments": rest}, tuple(ResultPattern(node, i) for i in range(count))
    )


def _node(example: Example) -> Node:
    return next(iter(example.graph))


def _compare(
    name: str,
    example: Example,
    function: Callable[..., Any],
    exactness: Exactness,
    tolerance: float,
) -> None:
    """Compares one call with the reference.

    Raises:
        RuleError: they differ.
        Reject: torch can't compute the reference.
    """
    graph, node = example.graph, _node(example)
    wide, narrow = in_dtype(graph, torch.float64), in_dtype(graph, torch.float32)
    errors = [Errors() for _ in graph.outputs]
    for seed, spread in FEEDS:
        numbers = feed(example, seed, {}, spread)
        exact = numbers.cast(torch.float64)
        own, truth = run(graph, numbers), run(wide, exact)
        shaken = [run(wide, other) for other in exact.shaken()]
        rough = run(narrow, numbers.cast(torch.float32))
        new = _call(node, function, numbers)
        for index, result in enumerate(own):
            if (result.dtype, result.shape) != (new[index].dtype, new[index].shape):
                raise _wrong(name, example, f"it gives {new[index].dtype}{[*new[index].shape]}")
            errors[index].add(truth[index], result, new[index])
            if result.dtype == torch.float64:
                errors[index].add_estimate(
                    truth[index], rough[index], *(each[index] for each in shaken)
                )
    for found, value in zip(errors, graph.outputs, strict=True):
        assert isinstance(value.type, TensorType)
        why = judge(found, value.type.dtype, exactness, tolerance)
        if why is not None:
            raise _wrong(name, example, why)


def _call(node: Node, function: Callable[..., Any], numbers: Feed) -> tuple[torch.Tensor, ...]:
    values = dict(zip(node.graph.inputs, numbers.inputs, strict=True))
    named = torch_arguments(
        node.attributes,
        lambda leaf: values[node.operands[leaf.index]] if isinstance(leaf, Operand) else leaf,
    )
    args, kwargs = call_args(node.op, named)
    with torch.no_grad():
        return flat_results(function(*args, **kwargs))


def _wrong(name: str, example: Example, what: str) -> RuleError:
    node = _node(example)
    return RuleError(f"{name} of {node.op.name} is wrong: {what}\n{example.graph}")
