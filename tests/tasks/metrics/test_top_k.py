import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from flyweight.data.batch import Batch, ClassPrediction, ClassTarget
from flyweight.tasks.metrics.top_k import TopK


def batch_of(labels):
    targets = [
        ClassTarget(label=label, image_id=index, path=Path(), original_size=(8, 8))
        for index, label in enumerate(labels)
    ]
    return Batch(torch.zeros(len(labels), 3, 8, 8), tuple(targets))


def test_the_numbers_are_scikit_learns():
    generator = np.random.default_rng(0)
    scores = generator.random((200, 12))
    labels = np.r_[generator.integers(0, 12, 188), np.arange(12)]
    metrics = [TopK([str(index) for index in range(12)]) for _ in range(3)]
    predictions = [ClassPrediction(torch.from_numpy(row)) for row in scores]
    for metric, part in zip(metrics, (slice(0, 70), slice(70, 71), slice(71, None)), strict=True):
        metric.update(predictions[part], batch_of(labels[part].tolist()))
    metrics[0].merge(metrics[1].state())
    metrics[0].merge(metrics[2].state())
    assert metrics[0].compute() == pytest.approx(
        {f"top{k}": top_k_accuracy_score(labels, scores, k=k) for k in (1, 5)}
    )


def test_of_equal_scores_the_lower_index_comes_first():
    for label, right in ((0, 1.0), (1, 0.0)):
        metric = TopK(["a", "b"])
        metric.update([ClassPrediction(torch.tensor([0.5, 0.5]))], batch_of([label]))
        assert metric.compute() == {"top1": right}


def test_nothing_has_no_number():
    metric = TopK(list("abcdef"))
    metric.update([], batch_of([]))
    assert all(math.isnan(value) for value in metric.compute().values())
    assert list(metric.compute()) == ["top1", "top5"]
