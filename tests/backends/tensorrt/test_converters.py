"""Every converter, on torch's own samples: a real network evaluated, and a real engine built.

The quick part takes two samples of each operator in f32 and one in i64; the slow part four in
every dtype, and one whose operands differ in theirs. Each is tried with fixed sizes and with sizes
that vary, at the least, a middle and the largest of their range; the slow part goes down to sizes
of one and of nothing, and takes inputs with strides of their own.

    REWRIGHT_SHARD=3/16 pytest -m slow tests/backends/tensorrt/test_converters.py

runs the third of sixteen parts of the slow one, and `REWRIGHT_SAMPLES=1` takes one sample instead.
What was run, and what was not and why, stands at the end of the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
import torch

from rewright.backends.tensorrt.declaration import converters
from rewright.backends.tensorrt.dtypes import COMPUTED
from rewright.backends.tensorrt.needs import Dtypes
from tests.backends.tensorrt.samples import DTYPES, ELSEWHERE, samples_of
from tests.backends.tensorrt.sweep import Tally, sweep


def _takes(op: str, dtype: torch.dtype) -> bool:
    """Whether a converter declares that it takes what TensorRT does not compute with."""
    rows = (need for need in converters()[op].needs if isinstance(need, Dtypes))
    return any(dtype in row.allowed for row in rows if row.name != "out")


OPS: Final = sorted(name for name in converters() if name.startswith(("aten.", "prims.")))
QUICK: Final = {torch.float32: 2, torch.int64: 1}
SLOW: Final = int(os.environ.get("REWRIGHT_SAMPLES", "4"))
FULL: Final = [
    pytest.param(op, dtype, id=f"{op}-{dtype}")
    for op in OPS
    for dtype in DTYPES
    if dtype in COMPUTED or _takes(op, dtype)
]
"""What layers compute with, and of what is only cast: where a converter declares it."""


@pytest.mark.slow
def test_every_converter_has_samples() -> None:
    dtypes = (torch.float32, torch.int64, torch.bool)
    without = {op for op in OPS if not any(samples_of(op, dtype, 1) for dtype in dtypes)}
    assert without == ELSEWHERE


@pytest.mark.parametrize("dtype", QUICK, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_converter(op: str, dtype: torch.dtype, record_property: Callable[..., None]) -> None:
    """Static and dynamic networks of a few samples give torch's numbers, at every size."""
    tally = sweep(op, dtype, QUICK[dtype], ("fixed", "grown"), every=False)
    _conclude(tally, record_property)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "dtype"), FULL)
def test_converter_in_full(
    op: str, dtype: torch.dtype, record_property: Callable[..., None]
) -> None:
    """The same of all samples in all modes."""
    _conclude(sweep(op, dtype, SLOW), record_property)


def _conclude(tally: Tally, record: Callable[[str, Any], None]) -> None:
    record("sweep", attrs.asdict(tally))
    if not tally.calls:
        pytest.skip(str(tally))
