import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check
from flyweight.data.layouts.wider import event_of, read_wider
from flyweight.errors import DataError

PUBLISHED = """0--Parade/a.jpg
2
4 3 10 12 0 0 0 0 0 0
20 5 9 8.5 2 0 0 1 2 0
0--Parade/no face.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/b.jpg
1
1 2 3 4
"""


def _text(root, text, name="wider_face_train_bbx_gt.txt"):
    (root / "wider_face_split").mkdir(exist_ok=True)
    (root / "wider_face_split" / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path):
    for name in ("0--Parade/a.jpg", "0--Parade/no face.jpg", "1--Handshaking/b.jpg"):
        path = tmp_path / "WIDER_train/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
    return _text(tmp_path, PUBLISHED)


def test_reads_exactly_what_the_text_says(root):
    faces = read_wider(root, "train")
    assert faces.labels == ("face",)
    assert faces.problems == check(faces) == ()
    assert faces.name == f"{root.name}/train"
    first, second, third = faces.records
    assert first.path == root / "WIDER_train/images/0--Parade/a.jpg"
    np.testing.assert_array_equal(first.boxes, [[4, 3, 14, 15], [20, 5, 29, 13.5]])
    assert first.difficult.tolist() == [False, True]
    assert first.lines == (3, 4)
    assert second.boxes.shape == (0, 4)
    np.testing.assert_array_equal(third.boxes, [[1, 2, 4, 6]])
    assert [event_of(record.path) for record in faces.records] == ["0--Parade"] * 2 + [
        "1--Handshaking"
    ]


def test_a_path_and_a_folder_of_pictures_can_be_named(root):
    moved = root / "pictures"
    (root / "WIDER_train/images").rename(moved)
    (root / "list.txt").write_text(PUBLISHED)
    faces = read_wider(root, "list.txt", images="pictures", labels=["head"])
    assert faces.labels == ("head",)
    assert faces.records[2].path == moved / "1--Handshaking/b.jpg"
    assert check(faces) == ()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("3 4 5 6\n", 1, "must begin with an image's path"),
        ("0--Parade/a.jpg\n2\n4 3 10 12\n", 2, "Received 2 where there are 1 for '0--Parade/a"),
        ("0--Parade/a.jpg\n1\n4 3 10 12\n5 3 10 12\n", 2, "Received 1 where there are 2"),
        ("0--Parade/a.jpg\n4 3 10 12\n", 1, "must have a count"),
        ("0--Parade/a.jpg\n1\n2\n4 3 10 12\n", 3, "must have one count"),
        ("0--Parade/a.jpg\n1\n4 3 10 12 0\n", 3, "alone or with six attributes. Received 5"),
        ("0--Parade/a.jpg\n1\n4 3 0 12\n", 3, "must have width and height above 0"),
        ("0--Parade/a.jpg\n1\n4 3 10 nan\n", 3, "must have finite corners"),
        ("0--Parade/a.jpg\n1\n14 3 30 12\n", 3, "must lie in its image of 40x30"),
    ],
)
def test_the_check_names_the_line(root, text, line, message):
    found = check(read_wider(_text(root, text), "train"))
    text_path = root / "wider_face_split/wider_face_train_bbx_gt.txt"
    assert (text_path, line) in [(problem.path, problem.line) for problem in found]
    assert any(message in problem.message for problem in found)


def test_refuses_what_is_no_set(root):
    with pytest.raises(DataError, match="must be a folder"):
        read_wider(root / "none", "train")
    with pytest.raises(DataError, match=r"Received .trian.\. Nearest: .train."):
        read_wider(root, "trian")
    with pytest.raises(DataError, match="must be a folder in"):
        read_wider(root, "train", images="none")
    with pytest.raises(DataError, match="must have one class"):
        read_wider(root, "train", labels=["face", "mask"])
    (root / "wider_face_split/wider_face_train_bbx_gt.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="readable UTF-8"):
        read_wider(root, "train")


def test_a_text_without_numbers_is_of_another_layout(root):
    (root / "faces.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match=r"faces\.json' without any number"):
        read_wider(root, "faces.json")
    assert len(read_wider(_text(root, "", "empty.txt"), "wider_face_split/empty.txt")) == 0


@pytest.mark.data
def test_reads_the_real_faces(data_root):
    root = data_root / "face_mask853"
    sets = {split: read_wider(root, split) for split in ("train", "val", "test")}
    assert [len(faces) for faces in sets.values()] == [598, 85, 170]
    assert sum(len(r.boxes) for faces in sets.values() for r in faces.records) == 4072
    assert check(sets["val"]) == ()
