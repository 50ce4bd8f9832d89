"""Real architectures by both ways equal eager: the quick third here, all of it when slow."""

import pytest
import torch

from tests.architectures import WAYS, check
from tests.zoo import ENTRIES, QUICK

QUICK_WAYS = ("export-dynamic", "jit")
SLOW = [(name, way) for name in ENTRIES for way in WAYS
        if name not in QUICK or way not in QUICK_WAYS]  # fmt: skip


def compare(name: str, way: str) -> None:
    """Runs one model one way; skips what torch.export itself refuses."""
    if way == "export-dynamic" and ENTRIES[name].upstream_failure:
        pytest.skip(ENTRIES[name].upstream_failure)
    try:
        check(ENTRIES[name], way)
    except torch._dynamo.exc.UserError as error:
        if torch.__version__ < "2.12" and "Constraints violated (seq)" in str(error):
            pytest.skip("torch.export before 2.12 refuses the dynamic sequence of this model")
        raise


@pytest.mark.parametrize("way", QUICK_WAYS)
@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str, way: str) -> None:
    compare(name, way)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), SLOW)
def test_all(name: str, way: str) -> None:
    compare(name, way)
