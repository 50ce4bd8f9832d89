"""What MkDocs is told beyond mkdocs.yml: pages at the repository's root, links out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages of the site that stand at the root, where people look for them. The first is its home."""

LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$|^(?: {4}|\t).*?$)", re.MULTILINE | re.DOTALL)
FETCHED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"(?:https?:)?//|<link[^>]* href=\"https?:")
ROLE = re.compile(r":\w+:<code>~?(?:[\w.]*\.)?(\w+)</code>|:\w+:``?~?(?:[\w.]*\.)?(\w+)``?")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the root."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links of the repository's pages into links of the site's."""
    folder = ROOT if page.file.src_uri in ROOT_PAGES else ROOT / "docs"
    parts = FENCED.split(markdown)  # odd ones are code
    parts[::2] = [LINK.sub(lambda match: _link(match, folder), part) for part in parts[::2]]
    return "".join(parts)


def _link(match: re.Match[str], folder: Path) -> str:
    text, target, anchor = match[1], match[2], match[3] or ""
    path = (folder / target).resolve()
    if path.is_relative_to(ROOT / "docs"):
        return f"[{text}]({path.relative_to(ROOT / 'docs')}{anchor})"
    if path.parent == ROOT and path.name in ROOT_PAGES:
        return f"[{text}]({path.name}{anchor})"
    # Other files of the repository are no pages. What is not there is left for MkDocs to report.
    return text if path.exists() else match[0]


def on_page_content(html: str, **_: Any) -> str:
    """Shows Sphinx's roles in docstrings, ``:class:`~a.B` ``, as the name that they mean."""
    return ROLE.sub(lambda match: f"<code>{match[1] or match[2]}</code>", html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuses a page that a browser would fetch something for from elsewhere."""
    if found := FETCHED.search(output):
        line = output[found.start() :].partition(">")[0]
        raise PluginError(f"{page.file.src_uri} would fetch {line}>")
    return output
