"""Options of builds: what a library has not is refused, what it has is told it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest

from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.options import LIMITED, BuildOptions, check_options, configure
from rewright.backends.tensorrt.timing import timing_cache
from rewright.errors import EngineError, SettingsError
from rewright.settings import Settings
from tests.backends.tensorrt.api_check import api
from tests.backends.tensorrt.checking import rtx
from tests.backends.tensorrt.double import CLASSIC, RTX, VERSIONS, double

GIVEN = {
    "version_compatible": True, "hardware_compatible": "ampere+", "timing_cache": "times",
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITED)
def test_what_one_flavor_has_the_other_refuses(name: str) -> None:
    options = attrs.evolve(BuildOptions(), **{name: GIVEN[name]})
    check_options(options, double(CLASSIC))
    with pytest.raises(SettingsError, match=r"tensorrt_rtx 1\.7\.1 has no") as caught:
        check_options(options, double(RTX))
    assert caught.value.setting == LIMITED[name].setting
    assert "target='tensorrt' has it" in str(caught.value.hint)


def test_every_limited_option_is_an_option_and_a_setting() -> None:
    assert LIMITED.keys() <= {field.name for field in attrs.fields(BuildOptions)}
    known = {field.name for field in attrs.fields(Settings)}
    assert {limited.setting for limited in LIMITED.values()} <= known


@pytest.mark.parametrize("version", [v for v in VERSIONS if v.startswith("tensorrt ")])
def test_levels_that_a_version_lacks(version: str) -> None:
    found = api().find("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY")
    library = double(version)
    options = BuildOptions(hardware_compatible="same-capability")
    if VERSIONS.index(version) in found:
        check_options(options, library)
    else:
        with pytest.raises(SettingsError, match="same-capability"):
            check_options(options, library)


class _Config:
    """What a build is told."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.hardware_compatibility_level: Any = None

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)


def test_a_classic_build_is_told() -> None:
    config: Any = _Config()
    library = double(VERSIONS[5])
    configure(
        config, library,
        BuildOptions(refit=True, version_compatible=True, hardware_compatible="ampere+"),
    )  # fmt: skip
    assert config.flags == ["REFIT_INDIVIDUAL", "VERSION_COMPATIBLE"]
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"


def test_a_classic_build_is_for_this_machine() -> None:
    with pytest.raises(EngineError, match="for the GPU of this machine only"):
        configure(_Config(), double(CLASSIC), BuildOptions(capabilities=((8, 9),)))


# --------------------------------------------------------------------------- timing caches


@pytest.fixture
def config() -> Any:
    """A real one: TensorRT for RTX still has the calls, although it times nothing."""
    library: Library = rtx()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        builder = library.module.Builder(library.logger)
        yield builder.create_builder_config()


def test_times_are_kept_in_a_file(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "times"
    with timing_cache(config, str(path)):
        assert not path.exists()
    first = path.read_bytes()
    assert first
    with timing_cache(config, str(path)):
        pass
    assert path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["times"], "nothing is left beside it"


class _Held:
    """A timing cache."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def combine(self, other: _Held, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.data += other.data
        return True

    def serialize(self) -> bytes:
        return self.data


class _Timing:
    """A configuration that takes the timing caches of this machine only."""

    def create_timing_cache(self, data: bytes) -> _Held | None:
        return None if data == b"damaged" else _Held(data or b"new ")

    def set_timing_cache(self, held: _Held, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return held.data != b"of another GPU"


def test_what_others_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "times"
    with timing_cache(_Timing(), str(path)):
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"new theirs"


@pytest.mark.parametrize("held", [b"damaged", b"of another GPU"])
def test_a_file_of_something_else_is_begun_anew(
    held: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "times"
    path.write_bytes(held)
    with timing_cache(_Timing(), str(path)):
        pass
    assert path.read_bytes() == b"new "
    assert "begun anew" in caplog.text


def test_a_file_that_can_not_be_written_is_a_line_in_the_log(
    config: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    with timing_cache(config, str(tmp_path / "file" / "times")):
        pass
    assert "can't be written" in caplog.text


def test_no_file_is_no_file(config: Any) -> None:
    with timing_cache(config, None):
        pass
