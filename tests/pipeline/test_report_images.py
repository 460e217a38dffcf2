from types import SimpleNamespace

import numpy as np

from flyweight.config.data import DataConfig
from flyweight.data.loading import open_set
from flyweight.pipeline.report_images import IMAGES, choose, classes_in, report_images

A, B = frozenset({0}), frozenset({1})


def test_what_changed_most_is_shown():
    before, after = [0.9] * 20, [0.9] * 20
    after[7] = after[13] = 0.2
    chosen = choose([before, after], [frozenset()] * 20)
    assert {7, 13} <= {*chosen}
    assert len(chosen) == IMAGES


def test_every_class_is_shown_if_there_is_space():
    classes = [A] * 19 + [B]
    after = [0.1 * (index % 7) for index in range(19)] + [1.0]
    assert 19 in choose([[1.0] * 20, after], classes)


def test_one_network_shows_its_worst_images():
    assert choose([[0.9] * 8 + [0.1, 0.2]], [frozenset()] * 10)[-2:] == [8, 9]


def test_few_images_are_all_shown():
    assert choose([[1.0, 1.0]], [A, A]) == [0, 1]


def test_ground_truth_is_drawn(tmp_path):
    data = {"size": 48, "train_count": 2, "val_count": 2}
    for kind, caption in (("digits", "object"), ("digits_classes", ""), ("digits_maps", "")):
        images = open_set(DataConfig(format=kind, **data), "val")
        quality = SimpleNamespace(quality=np.array([0.5, 0.25]))
        shown = list(report_images(images, {}, tmp_path / kind, {"dense": quality}))
        assert [image.stage for image in shown] == ["ground truth"] * 2
        assert all((tmp_path / kind / image.path).is_file() for image in shown)
        assert caption in shown[0].caption
        named = {"one": quality, "two": quality, "three": quality}
        again = list(report_images(images, {}, tmp_path / kind, named, changed=("two", "three")))
        assert [image.path for image in again] == [image.path for image in shown]
        assert len(classes_in(images)) == 2
    classes = open_set(DataConfig(format="digits_classes", **data), "val")
    assert shown[0].caption == ""
    assert classes_in(classes)[0] == frozenset({classes.records[0].label})
