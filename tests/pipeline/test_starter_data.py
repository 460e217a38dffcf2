import numpy as np
import pytest
from PIL import Image

from flyweight.data.recognition.folder import read_folder
from flyweight.data.recognition.recognise import recognise
from flyweight.errors import DataError
from flyweight.pipeline.starter_data import open_first


def image(path, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = np.arange(32 * 32 * 3).reshape(32, 32, 3) % 255 if values is None else values
    Image.fromarray(
        np.resize(shown, (32, 32, 3) if values is None else (32, 32)).astype(np.uint8)
    ).save(path)


def opened(root, tmp_path):
    folder = read_folder(root)
    return open_first(folder, recognise(folder), tmp_path / "out" / "my.yaml")


def test_masks_of_0_and_255_get_classes(tmp_path):
    root = tmp_path / "set"
    for number in range(5):
        image(root / "images" / f"{number}.jpg")
        image(root / "masks" / f"{number}.png", [0, 255])
    made = opened(root, tmp_path)
    assert made.data["values"] == {0: 0, 255: 1}
    assert made.data["labels"] == ("background", "object")
    assert (len(made.train), len(made.val)) == (4, 1)
    assert made.data["train"] == str(tmp_path / "out" / "my_train.txt")
    assert {*made.texts} == {tmp_path / "out" / "my_train.txt", tmp_path / "out" / "my_val.txt"}
    assert not (tmp_path / "out").exists()  # Nothing is written yet.


def test_class_folders_with_one_split_become_lists(tmp_path):
    root = tmp_path / "set"
    for name in ("cat", "wild dog"):
        for number in range(5):
            image(root / "train" / name / f"{number}.jpg")
    made = opened(root, tmp_path)
    assert made.data["format"] == "class_list"
    assert made.data["labels"] == ("cat", "wild dog")
    assert (len(made.train), len(made.val)) == (8, 2)
    assert {record.label for record in made.val.records} == {0, 1}


def test_the_first_error_is_raised_if_no_layout_reads(tmp_path):
    root = tmp_path / "set"
    image(root / "images" / "a.jpg")
    (root / "train.json").write_text('{"images": [], "annotations": 1, "categories": []}')
    (root / "val.json").write_text("{}")
    with pytest.raises(DataError, match="annotations"):
        opened(root, tmp_path)
