from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check, check_both, require_sound
from flyweight.data.check_split import one_class, source_of, split_problems
from flyweight.data.layouts.digit_sets import make_digit_classes
from flyweight.data.layouts.digits import make_digits
from flyweight.data.layouts.map_sets import read_maps
from flyweight.data.records import ClassRecord, ClassSet
from flyweight.errors import DataError


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for value, path in enumerate(paths):
        Image.new("RGB", (32, 24), (value, 0, 0)).save(path)
    return paths


@pytest.fixture
def masks(tmp_path):
    """Return a maker of a segmentation split with the given label images of 4 x 4."""

    def make(*maps, labels=("sky", "road", "car"), values=None):
        for folder in ("images/train", "masks/train"):
            (tmp_path / folder).mkdir(parents=True)
        for number, pixels in enumerate(maps):
            Image.new("RGB", (4, 4)).save(tmp_path / f"images/train/{number}.png")
            pixels = np.resize(np.uint8(pixels), (4, 4))
            Image.fromarray(pixels).save(tmp_path / f"masks/train/{number}.png")
        return read_maps(tmp_path, "train", labels=labels, values=values)

    return make


def _kinds(found):
    return [problem.kind for problem in found]


def test_a_split_without_objects(tiny_set, images):
    empty = tiny_set(boxes=[[], []], paths=images)
    (problem,) = check(empty)
    assert (problem.kind, problem.stops) == ("no_objects", True)
    assert "Received no object in 2 images. For example, there is no 'made'." in problem.message
    hidden = tiny_set(paths=images, crowd={(0, 0)}, difficult={(1, 0), (1, 1)})
    (problem,) = check(hidden)
    assert "no object and 3 that are difficult or crowds in 2 images" in problem.message
    with pytest.raises(DataError, match="must have objects"):
        require_sound(empty)


def test_a_class_without_objects(tiny_set, images):
    found = check(tiny_set(labels=("cat", "dog", "cow"), paths=images))
    assert [(problem.kind, problem.stops) for problem in found] == [("unused_class", False)]
    assert "Received no object of 'cow' in 2 images." in found[0].message
    assert check(tiny_set(paths=images)) == ()
    (problem,) = check(tiny_set(paths=images, crowd={(1, 1)}))
    assert "'dog'" in problem.message


def test_made_sets_are_not_checked_as_a_whole():
    assert check(make_digits("val", 1)) == check(make_digit_classes("val", 1)) == ()


def test_a_class_without_images(images):
    records = tuple(ClassRecord(path, 1, Path("l.txt"), 1) for path in images)
    split = ClassSet("a/train", ("cat", "dog"), records, source=Path("l.txt"))
    (problem,) = check(split)
    assert (problem.kind, problem.path) == ("unused_class", Path("l.txt"))
    assert "Received no image of 'cat' in 2 images." in problem.message
    # For training, one class of several is too little; for evaluation it is unusual.
    (problem,) = one_class(split, [problem])
    assert (problem.kind, problem.stops) == ("one_class", True)
    assert "2 images with one of 2 classes alone" in problem.message
    first, second = check_both(split, replace(split, records=()))
    assert _kinds(first) == ["unused_class", "one_class"]
    assert "one_class" not in _kinds(second)
    assert list(one_class(split, [])) == []


@pytest.mark.parametrize("labels", [("nothing", "cell"), ("sky", "road", "car"), ("cell",)])
def test_masks_of_0_and_255(masks, labels):
    found = check(masks([0, 255], [0], [255], labels=labels))
    assert _kinds(found) == ["masks_of_0_and_255"] * 2
    assert [problem.path.name for problem in found] == ["0.png", "2.png"]
    assert "data.values={0: 0, 255: 1}" in found[0].message
    assert found[0].stops


def test_255_beside_classes_and_with_a_meaning_is_no_problem(masks, tmp_path):
    assert check(masks([0, 1, 255], [0, 1], [0, 255], labels=("sky", "road"))) == ()
    given = read_maps(tmp_path, "train", labels=("sky", "road"), values={0: 0, 1: 0, 255: 1})
    assert check(given) == ()
    ignored = read_maps(tmp_path, "train", labels=("a", "b"), values={0: 0, 1: 255, 255: 255})
    assert _kinds(check(ignored)) == ["unused_class"]
    nothing = read_maps(
        tmp_path, "train", labels=("a", "b"), values=dict.fromkeys((0, 1, 255), 255)
    )
    (problem,) = check(nothing)
    assert (problem.kind, problem.stops) == ("no_objects", True)


def test_a_class_without_pixels(masks):
    (problem,) = check(masks([0, 2], [0]))
    assert "Received no pixel of 'road' in 2 images." in problem.message


def test_masks_of_one_class(masks, tmp_path):
    split = masks([0], [0], labels=("nothing", "cell"))
    first, second = check_both(split, replace(split, records=()))
    assert _kinds(first) == ["unused_class", "one_class"]
    assert "one_class" not in _kinds(second)


def test_masks_of_two_encodings(masks):
    found = check(masks([0, 1], [0, 255], [0], labels=("nothing", "cell")))
    assert [(problem.kind, problem.path.name) for problem in found] == [("mixed_masks", "1.png")]
    assert not found[0].stops


def test_masks_of_255_alone_have_no_labelled_pixel(masks):
    assert _kinds(check(masks([255], labels=("nothing", "cell")))) == ["no_objects"]


def test_a_detector_learns_from_one_class(tiny_set, images):
    split = tiny_set(boxes=[[[1, 2, 11, 12]]] * 2, paths=images)
    assert list(one_class(split, check(split))) == []


def test_unreadable_labels_are_not_reported_twice(masks):
    split = masks([0, 1, 2])
    split.records[0].map_path.write_bytes(b"no image")
    assert _kinds(check(split)) == ["undecodable_labels"]
    assert list(split_problems(replace(split, records=()), ())) == []
    assert source_of(replace(split, source=None)) == Path(split.name)
