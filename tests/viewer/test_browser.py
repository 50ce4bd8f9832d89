"""The viewer in headless Chromium: what is drawn, clicked and typed."""

import json
import shutil

import pytest

from rewright.viewer.data import collect
from rewright.viewer.page_html import page
from tests.viewer.pages import BRANCHES, SHOWN, dump

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH"
)


def chain(count: int) -> str:
    """A graph of `count` nodes in modules, every tenth with a branch."""
    lines, last = [], "%x"
    for at in range(count):
        other = f"%v{at - 7}" if at % 10 == 0 and at > 7 else last
        lines.append(
            f"  %v{at} = aten.add.Tensor({last}, {other}) : f32[4]"
            f"  # net.py:{at} (layers.{at // 50}.part{at // 10 % 5})"
        )
        last = f"%v{at}"
    body = "\n".join(lines)
    return f"graph @chain(%x: f32[4]) -> f32[4] {{\n{body}\n  return {last}\n}}\n"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "disable-dev-shm-usage", "window-size=1280,800", f"user-data-dir={folder}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    dump(folder / "dump")
    texts = {"shown": SHOWN, "branches": BRANCHES, "chain": chain(5000), "small": chain(10)}
    for name, text in texts.items():
        (folder / f"{name}.ir").write_text(text)
    made = {}
    for source in (folder / "dump", *folder.glob("*.ir")):
        made[source.stem] = folder / f"{source.stem}.html"
        made[source.stem].write_text(page(collect(source)), encoding="utf-8")
    return made


@pytest.fixture
def show(browser, pages):
    """A function: opens a page at a state; at the end of the test nothing may have gone wrong."""

    def opened(name: str, state: str = ""):
        browser.get("about:blank")
        browser.get(f"{pages[name].as_uri()}#{state}")
        return browser

    yield opened
    assert [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    return browser.find_element("css selector", selector)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def state(browser) -> dict[str, str]:
    script = "return Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"
    return browser.execute_script(script)


def test_passes_are_listed_and_clicked(show):
    browser = show("dump", "tab=overview")
    listed = all_of(browser, "#passlist .pass .name")
    assert "fuse" in [item.text for item in listed]
    next(item for item in listed if item.text == "fuse").click()
    assert state(browser)["tab"] == "diff"
    added = [row.text for row in all_of(browser, ".row.add")]
    removed = [row.text for row in all_of(browser, ".row.del")]
    assert any("rw.linear" in row for row in added)
    assert any("aten.linear" in row for row in removed)
    assert one(browser, ".row.add mark").text.startswith("rw.")
    browser.back()
    assert one(browser, "#tab-overview").get_attribute("aria-selected") == "true"


def test_the_diff_side_by_side(show):
    browser = show("dump", "tab=diff&pass=2")
    one(browser, "[data-unified=no]").click()
    left = [c.text for c in all_of(browser, ".cell.del")]
    right = [c.text for c in all_of(browser, ".cell.add")]
    assert any("aten.linear" in t for t in left) and any("rw.linear" in t for t in right)
    press(browser, "u")
    assert all_of(browser, ".row.add") and not all_of(browser, ".cell.add")


def test_a_value_shows_its_definition_uses_type_and_place(show):
    browser = show("shown", "tab=ir")
    one(browser, '.row [data-name="%m"]').click()
    told = one(browser, "#inspector").text
    for part in (
        "%m",
        "aten.mul.Tensor",
        "f32[4, 4]",
        "net.py:2",
        "body.0",
        "halves",
        "tensorrt_0",
    ):
        assert part in told, part
    uses = [item.text for item in all_of(browser, "#inspector .values li")]
    assert "%p f32[4, 4]" in uses and "tanh %t line 6" in uses
    next(b for b in all_of(browser, "#inspector .values button") if b.text == "tanh %t").click()
    assert one(browser, "#inspector h2").text == "%t"
    assert "here" in one(browser, '.row[data-at="5"]').get_attribute("class")


def test_what_the_page_reads_is_what_the_parser_reads(show, pages):
    from rewright.ir.parser import parse_graph

    browser = show("shown", "tab=graph")
    found = browser.execute_script(
        "return rewright.model.nodes.map(n => [n.op, n.names, n.types, n.place.module,"
        " n.place.rules, n.operands.map(o => o.name)])"
    )
    parsed = parse_graph(SHOWN)
    wanted = [
        [n.op.name, [*(str(r.type) for r in n.results)], n.loc.module, [*n.loc.rules]]
        for n in parsed.walk()
    ]
    assert sorted([f[0], f[2], f[3], f[4]] for f in found) == sorted(wanted)
    assert next(f[5] for f in found if f[0] == "aten.cat") == ["%d", "%c"]


def test_from_a_rule_to_the_nodes_that_it_made(show):
    browser = show("dump", "tab=overview")
    one(browser, '[data-rule="torch-linear"]').click()
    assert "2 times" in one(browser, "#inspector").text
    rows = [row.text for row in all_of(browser, ".row.uses")]
    assert len(rows) == 2 and all("rw.linear" in row for row in rows)
    names = [b.get_attribute("data-value") for b in all_of(browser, "#inspector [data-value]")]
    assert len(names) == 2
    all_of(browser, "#inspector [data-value]")[1].click()
    assert one(browser, "#inspector h2").text == names[1]
    assert "torch-linear" in one(browser, "#inspector dl").text
    press(browser, "4")
    marked = browser.execute_script("return [...rewright.drawing.marked].map(l => l.node.names[0])")
    assert {*names} <= {*marked}


def boxes(browser) -> list[dict]:
    """What is drawn: closed groups and leaves, with their places."""
    return json.loads(
        browser.execute_script(
            """const out = []; const visit = g => { for (const i of g.items)
            if (i.items && i.open) visit(i);
            else out.push({name: i.items ? i.name : i.label, x: i.ax, y: i.ay, w: i.w, h: i.h,
              backend: rewright.drawing.backend(i)}); };
            visit(rewright.made.root); return JSON.stringify(out);"""
        )
    )


def overlapping(items: list[dict]) -> list[tuple[str, str]]:
    by_row = sorted(items, key=lambda b: b["y"])
    found = []
    for at, a in enumerate(by_row):
        for b in by_row[at + 1 :]:
            if b["y"] >= a["y"] + a["h"]:
                break
            if a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]:
                found.append((a["name"], b["name"]))
    return found


