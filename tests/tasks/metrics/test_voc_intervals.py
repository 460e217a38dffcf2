import numpy as np
import pytest

from flyweight.data.layouts.digits import make_digits
from flyweight.tasks.metrics.voc_intervals import (
    RESAMPLES,
    difference_interval,
    draw_images,
    objects_per_image,
    resampled_map,
)
from flyweight.tasks.metrics.voc_map import VocMap

LABELS = ("a", "b", "c")


def state_of(random, objects, share_right):
    """Detections as `VocMap` keeps them: one per object, right by chance, and some more."""
    images, labels = (
        np.repeat(part, objects.ravel()) for part in np.indices(objects.shape).reshape(2, -1)
    )
    extra = len(images) // 2
    images = np.concatenate([images, random.integers(len(objects), size=extra)])
    labels = np.concatenate([labels, random.integers(len(LABELS), size=extra)])
    right = random.random(len(images)) < share_right
    right[-extra:] = False
    return {
        "images": images,
        "labels": labels,
        "scores": np.round(random.random(len(images)) + right, 1),
        "outcomes": np.where(random.random(len(images)) < 0.1, 2, right.astype(np.int64)),
        "ranks": np.arange(len(images)),
    }


def plain_map(state, objects, method):
    metric = VocMap(LABELS, method=method)
    metric.merge({"counts": objects.sum(axis=0), **state})
    return metric.compute()["map_50"]


@pytest.fixture
def objects():
    objects = np.random.default_rng(1).integers(0, 3, (30, len(LABELS)))
    objects[:, 2] = 0
    objects[7, 2] = 2  # One class is in one image alone, so some resamples are without it.
    return objects


@pytest.mark.parametrize("method", ["11point", "area", "integral"])
def test_every_image_once_is_the_metric_itself(objects, method):
    state = state_of(np.random.default_rng(2), objects, 0.7)
    once = np.ones((1, len(objects)), dtype=np.int64)
    found = resampled_map(state, objects, once, method)
    assert found[0] == pytest.approx(plain_map(state, objects, method), abs=1e-12)


def test_a_resample_is_the_metric_of_the_images_it_contains(objects):
    state = state_of(np.random.default_rng(3), objects, 0.7)
    draws = draw_images(len(objects))
    assert draws.shape == (RESAMPLES, len(objects))
    assert (draws.sum(axis=1) == len(objects)).all()
    found = resampled_map(state, objects, draws[:5], "area")
    for value, counts in zip(found, draws[:5], strict=True):
        repeated = np.repeat(np.arange(len(state["images"])), counts[state["images"]])
        copies = {name: column[repeated] for name, column in state.items()}
        assert value == pytest.approx(plain_map(copies, objects * counts[:, None], "area"))


def test_pairs_are_told_apart_where_single_intervals_overlap(objects):
    random = np.random.default_rng(4)
    before = state_of(random, objects, 0.8)
    after = dict(before, outcomes=before["outcomes"].copy())
    after["outcomes"][np.flatnonzero(after["outcomes"] == 1)[::8]] = 0
    draws = draw_images(len(objects))
    values = [resampled_map(state, objects, draws, "area") for state in (before, after)]
    low, high = difference_interval(*values)
    drop = plain_map(after, objects, "area") - plain_map(before, objects, "area")
    assert low < drop < high < 0
    single = [np.percentile(one, [2.5, 97.5]) for one in values]
    assert single[0][0] < single[1][1]
    assert difference_interval(values[0], values[0]) == (0, 0)


def test_the_interval_holds_the_true_difference_nearly_always():
    random, held, trials = np.random.default_rng(5), 0, 40
    for trial in range(trials):
        objects = random.integers(0, 3, (40, len(LABELS)))
        draws = draw_images(len(objects), seed=trial)[:200]
        # Two networks of equal worth: the true difference is 0.
        states = [state_of(random, objects, 0.7) for _ in range(2)]
        low, high = difference_interval(*(resampled_map(s, objects, draws, "area") for s in states))
        held += low <= 0 <= high
    assert held >= 0.85 * trials


def test_objects_are_counted_as_the_metric_counts_them():
    images = make_digits("val", 6, size=96)
    counts = objects_per_image(images)
    assert counts.shape == (6, 10)
    assert counts.sum() == sum(len(record.labels) for record in images.records)
    record = images.records[2]
    record.difficult[0] = True
    record.crowd[1] = True
    assert objects_per_image(images)[2].sum() == len(record.labels) - 2
