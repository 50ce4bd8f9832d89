"""The TensorRTs that runtime tests run on; the parts and the sums of the sweep of converters."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from typing import Any

import pytest

from tests.backends.tensorrt.double import CLASSIC, RTX
from tests.backends.tensorrt.running import (
    Bench,
    doubled,
    real,
)


@pytest.fixture(params=[RTX, CLASSIC, pytest.param("gpu", marks=pytest.mark.tensorrt_gpu)])
def bench(request: pytest.FixtureRequest) -> Bench:
    return real() if request.param == "gpu" else doubled(request.param)


@pytest.fixture(params=[RTX, CLASSIC])
def fake(request: pytest.FixtureRequest) -> Bench:
    """For what is asked of the double only: how often TensorRT was called, and failures."""
    return doubled(request.param)


# --------------------------------------------------------------------------- the sweep


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps one part of the slow sweep: ``REWRIGHT_SHARD=3/16`` is the third of sixteen."""
    shard = os.environ.get("REWRIGHT_SHARD")
    if not shard:
        return
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"REWRIGHT_SHARD is {shard!r}, and should be like 3/16")
    swept = [item for item in items if item.name.startswith("test_converter_in_full")]
    kept = {x for x in swept if zlib.crc32(x.nodeid.encode()) % int(count) == int(number) - 1}
    config.hook.pytest_deselected(items=[item for item in swept if item not in kept])
    items[:] = [item for item in items if item not in set(swept) - kept]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Adds up what the sweep ran, and what it left out, by reason."""
    total: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for report in [x for part in terminalreporter.stats.values() for x in part]:
        if getattr(report, "when", None) != "call":
            continue
        for name, tally in report.user_properties:
            if name == "sweep":
                left.update(tally["left"])
                total.update({key: value for key, value in tally.items() if key != "left"})
    if not total:
        return
    terminalreporter.section("sweep of converters")
    done = ", ".join(f"{count} {name}" for name, count in total.items())
    terminalreporter.line(f"{done}; not run: {left.total()}")
    for reason, count in left.most_common():
        terminalreporter.line(f"{count:8} {reason}")
