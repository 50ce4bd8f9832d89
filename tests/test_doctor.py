"""`rewright doctor`: what it finds, and what it says where something is wrong."""

import json

import pytest

from rewright import cli, doctor
from rewright.doctor import CHECKS, Finding, examine
from rewright.errors import EngineError, SettingsError
from rewright.store import Store

QUICK = {name: CHECKS[name] for name in ("python", "rewright", "torch", "C++ compiler", "CUDA")}


@pytest.fixture
def checks(monkeypatch):
    """A function: looks only at these."""

    def only(found):
        monkeypatch.setattr(doctor, "CHECKS", found)
        monkeypatch.setattr(doctor, "examine", lambda: examine(found))

    return only


def test_here_compiles_work(monkeypatch, tmp_path):
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1M")
    without_engines = {name: check for name, check in CHECKS.items() if name != "TensorRT"}
    found = list(examine(without_engines))
    assert [f for f in found if f.status == "failure"] == []
    names = [f.check for f in found]
    assert {"python", "torch", "cache", "compile on cpu", "torch.compile"} <= {*names}
    assert all(f.found for f in found)
    assert all(f.advice for f in found if f.status != "ok")


@pytest.mark.slow
def test_an_engine_is_built():
    pytest.importorskip("tensorrt_rtx")
    found = {f.check: f for f in CHECKS["TensorRT"]()}
    assert found["TensorRT rtx"].status == "ok"
    assert "builds" in found["TensorRT rtx"].found


def test_lines_say_what_to_do_and_the_status_says_whether_compiles_fail(checks, capsys):
    bad = Finding("GPU", "failure", "it is\nnot there", "plug it in")
    checks({**QUICK, "GPU": lambda: iter([bad])})
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"XX  {'GPU':<18}it is")
    assert lines[at + 1 :] == [f"{'':22}not there", f"{'':22}-> plug it in"]
    checks(QUICK)
    assert cli.main(["doctor"]) == 0


def test_json(checks, capsys):
    checks(QUICK)
    assert cli.main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {tuple(entry) for entry in json.loads(out)} == {("check", "status", "found", "advice")}
    assert err == ""


def test_a_check_that_fails_itself_is_a_finding():
    def broken():
        raise ZeroDivisionError("oops")
        yield

    def refused():
        yield Finding("first", "ok", "fine")
        raise SettingsError("the limit is no size", hint="write 10G")

    found = list(examine({"a": broken, "b": refused}))
    assert [(f.check, f.status) for f in found] == [
        ("a", "failure"), ("first", "ok"), ("b", "failure"),
    ]  # fmt: skip
    assert found[0].found == "ZeroDivisionError: oops" and "report it" in found[0].advice
    assert found[2].advice == "write 10G"


def test_an_old_torch_is_a_failure(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "__version__", "2.10.1+cpu")
    (found,) = CHECKS["torch"]()
    assert (found.status, found.advice) == ("failure", "pip install 'torch>=2.11'")


def test_tensorrt_that_is_missing_or_broken(monkeypatch):
    from rewright.backends.tensorrt import library

    def load(flavor):
        if flavor == "rtx":
            raise EngineError("tensorrt_rtx is not installed", hint="pip install it")
        raise EngineError("tensorrt is installed, but can't be imported: no libnvinfer")

    monkeypatch.setattr(library, "load", load)
    found = {f.check: f for f in CHECKS["TensorRT"]()}
    assert found["TensorRT rtx"] == Finding(
        "TensorRT rtx", "absent", "tensorrt_rtx is not installed", "pip install it"
    )
    assert found["TensorRT tensorrt"].status == "failure"


def test_the_cache_off_damaged_or_read_only(monkeypatch, tmp_path):
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "0")
    (found,) = CHECKS["cache"]()
    assert found.status == "warning" and "off" in found.found
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1M")
    Store(tmp_path, 2**20).put("ab" * 32, b"data", {})
    (found,) = CHECKS["cache"]()
    assert found.status == "ok" and "1 entries" in found.found
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file() and "ab" in path.name]
    file.write_bytes(b"cut")
    (found,) = CHECKS["cache"]()
    assert found.status == "warning"
    assert found.advice == f"rewright cache rm {'ab' * 6}"
