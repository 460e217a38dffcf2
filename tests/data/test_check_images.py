from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check_images import inspect_image
from flyweight.data.images import read_image
from flyweight.data.records import ClassRecord
from flyweight.errors import DataError


def _record(path, height=0, width=0):
    return ClassRecord(path, 0, Path("list.txt"), 1, height, width)


@pytest.mark.parametrize("values", [np.float32, np.int32])
def test_what_the_loader_refuses_is_found_in_the_header(tmp_path, values):
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((30, 40), values)).save(path)
    with pytest.raises(DataError):
        read_image(path)
    found = inspect_image(_record(path), decode=False)
    (problem,) = found.problems
    assert (found.size, problem.kind) == ((30, 40), "unsupported_pixels")
    assert "must have 8 or 16 bits" in problem.message


@pytest.mark.parametrize("values", [np.uint8, np.uint16, np.bool_])
def test_what_the_loader_reads_is_no_problem(tmp_path, values):
    for name in ("a.tif", "a.png"):
        Image.fromarray(np.ones((30, 40), values)).save(tmp_path / name)
        assert read_image(tmp_path / name).shape == (3, 30, 40)
        assert inspect_image(_record(tmp_path / name), decode=False).problems == ()


def test_exchanged_sides_are_not_explained_by_exif_that_is_not_there(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    (plain,) = inspect_image(_record(tmp_path / "plain.jpg", 40, 30), decode=False).problems
    (turned,) = inspect_image(_record(tmp_path / "turned.jpg", 30, 40), decode=False).problems
    assert plain.kind == turned.kind == "exchanged_sides"
    assert "EXIF" not in plain.message
    assert "(the sides are exchanged)" in plain.message
    assert "its EXIF tag turns it" in turned.message
    (other,) = inspect_image(_record(tmp_path / "plain.jpg", 41, 30), decode=False).problems
    assert other.kind == "image_size"


def test_a_made_image_is_not_opened():
    assert inspect_image(_record(None, 5, 6), decode=True).size == (5, 6)
