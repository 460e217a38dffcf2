import pickle

import numpy as np
import pytest

from flyweight.data.check import check
from flyweight.data.layouts.digits import make_digits
from flyweight.errors import ConfigError


def test_a_picture_depends_on_seed_split_and_index_only():
    some = make_digits("train", 6)
    again = make_digits("train", 3)
    for index in (2, 0, 2):
        np.testing.assert_array_equal(some.image(index), again.image(index))
        np.testing.assert_array_equal(some.records[index].boxes, again.records[index].boxes)
    for other in (make_digits("train", 3, seed=1), make_digits("val", 3)):
        assert not np.array_equal(some.image(0), other.image(0))


def test_splits_show_different_scans():
    train, val = make_digits("train", 0).image, make_digits("val", 0).image
    train_scans = {scan.tobytes() for scan in train.scans}
    val_scans = {scan.tobytes() for scan in val.scans}
    assert len(train.scans) + len(val.scans) == 1797
    assert not train_scans & val_scans
    assert set(train.digits) == set(val.digits) == set(range(10))


@pytest.mark.parametrize("size", [32, 97, 160])
def test_pictures_and_boxes_are_sound(size):
    box_set = make_digits("train", 60, size=size)
    assert check(box_set) == ()
    counts = [len(record.boxes) for record in box_set.records]
    assert min(counts) >= 1
    assert max(counts) <= 14
    image = box_set.image(0)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    for record in box_set.records:
        assert record.boxes.min() >= 0
        assert record.boxes.max() <= size


def test_all_digits_and_counts_occur():
    records = make_digits("train", 300).records
    assert set(np.concatenate([record.labels for record in records])) == set(range(10))
    assert {len(record.boxes) for record in records} == set(range(3, 15))


def test_digits_hardly_overlap():
    for record in make_digits("train", 100).records:
        for i, first in enumerate(record.boxes):
            for second in record.boxes[:i]:
                sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
                common = max(sides[0], 0) * max(sides[1], 0)
                areas = [np.prod(box[2:] - box[:2]) for box in (first, second)]
                assert common <= 0.05 * min(areas) + 1e-6


def test_a_box_frames_its_ink():
    """The ink reaches all four sides of its box, and is strong enough to be seen there."""
    painter = make_digits("val", 0).image
    for index in range(30):
        for glyph in painter.glyphs(index):
            left, top, right, bottom = glyph.box
            assert glyph.ink.shape == (bottom - top, right - left)
            edges = (glyph.ink[0], glyph.ink[-1], glyph.ink[:, 0], glyph.ink[:, -1])
            assert min(float(edge.max()) for edge in edges) > 0.3


def test_a_digit_differs_from_what_it_covers():
    box_set = make_digits("train", 20)
    for index, record in enumerate(box_set.records):
        grey = box_set.image(index).astype(float).mean(axis=2)
        for left, top, right, bottom in record.boxes.astype(int):
            assert np.ptp(grey[top:bottom, left:right]) > 50


def test_the_painter_travels_to_other_processes():
    box_set = pickle.loads(pickle.dumps(make_digits("val", 2)))
    np.testing.assert_array_equal(box_set.image(1), make_digits("val", 2).image(1))


@pytest.mark.parametrize("wrong", [{"size": 31}, {"seed": -1}, {"count": -1}])
def test_refuses(wrong):
    with pytest.raises(ConfigError, match="Digits must have size >= 32, seed >= 0"):
        make_digits("train", **{"count": 1, **wrong})
