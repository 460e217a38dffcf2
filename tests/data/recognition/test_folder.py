from pathlib import PurePosixPath

import pytest

from flyweight.data.recognition.folder import read_folder
from flyweight.errors import DataError


def test_names_of_all_files(plant):
    folder = read_folder(plant({"b/c/x.JPG": None, "a.txt": "1\n\n2\n", ".hidden/y.png": None}))
    assert list(map(str, folder.files)) == ["a.txt", "b/c/x.JPG"]
    assert list(map(str, folder.images)) == ["b/c/x.JPG"]
    assert folder.folders == {".", "b", "b/c"}
    assert folder.ending(".jpg") == (PurePosixPath("b/c/x.JPG"),)
    assert folder.lines_of("a.txt") == ["1", "2"]
    assert folder.start_of("none.txt") == ""


def test_a_long_text_is_read_to_its_last_whole_line(plant):
    line = "é" * 50
    folder = read_folder(plant({"a.txt": f"{line}\n" * 2000}))
    lines = folder.lines_of("a.txt")
    assert set(lines) == {line}
    assert 600 < len(lines) < 700


def test_text_that_is_no_utf8_is_empty(plant):
    root = plant({"a.txt": ""})
    (root / "a.txt").write_bytes(b"\xff\xfe1\x002")
    assert read_folder(root).start_of("a.txt") == ""


def test_links_in_a_circle_end(plant):
    root = plant({"a/x.png": None})
    (root / "a" / "up").symlink_to(root)
    assert list(map(str, read_folder(root).images)) == ["a/x.png"]


def test_a_set_is_a_folder(plant):
    root = plant({"x.png": None})
    with pytest.raises(DataError, match="must be a folder"):
        read_folder(root / "x.png")
