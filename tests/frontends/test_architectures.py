"""Real architectures by both ways equal eager: the quick third here, all of it when slow."""

import pytest

from tests.architectures import WAYS, check
from tests.zoo import ENTRIES, QUICK

QUICK_WAYS = ("export-dynamic", "jit")
SLOW = [(name, way) for name in ENTRIES for way in WAYS
        if name not in QUICK or way not in QUICK_WAYS]  # fmt: skip


@pytest.mark.parametrize("way", QUICK_WAYS)
@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str, way: str) -> None:
    if way == "export-dynamic" and ENTRIES[name].upstream_failure:
        pytest.skip(ENTRIES[name].upstream_failure)
    check(ENTRIES[name], way)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), SLOW)
def test_all(name: str, way: str) -> None:
    if way == "export-dynamic" and ENTRIES[name].upstream_failure:
        pytest.skip(ENTRIES[name].upstream_failure)
    check(ENTRIES[name], way)
