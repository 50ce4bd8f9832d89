"""What only TensorRT for RTX has: compiled kernels to keep, and when they are compiled."""

from __future__ import annotations

import pytest

from rewright.backends.tensorrt.runtime import RunOptions
from rewright.errors import EngineError, SettingsError
from tests.backends.tensorrt.double import CLASSIC, RTX, VERSIONS
from tests.backends.tensorrt.running import (
    Bench,
    doubled,
    rows,
    rows_of,
)


def test_rtx_settings() -> None:
    fake, graph = doubled(RTX), rows()
    options = RunOptions(
        runtime_cache=b"cache:kk", specialization="eager", internal_graphs=True
    )  # fmt: skip
    runner = fake.runner(graph, options)
    fake.check(runner, graph, *rows_of(4))
    settings = fake.library.module.settings
    assert settings["dynamic_shapes_kernel_specialization_strategy"] == "EAGER"
    assert settings["cuda_graph_strategy"] == "WHOLE_GRAPH_CAPTURE"
    assert runner.runtime_cache() == b"cache:kkk"


def test_a_runtime_cache_serves_the_next_process(bench: Bench) -> None:
    graph = rows()
    first = bench.runner(graph)
    bench.check(first, graph, *rows_of(4))
    cache = first.runtime_cache()
    assert bool(cache) == bench.library.is_rtx
    again = bench.runner(graph, RunOptions(runtime_cache=cache), first.engine)
    bench.check(again, graph, *rows_of(4))


def test_a_runtime_cache_of_another_machine_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    fake, graph = doubled(RTX), rows()
    runner = fake.runner(graph, RunOptions(runtime_cache=b"other"))
    with caplog.at_level("INFO", "rewright.tensorrt"):
        fake.check(runner, graph, *rows_of(4))
    assert any("runtime cache of @rows is of another" in line for line in caplog.messages)
    assert runner.runtime_cache() == b"cache:k"


def test_a_runtime_cache_that_can_not_be_written() -> None:
    fake = doubled(RTX)
    runner = fake.runner(rows())
    runner.load()
    fake.library.module.failing["IRuntimeCache.serialize"] = "no space"
    with pytest.raises(EngineError, match=r"could not serialize the runtime cache .*: no space"):
        runner.runtime_cache()


RTX_ONLY = {
    "runtime_cache": RunOptions(runtime_cache=b"cache:"),
    "specialization": RunOptions(specialization="lazy"),
    "internal_graphs": RunOptions(internal_graphs=True),
}


@pytest.mark.parametrize("setting", RTX_ONLY)
def test_classic_has_no_rtx_settings(setting: str) -> None:
    for version in (CLASSIC, VERSIONS[5]):
        with pytest.raises(SettingsError, match=rf"tensorrt 1[01]\..* has no {setting}"):
            doubled(version).runner(rows(), RTX_ONLY[setting]).load()


def test_unknown_settings() -> None:
    with pytest.raises(SettingsError, match="no specialization 'eagre'"):
        RunOptions(specialization="eagre")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contexts"):
        RunOptions(contexts=0)
