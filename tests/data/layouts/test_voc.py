import numpy as np
import pytest

from flyweight.data.layouts.voc import read_label_list, read_voc
from flyweight.errors import DataError

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>\n"
)


def _write(root, name, *objects, size="<size><width>64</width><height>48</height></size>"):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    body = "".join(OBJECT.format(*values) for values in objects)
    text = f"<annotation>\n{size}\n{body}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "JPEGImages" / f"{name}.png").touch()
    (root / "label_list.txt").write_text("cat\ndog\n")


@pytest.fixture
def root(tmp_path):
    _write(tmp_path, "one", ("dog", 0, 1, 2, 30, 40), ("cat", 1, 5.5, 6, 7, 8))
    _write(tmp_path, "two words")
    (tmp_path / "ImageSets/Main/train.txt").write_text("one\n\ntwo words\n")
    return tmp_path


def test_reads_exactly_what_the_files_say(root):
    box_set = read_voc(root, "train")
    assert box_set.labels == ("cat", "dog")
    assert box_set.problems == ()
    assert box_set.source == root / "ImageSets/Main/train.txt"
    first, second = box_set.records
    assert first.path == root / "JPEGImages/one.png"
    assert (first.height, first.width) == (48, 64)
    np.testing.assert_array_equal(first.boxes, [[1, 2, 30, 40], [5.5, 6, 7, 8]])
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [1, 0]
    assert first.difficult.tolist() == [False, True]
    assert first.lines == (3, 4)
    assert second.path == root / "JPEGImages/two words.png"
    assert second.boxes.shape == (0, 4)


def test_reads_a_list_of_pairs(root):
    lines = "JPEGImages/one.png Annotations/one.xml\nJPEGImages/two words.png Annotations/one.xml"
    (root / "my_list.txt").write_text(lines)
    first, second = read_voc(root, "my_list.txt").records
    assert first.path == root / "JPEGImages/one.png"
    assert second.path == root / "JPEGImages/two words.png"
    assert second.annotation == root / "Annotations/one.xml"


def test_the_suffix_of_a_picture_is_found(root):
    (root / "JPEGImages/one.JPG").touch()
    assert read_voc(root, "train").records[0].path == root / "JPEGImages/one.JPG"


def test_given_labels_replace_the_list(root):
    (root / "label_list.txt").unlink()
    box_set = read_voc(root, "train", labels=["dog", "cat"])
    assert box_set.records[0].labels.tolist() == [0, 1]


def test_what_cannot_be_read_is_noted_with_its_line(root):
    _write(root, "bad", ("cat", 0, 1, 1, 2, 2), ("dgo", 0, 1, 1, 2, 2), ("dog", 0, "x", 1, 2, 2))
    (root / "Annotations/broken.xml").write_text("<annotation>\n<object>")
    (root / "ImageSets/Main/val.txt").write_text("bad\nnowhere\nbroken\n")
    box_set = read_voc(root, "val")
    assert [len(record.boxes) for record in box_set.records] == [1]
    annotation = root / "Annotations/bad.xml"
    missing = root / "Annotations/nowhere.xml"
    assert [str(problem) for problem in box_set.problems] == [
        f"{annotation}:4: object 2: the class must be a known one. Received 'dgo'. Nearest: 'dog'.",
        (
            f"{annotation}:5: object 3: a box must have four numbers. Received xmin=x, ymin=1, "
            "xmax=2, ymax=2. Correct or remove it."
        ),
        (
            f"{box_set.source}:2: 'nowhere' must have an annotation. Received no file '{missing}'. "
            "Add it."
        ),
        (
            f"{root / 'Annotations/broken.xml'}:2: An annotation must be well-formed XML. "
            "Received: no element found: line 2, column 8. Write it again."
        ),
    ]


def test_refuses_a_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"A VOC set must be a folder\. Received '.*none'"):
        read_voc(tmp_path / "none", "train")


def test_refuses_an_unknown_split(root):
    with pytest.raises(DataError, match=r"Received 'trian'\. Nearest: 'train'\."):
        read_voc(root, "trian")


def test_refuses_a_set_without_lists(root):
    (root / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(DataError, match=r"Received 'train'\. There are no lists in this set\."):
        read_voc(root, "train")


def test_refuses_a_missing_or_repeating_label_list(root):
    path = root / "label_list.txt"
    path.write_text("cat\ncat\n")
    with pytest.raises(DataError, match="Received 2 lines with 1 different names"):
        read_label_list(path)
    path.unlink()
    with pytest.raises(DataError, match=r"must name its classes\. Received no file"):
        read_voc(root, "train")


def test_refuses_a_list_that_is_no_text(root):
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="must be readable UTF-8 text"):
        read_voc(root, "train")


@pytest.mark.data
def test_bccd_counts(data_root):
    splits = {name: read_voc(data_root / "det_bccd", name) for name in ("train", "val", "test")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    labels = np.concatenate([r.labels for split in splits.values() for r in split.records])
    assert splits["train"].labels == ("RBC", "WBC", "Platelets")
    assert np.bincount(labels).tolist() == [4153, 372, 361]
    assert not any(split.problems for split in splits.values())
