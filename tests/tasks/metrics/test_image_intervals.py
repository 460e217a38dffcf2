import numpy as np
import pytest
import torch

from flyweight.tasks.metrics.image_intervals import interval_of, resampled_iou, resampled_mean
from flyweight.tasks.metrics.mean_iou import MeanIou
from flyweight.tasks.metrics.voc_intervals import draw_images


def test_one_of_each_image_gives_the_metric():
    generator = np.random.default_rng(1)
    matrices = generator.integers(0, 9, (4, 3, 3))
    metric = MeanIou(("a", "b", "c"))
    metric.merge(torch.from_numpy(matrices.sum(axis=0)))
    found = resampled_iou(matrices, np.ones((1, 4), dtype=np.int64))
    assert found[0] == pytest.approx(metric.compute()["miou"])
    assert resampled_mean(np.array([1.0, 0, 0, 1]), np.ones((1, 4), dtype=np.int64))[0] == 0.5


def test_classes_that_a_resample_lacks_do_not_count():
    matrices = np.array([[[5, 0], [0, 0]], [[0, 0], [4, 0]]])
    assert resampled_iou(matrices, np.array([[1, 0]])).tolist() == [1.0]


def test_the_interval_is_that_of_a_share():
    hits = np.array([1.0] * 48 + [0.0] * 12)
    low, high = interval_of(resampled_mean(hits, draw_images(60)))
    # 1.96 standard errors of a share of 0.8 of 60 images are 0.101.
    assert low == pytest.approx(0.7, abs=0.02)
    assert high == pytest.approx(0.9, abs=0.02)
