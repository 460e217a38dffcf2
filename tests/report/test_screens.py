"""The page on a phone and on a desktop, light and dark, as a browser draws it."""

import pytest
from PIL import Image
from tests import browser

from flyweight.report.html import to_html

PAPER = {False: (252, 252, 251), True: (20, 23, 26)}

# Cells that end right of the window or that nobody sees, and how much wider the page is than it.
OUTSIDE = """({
  wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  changes: [...document.querySelectorAll(".all-stages td.change")].map((cell) => {
    const box = cell.getBoundingClientRect();
    return [cell.textContent, box.left >= 0 && box.right <= window.innerWidth && box.width > 40];
  }),
  columns: [...document.querySelectorAll(".by-class td")].every(
    (cell) => cell.getBoundingClientRect().right <= window.innerWidth
  ),
})"""


@pytest.fixture
def page(report, run_folder):
    path = run_folder / "report.html"
    path.write_text(to_html(report, run_folder), encoding="utf-8")
    return path


@pytest.mark.browser
@pytest.mark.parametrize("width", [browser.PHONE, browser.DESKTOP])
def test_the_table_keeps_its_last_column(page, width):
    found = browser.measured(page, width, OUTSIDE)
    assert found["wider"] <= 0
    assert found["columns"]
    assert len(found["changes"]) == 4
    assert all(visible for _, visible in found["changes"]), found["changes"]
    assert "faster" in found["changes"][-1][0]


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [browser.PHONE, browser.DESKTOP])
def test_screenshots(page, width, dark):
    with Image.open(browser.on_screen(page, width, dark=dark)) as opened:
        shown = opened.convert("RGB")
    assert shown.width == width
    assert shown.getpixel((2, 2)) == shown.getpixel((width - 3, 2)) == PAPER[dark]
    colours = {colour for _, colour in shown.getcolors(maxcolors=1 << 24)}
    brightest, darkest = max(map(sum, colours)), min(map(sum, colours))
    assert brightest - darkest > 400  # Text can be read.
