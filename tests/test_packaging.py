"""The folders at the root are the packages rewright.*, installed or not, and the face is lazy."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import rewright

ROOT = Path(__file__).resolve().parents[1]
FACE = ROOT / "src" / "rewright"
PARTS = ["backends", "frontends", "ir", "passes"]
OWN = ["artifact", "interop", "testing", "viewer"]
"""Packages of the face itself."""


def files(folder: Path, prefix: str) -> set[str]:
    """Every file under a folder as a path inside the wheel."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def tree() -> set[str]:
    """Every file that belongs into the package, read from the folders and not through the links."""
    face = {f"rewright/{path.name}" for path in FACE.iterdir() if path.is_file()}
    own = (files(FACE / name, f"rewright/{name}") for name in OWN)
    return face.union(*own, *(files(ROOT / part, f"rewright/{part}") for part in PARTS))


MODULES = sorted(
    path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for path in tree()
    if path.endswith(".py")
)


def test_the_tree_was_found():
    assert {"rewright", "rewright.errors", *(f"rewright.{part}" for part in PARTS)} <= {*MODULES}


@pytest.mark.parametrize("part", PARTS)
def test_link_leads_to_the_folder_at_the_root(part):
    assert (FACE / part).is_symlink()
    assert os.readlink(FACE / part) == f"../../{part}"
    assert (FACE / part).samefile(ROOT / part)


def test_no_other_folder_stands_in_the_face():
    folders = {path.name for path in FACE.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == {*PARTS, *OWN}


@pytest.mark.parametrize("part", PARTS)
def test_part_is_refused_under_its_short_name(part):
    done = subprocess.run(
        [sys.executable, "-c", f"import {part}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"ImportError: import rewright.{part}, not {part}" in done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_under_its_full_name(module):
    if module.endswith("_triton"):  # a kernel; imported where it is launched first
        pytest.importorskip("triton")
    assert import_module(module).__name__ == module


@pytest.mark.parametrize("name", rewright.__all__)
def test_public_name_resolves(name):
    assert getattr(rewright, name) is not None
    assert name in dir(rewright)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'compyle'"):
        _ = rewright.compyle


def test_table_of_public_names_agrees_with_what_type_checkers_see():
    source = (FACE / "__init__.py").read_text()
    for name, module in rewright._PUBLIC.items():
        assert f"from {module} import {name} as {name}\n" in source


def test_import_is_lazy(fresh_python):
    assert fresh_python("import sys, rewright; print('torch' in sys.modules)") == "False"


def test_no_public_name_loads_tensorrt(fresh_python):
    code = (
        "import sys, rewright; [getattr(rewright, name) for name in rewright.__all__];"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorrt', 'tensorrt_rtx')])"
    )
    assert fresh_python(code) == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the tree: built here, a stale build/ folder could add to it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("src", *PARTS):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (copy / "dist").iterdir()
    return built


def test_wheel_holds_exactly_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == tree()


def test_wheel_imports_from_anywhere(wheel, tmp_path, fresh_python):
    code = "import rewright, rewright.ir, rewright.passes; print(rewright.__version__)"
    assert wheel.name.startswith(f"rewright-{rewright.__version__}-")
    assert fresh_python(code, cwd=tmp_path, path=wheel) == rewright.__version__


def test_entry_points_lead_to_functions(wheel):
    entry_points = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (text,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        entry_points.read_string(archive.read(text).decode())
    assert {"console_scripts", "torch_dynamo_backends"} <= {*entry_points.sections()}
    for group in entry_points.sections():
        for target in entry_points[group].values():
            module, _, name = target.partition(":")
            assert callable(getattr(import_module(module), name)), target
