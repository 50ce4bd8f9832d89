"""The TensorRTs that runtime tests run on."""

from __future__ import annotations

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
