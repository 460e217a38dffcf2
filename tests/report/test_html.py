import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.test_quantization_results import result

from flyweight.errors import FileError
from flyweight.report.html import SECTIONS, to_html
from flyweight.report.rows import Curve, Report, ReportImage, Row, Width

OF_A_SCAN = {"explorer", "sensitivity"}
VOID = {"meta", "img", "col", "br", "hr", "link", "input"}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Checks nesting and remembers tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(report: Report, run_folder: Path) -> Page:
    # A section of its own; other pages have none.
    whole = report.model_copy(update={"quantization": result()})
    return Page(to_html(whole, run_folder))


def test_page_is_well_formed_and_complete(page: Page) -> None:
    assert page.open == []
    names = [section.name for section in SECTIONS if section.name not in OF_A_SCAN]
    assert [section["id"] for section in page.named("section")] == names
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {a["href"] for a in page.named("a")} == {f"#{name}" for name in names}


def test_page_needs_no_network(report: Report, run_folder: Path) -> None:
    text = to_html(report, run_folder)
    assert re.findall(r"https?:|//\w|@import|url\(", text.split("base64,")[0]) == []
    page = Page(text)
    assert all(str(image["src"]).startswith("data:image/") for image in page.named("img"))
    assert page.named("script") == []
    assert page.named("link") == []
    assert any("default-src 'none'" in str(meta.get("content")) for meta in page.named("meta"))


def test_results_by_class_are_on_the_page(page: Page) -> None:
    words = " ".join(" ".join(page.words).split())
    assert "red cell 1,200 84.2 83.4" in words
    titles = {cell.get("title") for cell in page.named("td")}
    assert "cat, predicted as dog: 1 images" in titles


def test_page_can_be_heard(page: Page) -> None:
    assert page.named("html") == [{"lang": "en"}]
    assert [image["alt"] for image in page.named("img")] == [
        "cells with the predictions of the dense model: 17 objects",
        "cells with the predictions of the pruned model: 18 objects",
    ]
    assert all(header.get("scope") in {"row", "col"} for header in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table"))
    for drawing in page.named("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("aria-label")


def test_numbers_are_on_the_page(page: Page) -> None:
    words = " ".join(" ".join(page.words).split())
    for expected in ("84.9 ms", "[84.0, 85.8]", "6.01 GMACs", "One seed.", "Xeon"):
        assert expected in words
    titles = {cell.get("title") for cell in page.named("td")}
    assert "6,009,600,000 MACs" in titles


def test_hostile_text_stays_text(report: Report, run_folder: Path) -> None:
    (run_folder / "a&b.png").write_bytes((run_folder / "pictures" / "a.png").read_bytes())
    rows = tuple(
        Row(
            stage=row.stage + HOSTILE,
            quantities={
                key: quantity.model_copy(update={"label": HOSTILE, "method": HOSTILE})
                for key, quantity in row.quantities.items()
            },
        )
        for row in report.rows
    )
    hostile = report.model_copy(
        update={
            "title": HOSTILE,
            "subject": HOSTILE,
            "command": HOSTILE,
            "environment": {HOSTILE: HOSTILE},
            "rows": rows,
            "widths": (Width(name=HOSTILE, before=2, after=1),),
            "curves": (Curve(name=HOSTILE, series=HOSTILE, x=(0, 1), y=(0, 1), unit=HOSTILE),),
            "images": (ReportImage(title=HOSTILE, stage=HOSTILE, path="a&b.png", caption=HOSTILE),),
            "notes": (HOSTILE,),
        }
    )
    page = Page(to_html(hostile, run_folder))
    assert page.open == []
    assert page.named("script") == []
    assert len(page.named("img")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert any(HOSTILE in words for words in page.words)


def test_sections_without_content_are_left_out(report: Report, run_folder: Path) -> None:
    bare = report.model_copy(
        update={
            "widths": (),
            "curves": (),
            "images": (),
            "class_results": None,
            "rows": report.rows[:1],
        }
    )
    page = Page(to_html(bare, run_folder))
    assert [section["id"] for section in page.named("section")] == [
        "glance",
        "numbers",
        "provenance",
    ]
    assert page.open == []


def test_a_hundred_and_sixty_layers_stay_small(report: Report, run_folder: Path) -> None:
    widths = tuple(
        Width(name=f"layer{i // 40}.{i}.conv.weight", before=512, after=100) for i in range(160)
    )
    x = tuple(float(step) for step in range(20_000))
    curves = (Curve(name="Loss", series="dense", x=x, y=x, unit="loss"),)
    changed = {"widths": widths, "curves": curves, "images": ()}
    text = to_html(report.model_copy(update=changed), run_folder)
    assert len(text.encode()) < 1_000_000
    assert text.count('class="after"') == 2 * 160 + 1


def test_missing_picture_is_one_line(report: Report, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"readable PNG or JPEG.*a\.png"):
        to_html(report, tmp_path)
