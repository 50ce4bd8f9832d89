"""Every example of the README and the docs runs as it is printed: Python, and ``console``."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)(?:, continued)?\n")
"""The first line of a block that is a file, or the next part of one."""
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""Commands after ``$ ``, with ``  # fails`` behind those that do, and what each prints."""
SLOW = ("DEBUGGING.md", "USING.md")
"""Pages that take long: bisecting is many runs."""


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def files(page: Path) -> dict[str, str]:
    """The files that a page has its reader write, in order."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if match := FILE.match(block):
            found[match[1]] = found.get(match[1], "") + block
    return found


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands of a page, in order, with what is shown of their output: ``...`` is anything."""
    shown = "".join(CONSOLE.findall(page.read_text(encoding="utf-8")))
    parts = re.split(r"^\$ (.*)\n", shown, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def marks(page: Path) -> list[pytest.MarkDecorator]:
    """How the tests of a page are marked."""
    return [pytest.mark.slow] if page.name in SLOW else []


EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}", marks=marks(page))
    for page in PAGES
    for number, block in enumerate(blocks(page), 1)
    if not FILE.match(block)
]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if files(page) and not commands(page)], ids=lambda p: p.name
)
def test_files_run(page: Path, tmp_path: Path) -> None:
    for name, source in files(page).items():
        (tmp_path / name).write_text(source)
    for name in files(page):
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=marks(page)) for page in PAGES if commands(page)],
)
def test_commands_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    for name, source in files(page).items():
        (tmp_path / name).write_text(source)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, shown in commands(page):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path, "COLUMNS": "200"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
        )  # fmt: skip
        assert (done.returncode != 0) == command.endswith("  # fails"), f"{command}\n{done.stdout}"
        expected = re.escape(shown.strip()).replace(re.escape("..."), "(?s:.*)")
        assert re.search(expected, done.stdout.strip()), f"{command}\n{done.stdout}"


@pytest.mark.parametrize("source", EXAMPLES)
def test_example_runs(source: str, tmp_path: Path) -> None:
    if 'target="rtx"' in source:
        pytest.importorskip("tensorrt_rtx")
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_readme_has_examples() -> None:
    assert sum(param.id.startswith("README") for param in EXAMPLES) >= 2
