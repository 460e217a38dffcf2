from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check, require_sound
from flyweight.data.check_maps import CheckedMap, inspect_maps
from flyweight.data.layouts.digit_sets import make_digit_maps
from flyweight.data.records import MapRecord, MapSet
from flyweight.errors import DataError


@pytest.fixture
def made(tmp_path):
    """Return a maker of sets of one image of 8 x 6 with the given labels."""

    def make(values, *, shape=(6, 8), table=None):
        Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
        labels = np.full(shape, values, dtype=np.uint8)
        Image.fromarray(labels).save(tmp_path / "a.png")
        record = MapRecord(tmp_path / "a.jpg", tmp_path / "a.png", tmp_path)
        return MapSet("set", ("x", "y"), (record,), values=table)

    return make


def _of_files(images):
    """Problems of single images, without those of the whole split."""
    whole = ("no_objects", "unused_class", "masks_of_0_and_255")
    return [problem for problem in check(images) if problem.kind not in whole]


def test_sound(made):
    assert _of_files(made(1)) == _of_files(made(255)) == []
    assert _of_files(made(200, table={200: 1})) == []
    assert check(make_digit_maps("val", 2, size=40)) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"values": 2}, "a label must be within 0..1, or 255 where none counts. Received 2."),
        ({"values": 1, "table": {0: 0}}, "a label must be one of 0. Received 1."),
        (
            {"values": 1, "shape": (8, 6)},
            "Received width 6, height 8 for 'a.jpg' of width 8, height 6",
        ),
    ],
)
def test_each_problem_is_named(made, given, said):
    (problem,) = _of_files(made(**given))
    assert said in problem.message
    assert problem.path.name == "a.png"


def test_a_picture_that_is_bad_is_not_compared(made):
    images = made(1, shape=(3, 3))
    assert list(inspect_maps(images, [None])) == [CheckedMap((), frozenset([1]))]
    Path(images.records[0].path).write_bytes(b"no image")
    (problem,) = _of_files(images)
    assert problem.path.name == "a.jpg"


def test_labels_that_are_gone_or_broken(made):
    images = made(1)
    path = images.records[0].map_path
    path.write_bytes(path.read_bytes()[:30])
    (problem,) = _of_files(images)
    assert "must decode" in problem.message
    path.unlink()
    with pytest.raises(DataError, match=r"Every image and label image.*names must exist"):
        require_sound(images)
