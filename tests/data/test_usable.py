from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.check import check
from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.coco_write import write_coco
from flyweight.data.records import Problem
from flyweight.data.usable import leave_out_bad, notes_on
from flyweight.errors import DataError

GOOD = [1.0, 2, 11, 12]


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for value, path in enumerate(paths):
        Image.new("RGB", (32, 24), (value, 0, 0)).save(path)
    return paths


def test_bad_boxes_go_alone_and_bad_pictures_whole(tmp_path, tiny_set, images):
    boxes = [[GOOD, [5, 6, 5, 14], GOOD], [GOOD], [[3, 4, 300, 20]]]
    images[1].write_bytes(b"no image")
    bad = tiny_set(boxes=boxes, paths=images)
    good, _ = leave_out_bad(bad, list_to=tmp_path / "problems.txt")
    assert [record.path.stem for record in good.records] == ["a", "c"]
    # Of two equal boxes the first stays.
    np.testing.assert_array_equal(good.records[0].boxes, [GOOD])
    assert good.records[0].lines == (1,)
    assert good.records[0].labels.tolist() == [0]
    assert good.records[1].boxes.shape == (0, 4)
    assert len([problem for problem in good.problems if problem.stops]) == 4
    assert len((tmp_path / "problems.txt").read_text().splitlines()) == 4
    left = check(type(good)(good.name, good.labels, good.records))
    assert {problem.kind for problem in left} == {"unused_class"}
    assert notes_on(good)[0].startswith("left out of tiny/train: 4 problems, first: ")


def test_a_sound_set_stays_itself(tmp_path, tiny_set, images):
    sound = tiny_set(labels=("cat",), boxes=[[GOOD]] * 3, paths=images)
    good, none = leave_out_bad(sound, list_to=tmp_path / "problems.txt")
    assert none is None
    assert good.records == sound.records
    assert notes_on(good) == ()
    assert not (tmp_path / "problems.txt").exists()


def test_a_picture_in_both_splits_stays_in_training(tiny_set, images):
    train = tiny_set(boxes=[[GOOD]] * 2, paths=images[:2])
    val = tiny_set(boxes=[[GOOD]] * 2, paths=images[1:])
    kept, kept_val = leave_out_bad(train, val)
    assert len(kept) == 2
    assert [record.path.stem for record in kept_val.records] == ["c"]


def test_a_picture_listed_twice_stays_once(tiny_set, images):
    twice = tiny_set(boxes=[[GOOD]] * 2, paths=[images[0]] * 2)
    good, _ = leave_out_bad(twice)
    assert len(good) == 1


def test_one_bad_picture_of_a_coco_file_does_not_take_the_others(tmp_path, tiny_set):
    path = write_coco(tiny_set(), tmp_path)
    # The size that the file gives for the second image is wrong.
    before, after = path.read_text().split('"id": 2, "file_name"')
    path.write_text(before + '"id": 2, "file_name"' + after.replace('"width": 32', '"width": 99'))
    good, _ = leave_out_bad(read_coco(tmp_path, "annotations/instances_train.json"))
    assert [record.path.name for record in good.records] == ["train_00000.png"]


def test_what_readers_left_out_is_told_and_does_not_stop(tiny_set):
    found = tiny_set()
    told = Problem(Path("x.xml"), 3, "unknown class")
    noted = type(found)(found.name, found.labels, found.records, found.image, (told,))
    good, _ = leave_out_bad(noted)
    assert good.problems == (told,)


def test_what_cannot_be_mended_is_refused(tiny_set, images):
    with pytest.raises(DataError, match="must have the same classes"):
        leave_out_bad(tiny_set(), tiny_set(labels=("cat", "cow")))
    gone = tiny_set(boxes=[[GOOD]], paths=[images[0].with_name("gone.png")])
    with pytest.raises(DataError, match=r"must exist.* List them all"):
        leave_out_bad(gone)
    none = type(gone)("x", ("cat",), ())
    with pytest.raises(DataError, match="at least one usable image"):
        leave_out_bad(none)
