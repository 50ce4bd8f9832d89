"""One operator in one dtype, in all its samples and modes: what was run, and why the rest was not.

Nothing is left out in silence: what is not run is counted by its reason, and the counts of all
tests are added up at the end of a run (``conftest.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import torch

from rewright.backends.tensorrt.build import build_network
from rewright.backends.tensorrt.declaration import converters, supports
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.needs import Constant, Unused
from rewright.backends.tensorrt.options import BuildOptions
from rewright.ir.binding import bind_symbols
from rewright.ir.interpreter import interpret
from rewright.ir.sizes import evaluate as number_of
from rewright.ir.types import TensorType
from tests.backends.tensorrt.cases import MODES, Case, case_of
from tests.backends.tensorrt.checking import assert_same, evaluate, rtx
from tests.backends.tensorrt.samples import Sample, mixed, samples_of

SLACK: Final = {
    # torch samples at coordinates that it has rounded to the dtype of the image
    **dict.fromkeys(("aten.grid_sampler", "aten.grid_sampler_2d"), 5.0),
    # the layer has no scale, so queries are scaled (and rounded) before it
    **dict.fromkeys(
        ("aten.scaled_dot_product_attention", "aten._scaled_dot_product_flash_attention_for_cpu"),
        5.0,
    ),
}
"""How much more than the dtype's tolerance an operator may differ, and why."""

DENSE: Final = frozenset(
    ("aten._embedding_bag", "aten._embedding_bag_forward_only",
     "aten._scaled_dot_product_flash_attention_for_cpu")
)  # fmt: skip
"""Kernels of torch's own that read memory as if it were dense: who calls them sees to that."""

NEVER_EMPTY: Final = frozenset(
    ("aten._scaled_dot_product_flash_attention_for_cpu", "aten._weight_norm")
)
"""Operators whose kernels in torch divide by a size, which ends the process where that is 0."""

Results = Sequence[torch.Tensor]
Comparison = Callable[[Results, Results, Results], None]


@attrs.define
class Tally:
    """What was done.

    Attributes:
        networks: how many were defined.
        calls: how many results were compared with torch's.
        engines: how many were built.
        left: how many cases or calls were not run, by reason.
    """

    networks: int = 0
    calls: int = 0
    engines: int = 0
    left: Counter[str] = attrs.field(factory=Counter)

    def leave(self, reason: str) -> None:
        """Counts something that is not run."""
        self.left[re.sub(r"s\d+|\[[^]]*\]|\d+(?= dimensions, and)", "…", reason)] += 1

    def __str__(self) -> str:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in self.left.items())
        return reasons or "there is no sample of it"


def sweep(op: str, dtype: torch.dtype, limit: int, modes: Sequence[str] = MODES,
          every: bool = True) -> Tally:  # fmt: skip
    """Compares the networks of an operator with torch.

    Args:
        op: its name.
        dtype: of its tensors.
        limit: the most samples to take.
        modes: how sizes vary: see `cases`.
        every: whether to build an engine in each mode, and not only one.

    Raises:
        AssertionError: results differ, or the engine is not built.
        ConversionError: TensorRT refused what the converter declares that it takes.
    """
    tally = Tally()
    samples = samples_of(op, dtype, limit)
    if not samples:
        tally.leave(f"torch has no samples of it in {dtype}")
    promoted = next(filter(None, (mixed(sample, dtype) for sample in samples)), None)
    built: set[str] = set()
    for sample in [*samples, *([promoted] if promoted and every else ())]:
        for mode in modes:
            if mode != "fixed" and "embedding_bag" in op:
                tally.leave("offsets of bags that grow would go back")
            elif mode == "from none" and op in NEVER_EMPTY:
                tally.leave("torch's kernel crashes where there is nothing")
            else:
                _sweep_case(tally, sample, mode, built, every)
    return tally


def _sweep_case(tally: Tally, sample: Sample, mode: str, built: set[str], every: bool) -> None:
    needs = converters()[sample.op].needs
    fixed = [need.name for need in needs if isinstance(need, Constant)]
    unused = [i for need in needs if isinstance(need, Unused) for i in need.results]
    case = case_of(sample, mode, fixed, unused)
    if isinstance(case, str):
        return tally.leave(case)
    refusals = [refusal for node in case.graph if (refusal := supports(node, rtx()))]
    if refusals:
        return tally.leave(f"refused: {refusals[0]}")
    given = case.calls
    if sample.op in DENSE and mode == "fixed":
        given = case.calls[:1]
        tally.leave("torch's kernel takes dense inputs only")
    calls = [(args, _torch(case, args, tally)) for args in given]
    done = [(args, expected) for args, expected in calls if expected is not None]
    if not done:
        return None
    emitted = emit(case.graph, rtx())
    tally.networks += 1
    compare = comparison(sample.op, case)
    for args, expected in done:
        compare(args, evaluate(emitted, args), expected)
        tally.calls += 1
    if mode not in built and (every or not built):
        built.add(mode)
        assert build_network(emitted, BuildOptions(optimization_level=0)).data
        tally.engines += 1
    return None


def _torch(case: Case, args: Results, tally: Tally) -> list[Any] | None:
    """What torch gives; None where it refuses sizes, or strides, other than the sample's."""
    try:
        made = list(interpret(case.graph, args).outputs)
    except (RuntimeError, IndexError, ValueError):
        return tally.leave("torch refuses the call with such sizes or strides")
    sizes = bind_symbols(case.graph, args)
    for value, found in zip(case.graph.outputs, made, strict=True):
        kind = value.type
        assert isinstance(kind, TensorType)
        shape = tuple(int(number_of(dim, sizes)) for dim in kind.shape)
        if (found.dtype, tuple(found.shape)) != (kind.dtype, shape):
            return tally.leave("torch's kernel contradicts torch's own shape rule")
    return made


# --------------------------------------------------------------------------- comparing


def _shapes_only(args: Results, made: Results, expected: Results) -> None:
    """What `empty` gives: any numbers."""
    assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in expected]


def _in_order(case: Case) -> Comparison:
    """Orders may differ where elements are equal: the elements in that order may not."""
    dim = case.graph.terminator.operands[0].producer.arg("dim")  # type: ignore[union-attr]

    def compare(args: Results, made: Results, expected: Results) -> None:
        assert_same(made[:-1], expected[:-1])
        x = args[0] if args[0].dim() else args[0].reshape(1)
        ours, theirs = (index.reshape(index.shape or (1,)) for index in (made[-1], expected[-1]))
        assert_same([x.gather(dim, ours)], [x.gather(dim, theirs)])

    return compare


def comparison(op: str, case: Case) -> Comparison:
    """How the results of an operator are compared with torch's."""
    if "empty" in op:
        return _shapes_only
    if op in ("aten.topk", "aten.sort", "aten.argsort"):
        return _in_order(case)
    slack = SLACK.get(op, 1.0)
    return lambda args, made, expected: assert_same(made, expected, slack)
