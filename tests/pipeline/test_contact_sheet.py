from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check
from flyweight.data.layouts.digit_sets import make_digit_classes, make_digit_maps
from flyweight.data.layouts.digits import make_digits
from flyweight.data.layouts.outlines import read_outline
from flyweight.data.layouts.voc import read_voc
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.records import BoxRecord, BoxSet, as_boxes
from flyweight.pipeline.contact_sheet import IMAGES, write_contact_sheet


def _reds(path):
    with Image.open(path) as sheet:
        return int((np.asarray(sheet) == (200, 0, 30)).all(axis=-1).sum())


@pytest.mark.parametrize("make", [make_digits, make_digit_classes, make_digit_maps])
def test_every_kind_of_set_is_drawn(tmp_path, make):
    splits = {"train": make("train", IMAGES + 2), "val": make("val", 1)}
    path = write_contact_sheet(splits, (), tmp_path / "out/sheet.png")
    assert path == tmp_path / "out/sheet.png"
    with Image.open(path) as sheet:
        # Three rows of six images and one row of one, of 300 pixels and a name.
        assert 6 * 300 < sheet.width < 6 * 320
        assert 4 * 300 < sheet.height < 4 * 340
        assert len(sheet.getcolors(1 << 24)) > 100
    assert _reds(path) == 0


def test_images_with_problems_come_first_in_a_frame(tmp_path):
    write_voc(make_digits("train", 30), tmp_path)
    path = sorted(tmp_path.glob("Annotations/*.xml"))[-1]
    path.write_text(path.read_text().replace("<name>", "<name>un", 1))
    images = read_voc(tmp_path, "train")
    problems = check(images)
    assert [problem.path for problem in problems if problem.stops] == [path]
    sheet = write_contact_sheet({"train": images}, problems, tmp_path / "sheet.png")
    assert _reds(sheet) > 300


def test_bad_boxes_and_masks_do_not_stop_the_drawing(tmp_path):
    rows = [(1, 1, 20, 20), (9, 9, 2, 2), (float("nan"), 1, 2, 3), (90, 90, 99, 99), (5, 5, 900, 9)]
    outline = read_outline([[1, 1, 20, 1, 20, 20]])
    record = BoxRecord(
        path=None,
        height=24,
        width=32,
        boxes=as_boxes(rows),
        labels=np.zeros(len(rows), dtype=np.int64),
        difficult=np.zeros(len(rows), dtype=bool),
        crowd=np.zeros(len(rows), dtype=bool),
        lines=tuple(range(len(rows))),
        annotation=Path("made"),
        outlines=(outline,) * len(rows),
    )
    images = BoxSet("a", ("cat",), (record,), lambda _: np.zeros((24, 32, 3), np.uint8))
    assert write_contact_sheet({"train": images}, (), tmp_path / "sheet.png").is_file()


def test_nothing_is_written_where_nothing_can_be_drawn(tmp_path):
    missing = replace(make_digits("val", 1).records[0], path=tmp_path / "gone.png")
    images = BoxSet("a", tuple("0123456789"), (missing,))
    assert write_contact_sheet({"train": images}, (), tmp_path / "sheet.png") is None
    assert list(tmp_path.iterdir()) == []
