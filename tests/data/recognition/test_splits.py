import pytest

from flyweight.data.recognition.splits import chosen, split_of, unused


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/a.jpg", "train"),
        ("Training Set/a.jpg", "train"),
        ("valid/labels/a.jpg", "val"),
        ("annotations/instances_val2017.json", "val"),
        ("trainval.txt", "trainval"),
        ("train/images/test_3.jpg", "test"),
        ("images/latest.jpg", None),
        ("a.jpg", None),
    ],
)
def test_split_of(path, split):
    assert split_of(path) == split


@pytest.mark.parametrize(
    ("found", "train", "val", "words"),
    [
        ("train val test", "train", "val", ""),
        ("train test", "train", "test", "no validation split"),
        ("trainval test", "trainval", "test", "no validation split"),
        ("trainval val", "trainval", None, ""),
        ("train", "train", None, ""),
        ("val", "val", None, "no training split"),
    ],
)
def test_chosen(found, train, val, words):
    first, second, notes = chosen({name: name for name in found.split()})
    assert (first, second) == (train, val)
    assert words in " ".join(notes)
    assert bool(words) == bool(notes)


def test_nothing_to_choose():
    assert chosen({}) is None
    assert chosen({"all": 1}) is None


def test_unused():
    assert unused(["train", "val", "test", "trainval"], ["train", "val"]) == ("test",)
    assert unused(["trainval", "val", "test"], ["trainval", "test"]) == ("val",)
