import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check_two_splits import check_apart
from flyweight.data.records import ClassRecord, ClassSet

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def _set(*paths, labels=("cat", "dog")):
    records = tuple(ClassRecord(path, 0, Path("list.txt")) for path in paths)
    return ClassSet("x/train", labels, records, source=Path("train.txt"))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(NOISE).save(path)
    return path


def test_a_file_in_both_splits(image):
    found = check_apart(_set(image), _set(image))
    assert [str(problem) for problem in found] == [
        (
            f"{image}: an image must not be in both training and validation. Received it in "
            f"training as '{image}'. Take it out of one list."
        )
    ]
    assert (found[0].kind, found[0].stops) == ("shared_image", True)


def test_a_copy_under_another_name(tmp_path, image):
    copy = Path(shutil.copy(image, tmp_path / "copy.png"))
    (problem,) = check_apart(_set(image), _set(copy))
    assert (problem.path, problem.kind, problem.stops) == (copy, "copied_image", False)
    assert f"Received its content in training as '{image}'" in problem.message
    # A file of the same length with other content is none.
    data = bytearray(image.read_bytes())
    data[-20] ^= 1
    copy.write_bytes(data)
    assert check_apart(_set(image), _set(copy)) == ()


def test_a_copy_in_another_format_takes_decoding_to_find(tmp_path, image):
    copy, other = tmp_path / "copy.bmp", tmp_path / "other.png"
    Image.fromarray(NOISE).save(copy)
    Image.fromarray(NOISE.reshape(64, 48, 3)).save(other)
    assert check_apart(_set(image), _set(copy, other)) == ()
    (problem,) = check_apart(_set(image), _set(copy, other), decode=True)
    assert (problem.path, problem.kind) == (copy, "copied_image")


def test_missing_and_damaged_files_are_no_copies_of_each_other(tmp_path, image):
    gone = [tmp_path / name for name in ("a.png", "b.png")]
    image.write_bytes(b"no image")
    bad = Path(shutil.copy(image, tmp_path / "bad.png"))
    assert check_apart(_set(gone[0]), _set(gone[1]), decode=True) == ()
    assert len(check_apart(_set(image), _set(bad), decode=True)) == 1
    assert check_apart(_set(), _set(image)) == check_apart(_set(image), _set()) == ()


def test_made_images_are_not_compared(image):
    made = _set(None)
    assert check_apart(made, made) == check_apart(_set(image), made) == ()


def test_splits_must_have_the_same_classes(image):
    train = _set(image)
    (problem,) = check_apart(train, replace(train, records=(), labels=("dog", "cat")))
    assert "Received 2 (cat, dog) and 2 (dog, cat)." in str(problem)
    assert problem.kind == "different_classes"
