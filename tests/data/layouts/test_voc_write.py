import numpy as np
import pytest

from flyweight.data.check import check
from flyweight.data.images import read_image
from flyweight.data.layouts.digits import make_digits
from flyweight.data.layouts.voc import read_voc
from flyweight.data.layouts.voc_write import write_voc
from flyweight.errors import DataError


def test_what_is_written_reads_back_the_same(tmp_path):
    for split in ("train", "val"):
        made = make_digits(split, 3, size=64)
        listing = write_voc(made, tmp_path)
        assert listing == tmp_path / "ImageSets/Main" / f"{split}.txt"
        read = read_voc(tmp_path, split)
        assert read.labels == made.labels
        assert check(read, decode=True) == ()
        for index, record in enumerate(read.records):
            np.testing.assert_array_equal(record.boxes, made.records[index].boxes)
            np.testing.assert_array_equal(record.labels, made.records[index].labels)
            picture = read_image(record.path).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(picture, made.image(index))
    assert len(list((tmp_path / "JPEGImages").iterdir())) == 6


def test_odd_class_names_and_fractions_survive(tmp_path):
    made = make_digits("train", 1, size=64)
    record = made.records[0]
    record.boxes[0, 0] = np.float32(0.1)
    record.difficult[0] = True
    labels = ("<&>", *made.labels[1:])
    record.labels[0] = 0
    write_voc(type(made)("x", labels, (record,), made.image), tmp_path, split="odd")
    (read,) = read_voc(tmp_path, "odd").records
    np.testing.assert_array_equal(read.boxes, record.boxes)
    assert read.difficult[0]
    assert read_voc(tmp_path, "odd").labels[0] == "<&>"


def test_refuses_a_folder_with_other_classes(tmp_path):
    (tmp_path / "label_list.txt").write_text("cat\n")
    with pytest.raises(DataError, match="must have the same classes"):
        write_voc(make_digits("train", 1, size=64), tmp_path)
