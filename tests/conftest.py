"""What holds for every test: its own seed, statistics that start at zero, one thread per worker."""

import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import rewright

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Keep the workers of pytest-xdist from sharing the cores among too many threads.

    What a test builds is built: the cache is off, except where a test brings its own.
    """
    os.environ["REWRIGHT_CACHE_SIZE"] = "0"
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    needs_gpu = [name for name in ("gpu", "tensorrt_gpu") if item.get_closest_marker(name)]
    if needs_gpu and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Random numbers depend on the test's id only, not on which tests ran before."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _fresh_statistics() -> Iterator[None]:
    """Counters start at zero, so that a test may assert on them without a difference."""
    rewright.reset_stats()
    yield
    rewright.reset_stats()


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., str]:
    """A function: what Python code prints in a new interpreter that finds rewright at `path`."""

    def run(code: str, *, cwd: Path = ROOT, path: Path = ROOT / "src") -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
