import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight.config.data import DataConfig
from flyweight.data.batch import Batch
from flyweight.data.layouts.digit_sets import make_digit_classes, make_digit_maps
from flyweight.data.layouts.map_sets import read_maps
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.digests import (
    digest_of_batch,
    digest_of_file,
    digest_of_images,
    digest_of_tensors,
    digest_of_value,
    digest_of_weights,
)
from flyweight.errors import FileError


def test_values_shapes_types_and_order_tell_tensors_apart():
    plain = torch.arange(6.0)
    others = [
        [plain + 1],
        [plain.reshape(2, 3)],
        [plain.double()],
        [plain.to(torch.int32)],
        [plain, plain],
        [],
    ]
    digests = {digest_of_tensors(tensors) for tensors in ([plain], *others)}
    assert len(digests) == 1 + len(others)
    assert digest_of_tensors([plain, plain + 1]) != digest_of_tensors([plain + 1, plain])


def test_memory_layout_does_not():
    image = torch.rand(1, 3, 4, 5)
    other = image.to(memory_format=torch.channels_last)
    assert digest_of_tensors([image]) == digest_of_tensors([other])
    assert digest_of_tensors([image.bfloat16()])


def test_a_batch_is_its_pictures_or_all_its_tensors():
    images = torch.rand(2, 3, 4, 4)
    assert digest_of_batch(Batch(images, ())) == digest_of_tensors([images])
    labels = torch.tensor([1, 2])
    assert digest_of_batch((images, labels)) == digest_of_tensors([images, labels])
    assert digest_of_batch((images, labels)) != digest_of_batch((images, labels + 1))


def test_the_order_of_names_does_not_count_in_values_and_weights():
    assert digest_of_value({"a": 1, "b": [2]}) == digest_of_value({"b": [2], "a": 1})
    assert digest_of_value({"a": 1}) != digest_of_value({"a": 2})
    one, two = torch.ones(2), torch.zeros(2)
    found = digest_of_weights({"a": one, "b": two})
    assert found == digest_of_weights({"b": two.clone(), "a": one})
    others = [{"a": two, "b": one}, {"a": one, "c": two}, {"a": one, "b": two.double()}, {}]
    assert found not in map(digest_of_weights, others)


def test_file_digest(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    a, b, c = (digest_of_file(tmp_path / name) for name in "abc")
    assert a == b != c
    with pytest.raises(FileError, match="must be readable"):
        digest_of_file(tmp_path / "none")


def test_data_digest_sees_boxes_labels_and_pictures(tmp_path):
    digits = DataConfig(format="digits", size=64, train_count=3, val_count=2)
    sets = [open_set(digits, split) for split in ("train", "val")]
    assert digest_of_images(sets[0]) == digest_of_images(open_set(digits, "train"))
    assert digest_of_images(sets[0]) != digest_of_images(sets[1])

    write_voc(sets[0], tmp_path)
    voc = DataConfig(format="voc", root=str(tmp_path), train="train")
    before = digest_of_images(open_set(voc, "train"))
    assert before == digest_of_images(open_set(voc, "train"))
    image = next((tmp_path / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    changed = digest_of_images(open_set(voc, "train"))
    assert changed != before
    box_set = open_set(voc, "train")
    box_set.records[0].boxes[0] += np.float32(1)
    assert digest_of_images(box_set) != changed


def test_data_digest_sees_classes_and_maps(tmp_path):
    classes = [make_digit_classes("train", 4, size=40, seed=seed) for seed in (0, 0, 1)]
    digests = [digest_of_images(images) for images in classes]
    assert digests[0] == digests[1] != digests[2]
    for name in ("images/train/a.png", "masks/train/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    read = partial(read_maps, tmp_path, "train", labels=("x", "y"))
    before = digest_of_images(read())
    assert before == digest_of_images(read()) != digest_of_images(read(values={0: 1}))
    Image.new("L", (4, 4), 1).save(tmp_path / "masks/train/a.png", compress_level=0)
    assert digest_of_images(read()) != before


def test_equal_data_elsewhere_is_equal_data(tmp_path):
    digits = DataConfig(format="digits", size=64, train_count=3, val_count=2)
    write_voc(open_set(digits, "train"), tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.*"):
        os.utime(path, (1, 1))
    found = [
        digest_of_images(open_set(DataConfig(format="voc", root=str(tmp_path / name)), "train"))
        for name in ("one", "other")
    ]
    assert found[0] == found[1]


def test_data_digest_sees_outlines():
    images = open_set(DataConfig(format="digits", size=64, train_count=1), "train")
    square = np.array([0, 0, 4, 0, 4, 4], dtype=np.float32)
    drawn = [(square,), (square + 1,), {"size": [4, 4], "counts": "abc"}]
    sets = [
        replace(images, records=(replace(images.records[0], outlines=(outline,)),))
        for outline in drawn
    ]
    assert len({digest_of_images(one) for one in (images, *sets)}) == 4


def test_data_digest_sees_what_makes_the_images():
    sizes = [make_digit_maps("train", 2, size=size) for size in (40, 40, 48)]
    digests = [digest_of_images(images) for images in sizes]
    assert digests[0] == digests[1] != digests[2]
    plain = replace(sizes[0], label_map=None)
    unknown = [replace(plain, image=lambda _, k=k: np.full((2, 2), k)) for k in (0, 0, 1)]
    digests = [digest_of_images(images) for images in unknown]
    assert digests[0] == digests[1] != digests[2]
