import numpy as np
import pytest
from PIL import Image

from flyweight.data.layouts.digit_sets import make_digit_maps
from flyweight.data.layouts.map_files import class_map, map_of, read_map
from flyweight.data.records import MapRecord, MapSet
from flyweight.errors import DataError

VALUES = np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.png"


def test_greyscale_palette_and_grey_colours_are_the_same(path):
    for mode in ("L", "P", "RGB"):
        image = Image.fromarray(VALUES)
        if mode == "P":
            image.putpalette([255 - value for value in range(256) for _ in range(3)])
        if mode == "RGB":
            image = image.convert("RGB")
        assert image.mode == mode
        image.save(path)
        assert np.array_equal(read_map(path), VALUES)


def test_one_bit_and_sixteen(path):
    Image.fromarray(VALUES > 1).save(path)
    assert np.array_equal(read_map(path), VALUES > 1)
    Image.fromarray(VALUES.astype(np.uint16) * 200).save(path)
    assert np.array_equal(read_map(path), VALUES.astype(int) * 200)


def test_what_is_no_map(path):
    with pytest.raises(DataError, match="must be a readable file"):
        read_map(path)
    path.write_bytes(b"\x89PNG....")
    with pytest.raises(DataError, match="must decode"):
        read_map(path)
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    with pytest.raises(DataError, match=r"with colours \(mode RGB\)"):
        read_map(path)


def test_values_are_classes_or_stand_for_them():
    values = VALUES.astype(np.int64)
    assert np.array_equal(class_map(values, 4, None), VALUES)
    with pytest.raises(DataError, match=r"within 0\.\.1, or 255 where none counts\. Received 2, 3"):
        class_map(values, 2, None)
    table = {0: 0, 1: 255, 2: 1, 3: 1, 255: 2}
    assert class_map(values, 3, table).tolist() == [[0, 255, 1], [1, 2, 0]]
    del table[255]
    with pytest.raises(DataError, match=r"one of 0, 1, 2, 3\. Received 255"):
        class_map(values, 3, table)


def test_maps_of_a_set(path):
    made = make_digit_maps("val", 2, size=40)
    assert map_of(made, 1).shape == (40, 40)
    Image.fromarray(VALUES).save(path)
    found = MapSet("a", ("x", "y"), (MapRecord(None, path, path), MapRecord(None, None, path)))
    with pytest.raises(DataError, match=r"In '.*a\.png' a label must be within 0\.\.1"):
        map_of(found, 0)
    with pytest.raises(DataError, match="must have a file or a maker"):
        map_of(found, 1)
