import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check, check_apart
from flyweight.data.layouts.map_files import map_of
from flyweight.data.layouts.map_sets import (
    CITYSCAPES,
    cityscapes_values,
    read_cityscapes,
    read_maps,
)
from flyweight.errors import DataError


def save(path, values=None, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        Image.new("RGB", size).save(path)
    else:
        Image.fromarray(np.full(size[::-1], values, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "labels.txt").write_text("sky\nroad\n")
    for name in ("a", "deep/b"):
        save(tmp_path / f"images/train/{name}.jpg")
        save(tmp_path / f"masks/train/{name}.png", 1)
    return tmp_path


def names_of(found):
    return [(record.path.name, record.map_path.name) for record in found.records]


PAIRS = [("a.jpg", "a.png"), ("b.jpg", "b.png")]


def test_folders_of_the_same_names(root):
    found = read_maps(root, "train")
    assert names_of(found) == PAIRS
    assert found.labels == ("sky", "road")
    assert not any(problem.stops for problem in check(found))


def test_folders_the_other_way_round(root):
    (root / "val").mkdir()
    (root / "images/train").rename(root / "val/images")
    (root / "masks/train").rename(root / "val/masks")
    assert names_of(read_maps(root, "val")) == PAIRS


def test_pictures_and_labels_without_partner(root):
    save(root / "images/train/c.jpg")
    save(root / "masks/train/d.png", 0)
    problems = read_maps(root, "train").problems
    assert [problem.path.name for problem in problems] == ["c.jpg", "d.png"]
    assert "masks/train/c.png" in problems[0].message
    assert "must belong to an image" in problems[1].message


def test_a_list(root):
    lines = ["images/train/a.jpg masks/train/a.png", "", "one", "images/x.jpg masks/x.png"]
    (root / "val_list.txt").write_text("\n".join(lines))
    found = read_maps(root, "val")
    assert [record.line for record in found.records] == [1, 4]
    assert [problem.line for problem in found.problems] == [3]
    said = [str(problem) for problem in check(found)]
    assert len(said) == 4  # And a class that does not occur.
    assert any("masks/x.png: labels that 'val_list.txt' names must exist" in line for line in said)
    assert len(check_apart(found, found)) == 2


def test_no_such_split(root):
    with pytest.raises(DataError, match=r"folders 'images/test' and 'masks/test'.*Lists there"):
        read_maps(root, "test")
    (root / "labels.txt").unlink()
    with pytest.raises(DataError, match="must name its classes"):
        read_maps(root, "train")


def test_the_train_ids_of_cityscapes():
    # The rows of cityscapesscripts/helpers/labels.py: id and trainId, 255 where ignored.
    wanted = dict.fromkeys([*range(34), 255], 255)
    wanted |= {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
    wanted |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert cityscapes_values() == wanted
    assert len(CITYSCAPES) == 19


def test_the_layout_of_cityscapes(tmp_path):
    for city, number in (("aachen", 0), ("bochum", 1)):
        save(tmp_path / f"leftImg8bit/train/{city}/{city}_{number}_leftImg8bit.png")
        save(tmp_path / f"gtFine/train/{city}/{city}_{number}_gtFine_labelIds.png", 26)
        save(tmp_path / f"gtFine/train/{city}/{city}_{number}_gtFine_color.png", 1)
    found = read_cityscapes(tmp_path, "train")
    assert names_of(found)[1] == (
        "bochum_1_leftImg8bit.png",
        "bochum_1_gtFine_labelIds.png",
    )
    assert set(map_of(found, 0).ravel()) == {13}
    assert found.labels[13] == "car"
    assert {problem.kind for problem in check(found)} == {"unused_class"}
    (tmp_path / "gtFine/train/aachen/aachen_0_gtFine_labelIds.png").unlink()
    assert "must have labels" in read_cityscapes(tmp_path, "train").problems[0].message
    with pytest.raises(DataError, match="The split 'val' of Cityscapes must be a folder"):
        read_cityscapes(tmp_path, "val")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [("seg_camvid11", (367, 101), 11), ("seg_nuclei_dsb2018", (408, 50), 2)],
)
def test_real_sets(data_root, name, counts, classes):
    train, val = (read_maps(data_root / name, f"{split}.txt") for split in ("train", "val"))
    assert (len(train), len(val)) == counts
    assert len(train.labels) == classes
    assert check(val) == check_apart(train, val) == ()


@pytest.mark.data
def test_a_real_set_by_its_folders(data_root):
    listed = read_maps(data_root / "seg_camvid11", "val.txt")
    found = read_maps(data_root / "seg_camvid11", "val")
    assert {record.map_path for record in found.records} == {r.map_path for r in listed.records}
    assert found.problems == ()


def test_classes_that_eight_bits_cannot_hold_are_refused(root):
    names = [f"class {index}" for index in range(256)]
    assert len(read_maps(root, "train", labels=names[:255]).labels) == 255
    with pytest.raises(DataError, match=r"at most 255 classes, .* Received 256\."):
        read_maps(root, "train", labels=names)


@pytest.mark.parametrize("index", [2, -1, 256])
def test_values_must_stand_for_a_class(root, index):
    with pytest.raises(DataError, match=rf"classes, 0\.\.1, or 255 .* Received 7: {index}\."):
        read_maps(root, "train", labels=("a", "b"), values={0: 0, 7: index, 9: 255})
