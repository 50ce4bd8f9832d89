"""Every Python example of the README and the docs runs as it is printed."""

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


EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page), 1)
    if not FILE.match(block)
]


@pytest.mark.parametrize("page", [page for page in PAGES if files(page)], ids=lambda p: p.name)
def test_files_run(page: Path, tmp_path: Path) -> None:
    for name, source in files(page).items():
        (tmp_path / name).write_text(source)
    for name in files(page):
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr


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
