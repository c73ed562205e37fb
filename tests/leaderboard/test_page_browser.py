"""The page in a headless Chromium: sorting, filtering, hostile entries; skipped where either is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emubench.leaderboard.page import building
from tests.support.submissions import TASK

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def site(small_board, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    building.build(small_board, out, "tiny")
    return out


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page that must say nothing on its console, ask for nothing outside, and run nothing of a submission's."""
    context = browser.new_context()
    opened = context.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked), asked


def shown(page) -> list[str]:
    return [cell.inner_text() for cell in page.locator("tbody th[scope=row] > a").all() if cell.is_visible()]


def regions(page) -> list:
    return [part for part in page.locator("div[data-system]").all() if part.is_visible()]


def test_tables_are_filtered(page, site):
    page.goto(f"file://{site}/index.html")
    everything = shown(page)
    assert {"linear", "persistence", "hostile"} <= set(everything)
    assert page.locator("nav[aria-label=Tracks] a[aria-current]").inner_text() == "noisy"
    page.select_option("[data-filter=division]", "open")
    rows = page.locator("tr[data-division]").all()
    visible = [row for row in rows if row.is_visible()]
    assert visible
    assert {row.get_attribute("data-division") for row in visible} == {"open"}
    assert page.locator("#count").inner_text() == f"{len(visible)} rows shown"
    assert all("open division" in part.get_attribute("aria-label") for part in regions(page))  # no empty table is left
    page.select_option("[data-filter=division]", "standard")
    page.select_option("[data-filter=knowledge]", "none")
    visible = [row for row in page.locator("tr[data-division]").all() if row.is_visible()]
    assert ["persistence" in row.inner_text() for row in visible] == [True]
    page.select_option("[data-filter=knowledge]", "")
    page.select_option("[data-filter=device]", "here")  # the judge's: verified rows alone
    assert [part.get_attribute("aria-label") for part in regions(page)] == ["noisy, season 2026a: all systems together"]


def test_tables_are_sorted_by_mouse_and_by_keyboard(page, site):
    page.goto(f"file://{site}/index.html")
    page.locator("a[data-tab=lorenz63]").press("Enter")
    assert page.url.endswith("index.html#lorenz63")
    assert page.locator("nav[aria-label=Systems] a[aria-current]").inner_text() == "lorenz63"
    table = page.get_by_role("region", name="noisy, standard division: lorenz63").locator("table")

    def names() -> list[str]:
        return [cell.inner_text() for cell in table.locator("tbody th > a").all()]

    button = table.locator("th[data-sort='0'] button")
    button.click()
    assert names() == sorted(names())
    assert table.locator("th[data-sort='0']").get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert names() == sorted(names(), reverse=True)
    assert table.locator("th[aria-sort]").count() == 1
    table.locator("th[data-sort='1'] button").click()
    values = [float(cell.get_attribute("data-value")) for cell in table.locator("tbody td:nth-child(2)").all()]
    assert values == sorted(values)
    assert len(values) == 2


def test_the_page_of_a_hostile_entry_shows_text(page, site):
    page.goto(f"file://{site}/entries/hostile.html")
    assert "<script>alert(1)</script>" in page.locator(".notes").inner_text()
    assert page.locator("script").count() == 1
    page.goto(f"file://{site}/entries/linear.html")
    assert page.locator(f"section[aria-labelledby='{TASK}'] svg").count() >= 2
    page.locator("summary").first.click()
    assert page.get_by_role("rowheader", name="valid prediction time", exact=True).is_visible()
    page.locator("header nav a").first.click()
    assert page.url.endswith("index.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "entries/hostile.html", "entries/linear.html", "methods.html"])
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, site, name, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"file://{site}/{name}")
    opened.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    cut = "[...document.querySelectorAll('th, td')].filter((c) => c.scrollWidth > c.clientWidth + 1)"
    assert opened.evaluate(f"{cut}.map((c) => c.textContent)") == []  # no cell's text runs into the next one's
    colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(21, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")
    context.close()
