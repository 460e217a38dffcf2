import numpy as np

from flyweight.data.layouts.digit_sets import MAP_LABELS, make_digit_classes, make_digit_maps
from flyweight.data.layouts.digits import VISIBLE


def test_one_digit_and_its_class():
    made = make_digit_classes("train", 12, size=48)
    assert {record.label for record in made.records} <= set(range(10))
    assert len({record.label for record in made.records}) > 3
    for index, record in enumerate(made.records):
        glyphs = list(made.image.glyphs(index))
        assert [glyph.label for glyph in glyphs] == [record.label]
        assert made.image(index).shape == (48, 48, 3)


def test_the_ink_of_every_digit_has_its_class():
    made = make_digit_maps("val", 4, size=64)
    assert made.labels == MAP_LABELS
    for index in range(4):
        labels = made.label_map(index)
        assert np.array_equal(labels, made.label_map(index))
        last = list(made.image.glyphs(index))[-1]
        left, top, right, bottom = last.box
        part = labels[top:bottom, left:right]
        assert (part[last.ink > VISIBLE] == last.label + 1).all()
        assert (labels == 0).any()


def test_splits_show_different_pictures():
    images = [make_digit_maps(split, 1, size=64).image(0) for split in ("train", "val")]
    assert not np.array_equal(*images)
