import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from flyweight.data.batch import Batch, MapPrediction, MapTarget
from flyweight.tasks.metrics.mean_iou import MeanIou

NAMES = ("sky", "road", "car", "ship")


def batch_of(*maps):
    targets = [
        MapTarget(
            labels=torch.zeros(2, 2, dtype=torch.int64),
            full=torch.from_numpy(labels),
            image_id=index,
            path=Path(),
            original_size=labels.shape,
        )
        for index, labels in enumerate(maps)
    ]
    return Batch(torch.zeros(len(maps), 3, 2, 2), tuple(targets))


def test_the_numbers_are_scikit_learns():
    generator = np.random.default_rng(1)
    shapes = [(6, 9), (30, 4), (11, 11)]
    right = [generator.choice([0, 1, 2, 255], size=shape).astype(np.uint8) for shape in shapes]
    found = [generator.integers(0, 3, shape).astype(np.uint8) for shape in shapes]
    metrics = [MeanIou(NAMES), MeanIou(NAMES)]
    predictions = [MapPrediction(torch.from_numpy(labels)) for labels in found]
    metrics[0].update(predictions[:2], batch_of(*right[:2]))
    metrics[1].update(predictions[2:], batch_of(*right[2:]))
    metrics[0].merge(metrics[1].state())
    numbers = metrics[0].compute()
    truth = np.concatenate([labels.ravel() for labels in right])
    guess = np.concatenate([labels.ravel() for labels in found])
    truth, guess = truth[truth != 255], guess[truth != 255]
    each = jaccard_score(truth, guess, average=None)
    assert numbers["miou"] == pytest.approx(each.mean())
    assert numbers["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert [numbers[f"iou/{name}"] for name in NAMES[:3]] == pytest.approx(list(each))
    assert math.isnan(numbers["iou/ship"])
    assert next(iter(numbers)) == "miou"


def test_a_class_that_is_only_predicted_counts():
    metric = MeanIou(NAMES[:2])
    prediction = MapPrediction(torch.tensor([[0, 1]], dtype=torch.uint8))
    metric.update([prediction], batch_of(np.zeros((1, 2), dtype=np.uint8)))
    assert metric.compute() == {"miou": 0.25, "accuracy": 0.5, "iou/sky": 0.5, "iou/road": 0.0}


def test_nothing_has_no_number():
    assert all(math.isnan(value) for value in MeanIou(NAMES).compute().values())
