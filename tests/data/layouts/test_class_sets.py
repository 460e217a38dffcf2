import pytest
from PIL import Image

from flyweight.config.data import DataConfig
from flyweight.data.check import check, check_apart
from flyweight.data.layouts.class_sets import read_class_folders, read_class_list
from flyweight.data.loading import open_set
from flyweight.errors import DataError


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "set"
    for name in ("train/cat/1.png", "train/cat/more/2.png", "train/dog/3.png", "val/dog/4.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    return root


def test_a_folder_per_class(folders):
    found = read_class_folders(folders, "train")
    assert (found.name, found.labels) == ("set/train", ("cat", "dog"))
    assert [(r.path.name, r.label) for r in found.records] == [
        ("1.png", 0),
        ("2.png", 0),
        ("3.png", 1),
    ]
    assert check(found) == ()


def test_validation_is_numbered_as_training(folders):
    config = DataConfig(format="imagefolder", root=str(folders))
    val = open_set(config, "val")
    assert [record.label for record in val.records] == [1]
    (problem,) = check(val)
    assert problem.path == folders / "val/cat"
    assert "a class folder must hold images" in problem.message


def test_a_folder_of_no_known_class(folders):
    found = read_class_folders(folders, "train", labels=("cats", "dog"))
    assert [problem.path.name for problem in found.problems] == ["cat", "cats"]
    assert "Nearest: 'cats'" in found.problems[0].message


def test_no_split_and_no_classes(folders):
    with pytest.raises(DataError, match=r"Received 'vall'. Nearest: 'val'"):
        read_class_folders(folders, "vall")
    with pytest.raises(DataError, match="a folder for every class"):
        read_class_folders(folders, "train/dog")
    with pytest.raises(DataError, match="must be a folder"):
        read_class_folders(folders / "none", "train")


def test_a_list_of_indices_and_names(folders):
    (folders / "labels.txt").write_text("cat\ndog\n")
    lines = [
        "train/cat/1.png 0",
        "",
        "train/dog/3.png\tdog",
        "train/a b.png 7",
        "alone",
        "x.png kat",
    ]
    (folders / "train_list.txt").write_text("\n".join(lines))
    found = read_class_list(folders, "train")
    assert [(record.label, record.line) for record in found.records] == [(0, 1), (1, 3)]
    assert [problem.line for problem in found.problems] == [4, 5, 6]
    said = [problem.message for problem in found.problems]
    assert "within 0..1. Received 7" in said[0]
    assert "'image class'" in said[1]
    assert "Nearest: 'cat'" in said[2]


def test_bad_pictures_and_pictures_in_both_splits(folders):
    (folders / "labels.txt").write_text("cat\ndog\n")
    (folders / "train/cat/1.png").write_bytes(b"no image")
    for name in ("train", "val"):
        (folders / f"{name}.txt").write_text("train/cat/1.png 0\ntrain/dog/3.png 1\ngone.png 1\n")
    train, val = (read_class_list(folders, name) for name in ("train", "val"))
    said = [problem.message for problem in check(train)]
    assert len(said) == 2
    assert "must decode" in said[0]
    assert "must exist" in said[1]
    assert len(check_apart(train, val)) == 3


@pytest.mark.data
def test_real_clothes(data_root):
    config = DataConfig(format="imagefolder", root=str(data_root / "cls_clothing10"))
    train, val = open_set(config, "train"), open_set(config, "val")
    assert (len(train), len(val), len(train.labels)) == (1147, 341, 10)
    assert check(train) == check(val) == check_apart(train, val) == ()


@pytest.mark.data
def test_a_real_list(data_root):
    root = data_root / "cls_imagenet_sample1000"
    labels = tuple(str(index) for index in range(1000))
    found = read_class_list(root, "val_list.txt", labels=labels)
    assert [record.label for record in found.records] == list(range(1000))
    assert found.problems == ()
