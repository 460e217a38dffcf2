import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check
from flyweight.data.layouts.yolo_txt import label_path, read_yolo
from flyweight.errors import DataError


def _image(path, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def root(tmp_path):
    for name in ("images/train/a.jpg", "images/train/sub/b.png", "images/val/c.jpg"):
        _image(tmp_path / name)
    labels = tmp_path / "labels/train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\ntrain: images/train\n")
    return tmp_path


def test_reads_shares_as_pixels(root):
    pets = read_yolo(root, "train")
    assert pets.labels == ("cat", "dog")
    (unlabelled,) = pets.problems
    assert (unlabelled.kind, unlabelled.path.name) == ("missing_label_file", "b.png")
    assert check(pets, decode=True) == (unlabelled,)
    first, second = pets.records
    assert first.path == root / "images/train/a.jpg"
    assert (first.height, first.width) == (20, 40)
    np.testing.assert_allclose(first.boxes, [[15, 5, 25, 15], [0, 0, 8, 8]], atol=1e-5)
    assert first.labels.tolist() == [1, 0]
    assert first.lines == (1, 3)
    assert first.annotation == root / "labels/train/a.txt"
    assert second.boxes.shape == (0, 4)  # No text, no objects.


def test_an_outline_becomes_the_box_round_it(root):
    (root / "labels/train/a.txt").write_text("0 0.1 0.5 0.5 0.25 0.3 1.0\n")
    (box,) = read_yolo(root, "train").records[0].boxes
    np.testing.assert_allclose(box, [4, 5, 20, 20], atol=1e-5)


def test_sideways_pictures_are_measured_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "images/train/a.jpg", exif=exif)
    record = read_yolo(root, "train").records[0]
    assert (record.height, record.width) == (40, 20)
    np.testing.assert_allclose(record.boxes[0], [7.5, 10, 12.5, 30], atol=1e-5)


@pytest.mark.parametrize(
    ("split", "card", "found"),
    [
        ("val", "names: [cat, dog]", ["c.jpg"]),
        ("images/val", "names: [cat, dog]", ["c.jpg"]),
        ("train", "names: [cat, dog]\ntrain: ../images/val", ["c.jpg"]),
        ("list.txt", "names: [cat, dog]", ["c.jpg", "a.jpg"]),
    ],
)
def test_a_split_can_be_said_in_several_ways(root, split, card, found):
    (root / "data.yaml").write_text(card)
    (root / "list.txt").write_text("./images/val/c.jpg\nimages/train/a.jpg\n")
    records = read_yolo(root, split).records
    assert [record.path.name for record in records] == found


@pytest.mark.parametrize("path", ["", "path: ."])
def test_a_split_can_be_several_folders_and_lists(root, path):
    (root / "list.txt").write_text("./images/train/a.jpg\n")
    card = f"{path}\nnames: [cat, dog]\ntrain: [images/val, ../images/train, list.txt]\n"
    (root / "data.yaml").write_text(card)
    pets = read_yolo(root, "train")
    assert [record.path.name for record in pets.records] == ["c.jpg", "a.jpg", "b.png"]
    assert pets.source == root / "data.yaml"
    for entry in ("[images/val, images/nowhere]", "[images/val, 3]"):
        (root / "data.yaml").write_text(f"names: [cat, dog]\ntrain: {entry}\n")
        with pytest.raises(DataError, match=r"Every entry of `train`.*Received ('images/now|3)"):
            read_yolo(root, "train")


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("[2, 2]", "0 0.5 0.5 0.25 0.5 0.9 0.9 7 7"),
        ("[2, 3]", "0 0.5 0.5 0.25 0.5 0.9 0.9 2 0 0 0"),
        ("[2, 3]", "0 0.5 0.5 0.25 0.5"),
    ],
)
def test_points_after_a_box_are_no_outline(root, shape, row):
    (root / "data.yaml").write_text(f"names: [cat, dog]\nkpt_shape: {shape}\n")
    (root / "labels/train/a.txt").write_text(f"{row}\n")
    pets = read_yolo(root, "train")
    np.testing.assert_allclose(pets.records[0].boxes, [[15, 5, 25, 15]], atol=1e-5)
    (root / "labels/train/a.txt").write_text("0 0.1 0.5 0.5 0.25 0.3 1.0\n")
    (problem,) = (found for found in read_yolo(root, "train").problems if found.stops)
    assert "as kpt_shape says. Received 6 numbers" in problem.message


