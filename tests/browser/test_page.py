"""The page in a true browser: no errors, no requests; sorting, filters, slider, keyboard."""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from leaderboard_cases import measured
from page_cases import pictures

from leaderboard import write

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    board = measured().board(segmenters=("unet", "vnet"), splits={"train": 12, "test": 8})
    write(board, folder, pictures("<script>alert(1)</script>"))
    return folder / "leaderboard.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page as it opens from disk; at the end nothing may have gone wrong or out."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("dialog", lambda dialog: told.append(dialog.message))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_file.as_uri())
    expect(opened.locator(".viewer[data-ready]")).to_have_count(2)
    yield opened
    assert told == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


def expect(found: Any) -> Any:
    """Playwright's own, which waits; a page whose policy forbids eval cannot be asked in JS."""
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(found)


def column(page: Any, table: str, place: int) -> list[str]:
    rows = page.locator(f"#table-{table} tbody:first-of-type tr:visible")
    return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]


def test_titles_sort_up_down_and_back(page: Any) -> None:
    before = column(page, "table1", 0)
    average = [float(text.split()[0]) for text in column(page, "table1", 4)]
    button = page.locator("#table-table1 th[data-column='4'] button")
    for order in (sorted(average), sorted(average, reverse=True), average):
        button.click()
        assert [float(text.split()[0]) for text in column(page, "table1", 4)] == order
    assert column(page, "table1", 0) == before
    last = page.locator("#table-table1 tbody.last tr").inner_text()
    assert last.startswith("real training volumes (floor)")


def test_the_keyboard_sorts_too_and_names_sort_as_text(page: Any) -> None:
    head = page.locator("#table-table1 th[data-column='0']")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "table1", 0) == sorted(column(page, "table1", 0))


def test_a_filter_hides_rows(page: Any) -> None:
    every = column(page, "gains", 0)
    box = page.locator("section:has(#table-gains) input[type=search]")
    box.fill("BETA vnet")
    assert column(page, "gains", 0) == ["beta"]
    assert (
        page.locator("section:has(#table-gains) output").inner_text() == f"1 of {len(every)} rows"
    )
    box.fill("")
    assert column(page, "gains", 0) == every


def pixels(page: Any) -> np.ndarray:
    """Red, green and blue of the first visible canvas, ``(n, 3)``."""
    first = 'document.querySelector("#viewer-volumes canvas:not([hidden])").toDataURL()'
    content = base64.b64decode(page.evaluate(first).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3).astype(int)


def test_the_slider_leafs_through_slices_by_keyboard(page: Any) -> None:
    viewer = page.locator("#viewer-volumes")
    slider = viewer.locator("input[type=range]")
    told = viewer.locator("output")
    viewer.locator("input[value=sagittal]").check()
    viewer.locator("input[type=checkbox]").uncheck()
    slider.focus()
    page.keyboard.press("Home")
    expect(told).to_have_text("sagittal 1 of 10")
    dark = pixels(page).mean()
    page.keyboard.press("End")
    expect(told).to_have_text("sagittal 10 of 10")
    bright = pixels(page).mean()
    # The test volumes are a ramp along R, from 0 to 200 of 255.
    assert dark < 10
    assert 190 < bright < 210
    page.keyboard.press("ArrowLeft")
    expect(told).not_to_have_text("sagittal 10 of 10")
    assert slider.get_attribute("aria-valuetext") == told.inner_text()


def test_planes_have_their_sides_in_millimetres_and_contours_their_colours(page: Any) -> None:
    viewer = page.locator("#viewer-volumes")
    viewer.locator("input[value='all three']").check()
    expect(viewer.locator("canvas:visible")).to_have_count(12)
    shapes = page.evaluate(
        """() => Array.from(document.querySelectorAll("#viewer-volumes canvas")).slice(0, 3)
             .map((canvas) => canvas.width / canvas.height)"""
    )
    assert shapes == pytest.approx([20 / 12, 20 / 21, 12 / 21], rel=0.02)
    viewer.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(viewer.locator("output")).to_contain_text("axial 6 of 14")
    blue = (0x56, 0xB4, 0xE9)  # the first class's
    assert (np.abs(pixels(page) - blue) < 25).all(axis=1).sum() > 100
    viewer.locator("input[type=checkbox]").uncheck()
    page.wait_for_timeout(200)
    assert np.ptp(pixels(page), axis=1).max() == 0  # greys alone


def test_changes_stand_beside_the_ground_truth_and_names_show_as_text(page: Any) -> None:
    views = page.locator("#viewer-changes .view")
    assert [view.inner_text() for view in views.all()] == [
        *("ground truth", "R, Dice 0.500", "R+S, Dice 0.700"),
    ]
    assert "<script>alert(1)</script>" in page.locator("#viewer-volumes .legend").first.inner_text()
    # The slider starts where R and R+S differ, and counts from there.
    told = page.locator("#viewer-changes output")
    assert told.inner_text() == "the most changed slice"
    page.locator("#viewer-changes input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    expect(told).to_have_text("+1 from the most changed slice")
    label = page.locator("#viewer-changes canvas").first.get_attribute("aria-label")
    assert "case-4, ground truth: axial slice" in label


@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_tables_and_stills_show_without_javascript(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    assert opened.locator("table tbody tr").count() > 50
    assert opened.locator("noscript img").count() == 2 or "Middle slices" in opened.content()
    context.close()
