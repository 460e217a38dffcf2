import pytest

from flyweight.data.layouts.split_names import usual_splits


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("layout", "names", "splits"),
    [
        ("voc", ["train", "val", "trainval", "test", "cat_train"], ("train", "val", "test")),
        ("voc", ["trainval", "test"], ("trainval", "test")),
        ("voc", ["val"], ("val",)),
        ("voc", [], ("train", "val")),
        ("wider", ["train", "test"], ("train", "test")),
        ("wider", [], ("train", "val")),
    ],
)
def test_lists_and_texts(tmp_path, layout, names, splits):
    place = {
        "voc": "ImageSets/Main/{0}.txt",
        "wider": "wider_face_split/wider_face_{0}_bbx_gt.txt",
    }[layout]
    _touch(tmp_path, *(place.format(name) for name in names))
    assert usual_splits(tmp_path, layout) == splits


def test_annotation_files(tmp_path):
    missing = ("annotations/instances_train.json", "annotations/instances_val.json")
    assert usual_splits(tmp_path, "coco") == missing
    names = ("instances_val2017.json", "instances_test.json", "instances_train2017.json", "b.json")
    _touch(tmp_path, *(f"annotations/{name}" for name in names))
    found = [name.removeprefix("annotations/instances_") for name in usual_splits(tmp_path, "coco")]
    assert found == ["train2017.json", "val2017.json", "test.json"]


def test_folders_and_cards(tmp_path):
    _touch(tmp_path, "images/train/a.jpg", "images/extra/a.jpg", "test/images/a.jpg")
    assert usual_splits(tmp_path, "yolo") == ("train", "test")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/extra\ntest:\n")
    assert usual_splits(tmp_path, "yolo") == ("train", "val", "test")
