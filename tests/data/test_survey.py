import pytest

from flyweight.data.records import BoxSet, ClassRecord, ClassSet
from flyweight.data.survey import Survey, survey
from flyweight.errors import DataError


def test_boxes_are_counted_and_measured(tiny_set):
    found = survey(tiny_set())
    assert (found.images, found.counts) == (2, {"cat": 2, "dog": 1})
    assert found.sizes == ((24, 32), (24, 32))
    # Boxes of 10 x 10, 27 x 16 and 15 x 8 in 32 x 24: the median of the roots of areas.
    assert found.object_share == pytest.approx((120 / 768) ** 0.5)


def test_classes_without_boxes(tiny_set):
    pictures = tiny_set()
    records = [
        ClassRecord(None, label, pictures.records[0].annotation, height=24, width=32)
        for label in (0, 0)
    ]
    found = survey(ClassSet("s", ("a", "b"), tuple(records), lambda index: pictures.image(0)))
    assert (found.counts, found.object_share) == ({"a": 2, "b": 0}, None)


def test_shapes():
    sizes = tuple((100, width) for width in (100, 150, 200))
    assert not Survey(3, (), {}, sizes, None).one_shape
    assert Survey(3, (), {}, ((100, 100), (200, 210)), None).one_shape
    assert Survey(3, (), {}, sizes, None).median_size == (100, 150)


def test_nothing_can_be_read(tiny_set, tmp_path):
    with pytest.raises(DataError, match="none can be read"):
        survey(tiny_set(paths=[tmp_path / "a.png", tmp_path / "b.png"]))
    assert isinstance(tiny_set(), BoxSet)
