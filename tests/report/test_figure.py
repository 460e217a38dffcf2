import xml.etree.ElementTree as ElementTree

from flyweight.report.figure import STEPS, summary_svg
from flyweight.report.formatting import MINUS, TIMES
from flyweight.report.rows import Report, Row

SVG = "{http://www.w3.org/2000/svg}"


def words(drawing: str) -> list[str]:
    return [str(text.text) for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_flow_and_the_three_changes(report: Report) -> None:
    found = words(summary_svg(report))
    assert found[: len(STEPS)] == list(STEPS)
    assert {f"2.60{TIMES} faster", f"3.08{TIMES} smaller", f"{MINUS}0.8 points"} <= set(found)
    assert {"84.9 ms", "32.7 ms", "92.6 MiB", "30.1 MiB", "84.2 %", "83.4 %"} <= set(found)


def test_everything_lies_within_the_picture(report: Report) -> None:
    root = ElementTree.fromstring(summary_svg(report))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert root.get("viewBox") == f"0 0 {width:.0f} {height:.0f}"
    for element in root.iter(f"{SVG}rect"):
        left, top = float(element.get("x", 0)), float(element.get("y", 0))
        assert 0 <= left <= left + float(element.get("width", 0)) <= width
        assert 0 <= top <= top + float(element.get("height", 0)) <= height


def test_picture_stands_alone_and_follows_the_colour_scheme(report: Report) -> None:
    drawing = summary_svg(report)
    assert drawing.count("http") == 1
    assert "url(" not in drawing
    assert "prefers-color-scheme: dark" in drawing
    assert "<title>Flow: trained model, trace" in drawing


def test_hostile_title_stays_text(report: Report) -> None:
    drawing = summary_svg(report.model_copy(update={"title": "<script>&"}))
    assert "<script>" not in drawing
    assert "<script>&" in words(drawing)


def test_one_row_has_nothing_to_compare(report: Report) -> None:
    only = report.model_copy(update={"rows": (Row(stage="dense", quantities={}),)})
    assert words(summary_svg(only)) == list(STEPS)
