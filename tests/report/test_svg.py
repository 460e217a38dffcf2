import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from flyweight.report import svg

PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]))


@given(PLAIN, PLAIN)
def test_any_text_is_carried_literally(content: str, attribute: str) -> None:
    parsed = ElementTree.fromstring(svg.text(content, 1.0, 2.0, class_=attribute))
    assert (parsed.text or "") == content
    assert parsed.get("class") == attribute


def test_numbers_are_short_and_names_are_hyphenated() -> None:
    drawn = svg.polyline([(0.0, 1.005), (2, 3.1)], stroke_width=2)
    assert drawn == '<polyline points="0,1 2,3.1" stroke-width="2"/>'