@pytest.mark.parametrize("shape", ["17", "[2]", "[0, 3]", "[2, 4]", "[2.0, 3]", "{a: 1}"])
def test_a_wrong_number_of_points_is_refused(root, shape):
    (root / "data.yaml").write_text(f"names: [cat, dog]\nkpt_shape: {shape}\n")
    with pytest.raises(DataError, match=r"`kpt_shape` in .* must be \[number of points, 2 or 3\]"):
        read_yolo(root, "train")


@pytest.mark.parametrize("row", ["0 .5 .5 .2 .5 .9 .9 1", "0 .5 .5 .2 .5 .9 .9 1 .5 .5 2"])
def test_points_without_kpt_shape_are_recognised_by_their_visibility(root, row):
    (root / "labels/train/a.txt").write_text(f"{row}\n")
    (problem,) = (found for found in read_yolo(root, "train").problems if found.stops)
    assert problem.kind == "keypoint_rows"
    assert f"kpt_shape: [{len(row.split()) // 3 - 1}, 3]" in problem.message


def test_label_files_without_image_are_named(root):
    (root / "labels/train/zebra.txt").write_text("")
    (root / "labels/train/classes.txt").write_text("cat\ndog\n")
    found = [p for p in read_yolo(root, "train").problems if p.kind == "label_file_without_image"]
    assert [problem.path.name for problem in found] == ["zebra.txt"]
    # A list names a part of the images.
    (root / "list.txt").write_text("images/train/a.jpg\n")
    assert read_yolo(root, "list.txt").problems == ()


def test_the_tree_of_roboflow(tmp_path):
    _image(tmp_path / "train/images/a.jpg")
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    (record,) = read_yolo(tmp_path, "train").records
    np.testing.assert_array_equal(record.boxes, [[0, 0, 40, 20]])
    assert label_path(tmp_path / "images/a.jpg") == tmp_path / "labels/a.txt"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "Received 3 numbers after the class"),
        ("0 0.5 0.5 0.5 0.5 0.9", "Received 5 numbers after the class"),
        ("2 0.5 0.5 0.5 0.5", "must be a whole number below 2. Received 2"),
        ("-1 0.5 0.5 0.5 0.5", "Received -1"),
        ("cat 0.5 0.5 0.5 0.5", "must hold numbers alone. Received 'cat 0.5"),
        ("0 20 10 4 4", "in shares of the image's sides, 0..1"),
        ("0 0.9 0.5 0.5 0.5", "must lie in its image of 40x20"),
        ("0 0.5 0.5 0 0.5", "must have width and height above 0"),
        ("0 nan 0.5 0.5 0.5", "must have finite corners"),
        ("inf 0.5 0.5 0.5 0.5", "must be a whole number"),
    ],
)
def test_the_check_names_the_line(root, line, message):
    text = root / "labels/train/a.txt"
    text.write_text(f"1 0.5 0.5 0.25 0.5\n{line}\n")
    (problem,) = (found for found in check(read_yolo(root, "train")) if found.stops)
    assert (problem.path, problem.line) == (text, 2)
    assert message in problem.message


def test_damage_is_named_not_raised(root):
    (root / "images/train/a.jpg").write_bytes(b"no image")
    (root / "labels/train/sub").mkdir()
    (root / "labels/train/sub/b.txt").write_bytes(b"\xff\xfe\x00")
    found = {problem.path.name: problem.message for problem in check(read_yolo(root, "train"))}
    assert "must decode" in found["a.jpg"]
    assert "readable UTF-8" in found["b.txt"]


def test_refuses_what_is_no_set(root, tmp_path):
    with pytest.raises(DataError, match="must be a folder"):
        read_yolo(tmp_path / "none", "train")
    with pytest.raises(DataError, match=r"Received 'tarin'\. Nearest: 'train'"):
        read_yolo(root, "tarin")
    (root / "data.yaml").write_text("names: {0: cat, 2: dog}")
    with pytest.raises(DataError, match="must name every class once, from 0 on"):
        read_yolo(root, "train")
    (root / "data.yaml").write_text("names: [")
    with pytest.raises(DataError, match="must be YAML"):
        read_yolo(root, "train")
    (root / "data.yaml").unlink()
    with pytest.raises(DataError, match="must name its classes"):
        read_yolo(root, "train")
    (root / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="readable UTF-8"):
        read_yolo(root, "list.txt", labels=("cat",))
