from dataclasses import replace

import numpy as np
import pytest
import torch

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import BoxPrediction
from flyweight.data.layouts.digits import make_digits
from flyweight.data.loading import val_loader
from flyweight.tasks.detect import METRICS, box_metric
from flyweight.tasks.metrics.box_intervals import resampled_metric

LABELS = tuple("0123456789")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_the_table_is_resampled(name):
    images = make_digits("val", 5, size=64)
    metric = box_metric(DetectConfig(metric=name), LABELS)
    loader = val_loader(images, preprocessing=Preprocessing(height=48, width=48), batch_size=2)
    for batch in loader:
        for target in batch.targets:
            record = images.records[target.image_id]
            boxes = torch.from_numpy(record.boxes.copy())
            boxes[0] += 300  # One object of every image is missed.
            labels = torch.from_numpy(record.labels.copy())
            found = BoxPrediction(boxes, torch.linspace(0.9, 0.4, len(boxes)), labels)
            metric.update([found], replace(batch, targets=(target,)))
    once = np.ones((1, 5), dtype=np.int64)
    found = resampled_metric(metric, images, once)
    assert found is not None
    assert found[0] == pytest.approx(metric.compute()[METRICS[name][0]], abs=1e-9)
    assert 0 < found[0] < 1


def test_a_metric_of_the_users_own_is_not():
    assert resampled_metric(object(), make_digits("val", 1, size=64), np.ones((1, 1), int)) is None
