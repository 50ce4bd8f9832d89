"""The pages of docs/: all of them are in the site, what is generated is up to date, links lead on.

`make docs` builds the site itself, strictly.
"""

import re
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from rewright import errors
from tests import error_messages
from tests.settings_page import ENVIRONMENT, settings_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
AT_ROOT = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


def nav_pages(nav):
    """The pages that a part of the site's navigation names."""
    for item in nav:
        if isinstance(item, str):
            yield item
        else:
            (below,) = item.values()
            yield from nav_pages([below] if isinstance(below, str) else below)


def test_every_page_is_in_the_navigation_once():
    named = list(nav_pages(SITE["nav"]))
    assert sorted(named) == sorted({path.name for path in DOCS.glob("*.md")} | AT_ROOT)


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in sorted(AT_ROOT))], ids=str
)
def test_relative_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_site_fetches_nothing():
    assert SITE["theme"]["font"] is False
    assert not {"extra_javascript", "repo_url"} & SITE.keys()
    assert all((DOCS / name).is_file() for name in SITE["extra_css"])
    assert not re.search(r"!\[[^]]*\]\(https?:", "".join(p.read_text() for p in DOCS.glob("*.md")))


def test_settings_page_is_up_to_date():
    assert (DOCS / "SETTINGS.md").read_text(encoding="utf-8") == settings_page(), (
        "run: python -m tests.settings_page > docs/SETTINGS.md"
    )


def test_every_variable_of_the_environment_is_on_the_settings_page():
    sources = [p for folder in error_messages.SOURCES for p in (ROOT / folder).rglob("*.py")]
    named = {
        name
        for path in sources
        for name in re.findall(r"\bREWRIGHT_[A-Z]+(?:_[A-Z]+)*\b", path.read_text(encoding="utf-8"))
    }
    page = settings_page()
    assert {name for name in named if name not in page} == set()
    assert named >= ENVIRONMENT.keys()


def test_error_messages_are_those_of_the_sources():
    """An example whose place in the sources is gone, or says something else by now, is renewed."""
    known = error_messages.sites()
    stale = [example for example in error_messages.load() if example.site not in known]
    tests = " ".join(sorted({example.test for example in stale}))
    assert not stale, f"run: python -m tests.error_messages {tests}\n{stale}"


def test_error_page_is_made_of_what_was_recorded():
    made = error_messages.page(error_messages.load())
    assert error_messages.PAGE.read_text(encoding="utf-8") == made, (
        "run: python -m tests.error_messages"
    )


@pytest.mark.parametrize("kind", error_messages.kinds())
def test_every_class_of_error_that_is_raised_has_examples(kind):
    assert kind in errors.__all__
    raised = any(site.kind == kind for site in error_messages.sites())
    shown = any(example.site.kind == kind for example in error_messages.load())
    assert shown or not raised


def test_error_page_has_nothing_of_the_machine_it_was_made_on():
    page = error_messages.PAGE.read_text(encoding="utf-8")
    folders = (str(ROOT), str(Path.home()), f"{tempfile.gettempdir()}/pytest-of", sys.prefix)
    assert [folder for folder in folders if folder in page] == []


def test_recording_notes_an_expected_error_where_it_was_made(tmp_path):
    recorder = error_messages.Recorder()
    site = error_messages.Site("SettingsError", "src/rewright/settings.py", "there is no mode …")
    assert site in recorder._sites
    path = tmp_path / "test_one.py"
    path.write_text(
        "import pytest, rewright\n"
        "from rewright.errors import SettingsError\n"
        "def test_mode_is_refused():\n"
        "    with pytest.raises(SettingsError):\n"
        "        rewright.Settings.from_mode('defualt')\n"
    )
    (example,) = error_messages.record([str(path), f"--rootdir={tmp_path}", "-c", "/dev/null"]).seen
    assert example.site == site
    assert example.text == "there is no mode 'defualt'\n  hint: did you mean 'default'?"
    (kept,) = error_messages.merged([], _seen(example))
    assert kept == example
    assert error_messages.merged([kept], _seen()) == [kept], "what was not seen again stays"
    gone = error_messages.Example(error_messages.Site("InputError", "ir/x.py", "gone"), "gone", "t")
    assert error_messages.merged([gone], _seen()) == [], "what the sources have no more goes"


def _seen(*examples):
    recorder = error_messages.Recorder()
    recorder.seen += examples
    return recorder
