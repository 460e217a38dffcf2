import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from flyweight.config.data import DataConfig
from flyweight.data.layouts.digit_sets import make_digit_classes
from flyweight.data.layouts.map_sets import read_maps
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.errors import FileError
from flyweight.pipeline.workspace import NOTE, data_digest, do_stage, file_digest, forget_stage


class Work:
    """Counts its attempts; fails while told to."""

    def __init__(self, folder):
        self.folder = folder
        self.attempts = []
        self.fails = False
        self.said = []

    def __call__(self, resumes):
        self.attempts.append(resumes)
        (self.folder / "half").write_text("")
        if self.fails:
            raise FileError("cut off")
        (self.folder / "made").write_text("whole")

    def do(self, made_from):
        do_stage(self.folder, made_from, self, ["made"], say=self.said.append)


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "dense")


def test_done_once(work):
    work.do({"a": 1})
    work.do({"a": 1})
    assert work.attempts == [False]
    assert work.said == ["dense:", "dense: 0 s", "dense: done before"]


def test_done_again_from_the_start_when_it_depends_on_something_new(work):
    work.do({"a": 1})
    work.do({"a": 2})
    assert work.attempts == [False, False]


def test_goes_on_where_it_was_cut_off(work):
    work.fails = True
    with pytest.raises(FileError):
        work.do({"a": 1})
    work.fails = False
    work.do({"a": 1})
    work.do({"a": 1})
    assert work.attempts == [False, True]
    assert "dense: goes on where it was cut off" in work.said


def test_does_not_go_on_with_something_else(work):
    work.fails = True
    with pytest.raises(FileError):
        work.do({"a": 1})
    work.fails = False
    work.do({"a": 2})
    assert work.attempts == [False, False]


def test_done_again_when_its_files_are_gone(work):
    work.do({"a": 1})
    (work.folder / "made").unlink()
    work.do({"a": 1})
    assert work.attempts == [False, False]


def test_done_again_when_forgotten(work):
    work.do({"a": 1})
    forget_stage(work.folder)
    assert (work.folder / "made").read_text() == "whole"
    work.do({"a": 1})
    assert work.attempts == [False, False]


def test_a_note_that_cannot_be_read(work):
    work.do({"a": 1})
    (work.folder / NOTE).write_text("{")
    work.do({"a": 1})
    assert work.attempts == [False, False]
    assert json.loads((work.folder / NOTE).read_text())["finished"] is True


def test_keeps_out_of_folders_of_others(work):
    work.folder.mkdir()
    (work.folder / "thesis.tex").write_text("years")
    with pytest.raises(FileError, match=r"must be its own"):
        work.do({"a": 1})
    forget_stage(work.folder)
    assert [path.name for path in work.folder.iterdir()] == ["thesis.tex"]
    assert work.attempts == []


def test_file_digest(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    a, b, c = (file_digest(tmp_path / name) for name in "abc")
    assert a == b != c
    with pytest.raises(FileError, match="must be readable"):
        file_digest(tmp_path / "none")


def test_data_digest_sees_boxes_labels_and_pictures(tmp_path):
    digits = DataConfig(format="digits", size=64, train_count=3, val_count=2)
    sets = [open_set(digits, split) for split in ("train", "val")]
    assert data_digest(sets[0]) == data_digest(open_set(digits, "train"))
    assert data_digest(sets[0]) != data_digest(sets[1])

    write_voc(sets[0], tmp_path)
    voc = DataConfig(format="voc", root=str(tmp_path), train="train")
    before = data_digest(open_set(voc, "train"))
    assert before == data_digest(open_set(voc, "train"))
    image = next((tmp_path / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    changed = data_digest(open_set(voc, "train"))
    assert changed != before
    box_set = open_set(voc, "train")
    box_set.records[0].boxes[0] += np.float32(1)
    assert data_digest(box_set) != changed


def test_data_digest_sees_classes_and_maps(tmp_path):
    classes = [make_digit_classes("train", 4, size=40, seed=seed) for seed in (0, 0, 1)]
    assert data_digest(classes[0]) == data_digest(classes[1]) != data_digest(classes[2])
    for name in ("images/train/a.png", "masks/train/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    read = partial(read_maps, tmp_path, "train", labels=("x", "y"))
    before = data_digest(read())
    assert before == data_digest(read()) != data_digest(read(values={0: 1}))
    Image.new("L", (4, 4), 1).save(tmp_path / "masks/train/a.png", compress_level=0)
    assert data_digest(read()) != before