def test_the_graph_is_drawn_downwards_without_overlaps(show):
    browser = show("shown", "tab=graph")
    drawn = boxes(browser)
    places = {box["name"]: box["y"] for box in drawn}
    order = ["%x", "abs", "mul", "tanh", "split", "cat", "result"]
    assert sorted(order, key=places.__getitem__) == order
    assert overlapping(drawn) == []
    assert {b["name"] for b in drawn if b["backend"] == "tensorrt"} == {"mul", "tanh"}
    assert "tensorrt" in one(browser, ".legend").text


LINKS = """const name = l => l.node ? l.node.op.split(".")[1] : l.label;
return rewright.made.links.map(l => [name(l.from), name(l.to)]).sort()"""


@pytest.mark.parametrize(
    ("name", "links"),
    [
        (
            "branches",
            ["%p cond", "%x neg", "cond result", "neg relu", "neg tanh", "relu cond", "tanh cond"],
        ),
        (
            "shown",
            ["%x abs", "abs mul", "cat result", "mul tanh", "split cat", "split cat", "tanh split"],
        ),
    ],
)
def test_values_are_followed_through_the_borders_of_regions(show, name, links):
    browser = show(name, "tab=graph")
    assert sorted(" ".join(link) for link in browser.execute_script(LINKS)) == links
    assert overlapping(boxes(browser)) == []


def click_at(browser, box):
    from selenium.webdriver.common.action_chains import ActionChains

    view = browser.execute_script(
        "const d = rewright.drawing; return [d.x, d.y, d.scale, d.width, d.height]"
    )
    x, y, scale, width, height = view
    cx, cy = (box["x"] + box["w"] / 2) * scale + x, (box["y"] + box["h"] / 2) * scale + y
    canvas = one(browser, "canvas")
    by = (round(cx - width / 2), round(cy - height / 2))
    ActionChains(browser).move_to_element_with_offset(canvas, *by).click().perform()


def test_a_click_on_the_canvas_selects_and_keys_follow_values(show):
    browser = show("small", "tab=graph")
    click_at(browser, [b for b in boxes(browser) if b["name"] == "add"][2])
    assert one(browser, "#inspector h2").text == "%v2"
    press(browser, "\ue015")  # arrow down: to what uses it
    assert one(browser, "#inspector h2").text == "%v3"
    press(browser, "\ue013", "\ue013")  # up, twice
    assert one(browser, "#inspector h2").text == "%v1"
    press(browser, "\ue00c")
    assert "value" not in state(browser)


def test_groups_open_and_close(show):
    browser = show("chain", "tab=graph")
    closed = boxes(browser)
    assert len(closed) < 300
    assert overlapping(closed) == []
    group = next(b for b in closed if b["name"].startswith(("layers.", "part")))
    click_at(browser, group)
    assert len(boxes(browser)) > len(closed)


def test_five_thousand_nodes_are_drawn_in_time(show):
    browser = show("chain", "tab=graph")
    took = browser.execute_script(
        "const start = performance.now(); rewright.drawing.setAll(true); rewright.drawing.paint();"
        "return performance.now() - start;"
    )
    drawn = boxes(browser)
    assert len(drawn) == 5002
    assert overlapping(drawn) == []
    assert took < 15_000  # about one second on a free core
    painted = browser.execute_script(
        "const s = performance.now(); rewright.drawing.paint(); return performance.now() - s;"
    )
    assert painted < 1_000


def test_search_leads_to_a_value_inside_closed_groups(show):
    browser = show("chain", "tab=graph")
    press(browser, "/")
    one(browser, "#search").send_keys("v4321")
    assert "%v4321" in one(browser, "#found").text
    press(browser, "\ue007")
    assert one(browser, "#inspector h2").text == "%v4321"
    selected = browser.execute_script(
        "const d = rewright.drawing, s = d.selected; const y = s.ay * d.scale + d.y;"
        "return [s.label, y > 0 && y < d.height, s.parent.open]"
    )
    assert selected == ["add", True, True]
    press(browser, "f")
    assert 4 <= len(boxes(browser)) <= 30


def test_keys_move_through_passes_and_views(show):
    browser = show("dump", "tab=diff&pass=0")
    press(browser, "j")
    assert state(browser)["pass"] == "1"
    press(browser, "k", "3")
    assert (state(browser)["pass"], state(browser)["tab"]) == ("0", "ir")
    press(browser, "b")
    assert state(browser)["side"] == "before"
    press(browser, "?")
    assert one(browser, "#keys").is_displayed()
    press(browser, "\ue00c")


def test_light_and_dark(show):
    from selenium.webdriver.support.wait import WebDriverWait

    browser = show("dump")

    shown = "return document.documentElement.dataset.theme"

    def back():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        wait = WebDriverWait(browser, 10)
        assert wait.until(lambda b, wanted=scheme: b.execute_script(shown) == wanted)
    dark = back()
    press(browser, "t")
    assert back() != dark
    browser.execute_script("localStorage.clear()")
