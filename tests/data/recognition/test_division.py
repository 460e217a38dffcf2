import json

import pytest

from flyweight.config.data import DataConfig
from flyweight.data.loading import open_set
from flyweight.data.recognition.division import divide, divided_split, listed_splits
from flyweight.data.recognition.folder import read_folder
from flyweight.data.recognition.found import Found
from flyweight.errors import DataError


def test_every_class_is_in_both_parts():
    entries = [f"{name}{number}" for name in "abc" for number in range(3)]
    train, val = divide(entries, [entry[0] for entry in entries])
    assert sorted(train + val) == entries
    assert {entry[0] for entry in train} == {entry[0] for entry in val} == {*"abc"}
    assert divide(entries, [entry[0] for entry in entries]) == (train, val)


def test_classes_of_one_image_are_divided_as_one():
    entries = [f"{number}.jpg" for number in range(100)]
    assert [len(part) for part in divide(entries, entries)] == [80, 20]


def test_two_images_are_enough_and_one_is_not():
    assert [len(part) for part in divide(["a", "b"], ["x", "y"])] == [1, 1]
    with pytest.raises(DataError, match="at least two images"):
        divide(["a"])


def test_listed_splits_are_kept():
    texts, notes = listed_splits(Found({"format": "voc"}, {"train": ("a b",), "val": ("c d",)}))
    assert texts == {"train.txt": "a b\n", "val.txt": "c d\n"}
    assert notes == ()
    texts, notes = listed_splits(Found({"format": "masks"}, {"all": ("a b", "c d")}))
    assert sorted(texts["train.txt"] + texts["val.txt"]) == sorted("a b\nc d\n")
    assert "one image in 5" in notes[0]


def test_a_single_coco_file_is_divided(plant):
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(10)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, 4, 4]}
            for number in range(10)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    root = plant({"all.json": json.dumps(content)})
    settings = {"format": "coco", "train": "all.json"}
    images = open_set(DataConfig(**settings, root=str(root)), "train")
    texts, _ = divided_split(Found(settings), images, read_folder(root))
    train, val = (json.loads(texts[f"{split}.json"]) for split in ("train", "val"))
    assert (len(train["images"]), len(val["images"])) == (8, 2)
    assert {a["image_id"] for a in val["annotations"]} == {i["id"] for i in val["images"]}
    assert train["categories"] == content["categories"]


def test_wider_must_have_its_splits(plant):
    found = Found({"format": "wider", "train": "train"})
    with pytest.raises(DataError, match="must have a validation split"):
        divided_split(found, None, read_folder(plant({"a.jpg": None})))
