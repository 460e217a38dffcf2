from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.data.layouts.voc_xml import AnnotationError, parse_annotation, read_annotation

TEXT = b"""<?xml version="1.0"?>
<annotation>
  <size><width> 640 </width><height>480</height><depth>3</depth></size>
  <object>
    <name> cat &amp; dog</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>
  </object>
  <object><name>cow</name></object>
</annotation>
"""


def test_reads_fields_lines_and_not_the_parts():
    annotation = parse_annotation(TEXT)
    assert (annotation.height, annotation.width) == (480, 640)
    first, second = annotation.objects
    assert (first.line, second.line) == (4, 9)
    assert first.text["name"] == "cat & dog"
    assert first.text["difficult"] == "1"
    corners = [first.text[corner] for corner in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["1", "2.5", "30", "40"]
    assert second.text == {"name": "cow"}


@pytest.mark.parametrize("size", [b"", b"<size><width>x</width><height>inf</height></size>"])
def test_an_unknown_size_is_zero(size):
    annotation = parse_annotation(b"<annotation>" + size + b"</annotation>")
    assert (annotation.height, annotation.width) == (0, 0)


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"", "must be well-formed XML. Received: no element found", 1),
        (b"<annotation>\n<object></annotation>", "Received: mismatched tag: line 2", 2),
        (b"<html/>", "must have <annotation> as its root. Received <html>", None),
        (
            b'<!DOCTYPE a [\n<!ENTITY lol "ha">]><annotation/>',
            "must not declare entities. Received 'lol'",
            2,
        ),
        (
            b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "must not declare entities. Received 'x'",
            1,
        ),
    ],
)
def test_refuses(data, message, line):
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_annotation(data)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(AnnotationError, match="must be a readable file"):
        read_annotation(tmp_path / "none.xml")


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_parsed_or_refused(data):
    for content in (data, b"<annotation>" + data + b"</annotation>"):
        with suppress(AnnotationError):
            parse_annotation(content)
