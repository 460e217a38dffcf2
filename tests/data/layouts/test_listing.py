import pytest

from flyweight.data.layouts.listing import (
    find_list,
    folders_in,
    images_below,
    labels_in,
    lines_of,
    read_labels,
    require_folder,
    require_list,
)
from flyweight.errors import DataError


def test_lines_without_mark_and_space(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone \r\n two\n")
    assert lines_of(path) == ["one", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="must be readable UTF-8"):
        lines_of(path)


def test_labels_are_named_once(tmp_path):
    (tmp_path / "label_list.txt").write_text("cat\ndog\n")
    assert labels_in(tmp_path) == ("cat", "dog")
    (tmp_path / "labels.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match="2 lines with 1 different names"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(DataError, match=r"without labels\.txt or label_list\.txt"):
        labels_in(tmp_path / "nowhere")


def test_lists_by_name(tmp_path):
    for name in ("train_list.txt", "val.txt"):
        (tmp_path / name).touch()
    assert find_list(tmp_path, "train").name == "train_list.txt"
    assert find_list(tmp_path, "val").name == "val.txt"
    assert find_list(tmp_path, "val.txt").name == "val.txt"
    assert find_list(tmp_path, "test") is None
    with pytest.raises(DataError, match=r"Received 'vall'\. Nearest: 'val.txt'"):
        require_list(tmp_path, "vall")


def test_pictures_are_found_in_order_and_hidden_ones_not(tmp_path):
    for name in ("b/2.PNG", "b/.thumbs/3.png", "a.jpg", "notes.txt", ".x.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.name for path in images_below(tmp_path)] == ["a.jpg", "2.PNG"]
    assert folders_in(tmp_path) == ("b",)
    assert folders_in(tmp_path / "none") == ()
    with pytest.raises(DataError, match="must be a readable folder"):
        list(images_below(tmp_path / "none"))
    with pytest.raises(DataError, match="A set must be a folder"):
        require_folder(tmp_path / "none", "A set")
