"""Real architectures are one engine each, whose network computes what eager does."""

import pytest

from tests.tensorrt_models import MODELS, check

pytest.importorskip("tensorrt_rtx")

QUICK = ("bert", "resnet", "llama")


def one_engine(name: str) -> None:
    found = check(name, require_full_compilation=True)
    assert (found.segments, found.left) == (1, 0)
    assert found.layers > 0 and found.megabytes > 0


@pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")
@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str) -> None:
    one_engine(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in QUICK])
def test_all(name: str) -> None:
    one_engine(name)
