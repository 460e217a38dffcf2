import numpy as np
import pytest
import torch

from flyweight.config.data import DataConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import BoxPrediction, ClassPrediction, MapPrediction
from flyweight.data.layouts.map_files import map_of
from flyweight.data.loading import open_set, val_loader
from flyweight.pipeline.report_outcomes import (
    _Collected,
    class_results,
    confusions,
    precision_recall,
)
from flyweight.tasks.classify import Classification
from flyweight.tasks.detect import YoloDetection
from flyweight.tasks.segment import Segmentation

SHAPE = Preprocessing(height=48, width=48)
DATA = {"size": 48, "train_count": 2, "val_count": 6}


def collected(images, task, predict):
    found = _Collected(task, images)
    start = 0
    for batch in val_loader(images, preprocessing=SHAPE, batch_size=4, num_workers=0):
        count = len(batch.targets)
        found.add(batch, [predict(index) for index in range(start, start + count)])
        start += count
    return found.outcomes()


def test_perfect_boxes_but_in_one_image():
    images = open_set(DataConfig(format="digits", **DATA), "val")

    def predict(index):
        record = images.records[index]
        boxes = torch.from_numpy(record.boxes.copy()) + (500 if index == 2 else 0)
        return BoxPrediction(boxes, torch.ones(len(boxes)), torch.from_numpy(record.labels.copy()))

    found = collected(images, YoloDetection(images.labels, None), predict)
    assert found.quality.tolist() == [1, 1, 0, 1, 1, 1]
    low, high = found.interval
    assert low < found.value < high + 1e-9
    assert sum(found.counts) == sum(len(record.boxes) for record in images.records)
    curve = precision_recall({"dense": found})[0]
    assert curve.x[-1] == pytest.approx(
        100 * (1 - len(images.records[2].boxes) / sum(found.counts))
    )
    results = class_results({"dense": found, "again": found}, images)
    assert results.counted == "objects"
    assert results.stages == ("dense", "again")
    assert confusions({"dense": found}, images) == ()
    assert found.difference(found) == (0.0, 0.0)


@pytest.mark.parametrize("metric", ["coco", "wider"])
def test_metrics_of_coco_and_wider_have_intervals(metric):
    images = open_set(DataConfig(format="digits", **DATA), "val")

    def predict(index, shift):
        record = images.records[index]
        boxes = torch.from_numpy(record.boxes.copy()) + (shift if index % 2 else 0)
        scores = torch.linspace(0.9, 0.5, len(boxes))
        return BoxPrediction(boxes, scores, torch.from_numpy(record.labels.copy()))

    task = YoloDetection(images.labels, None, DetectConfig(metric=metric))
    near, far = (
        collected(images, task, lambda index, by=by: predict(index, by)) for by in (0, 500)
    )
    low, high = far.interval
    assert 0 <= low < far.value < high <= 1
    assert near.difference(far)[1] < 0
    assert near.difference(near) == (0.0, 0.0)


def test_classes():
    images = open_set(DataConfig(format="digits_classes", **DATA), "val")

    def predict(index):
        right = images.records[index].label if index else (images.records[0].label + 1) % 10
        return ClassPrediction(torch.full((10,), 0.02).index_fill(0, torch.tensor(right), 0.82))

    found = collected(images, Classification(images.labels), predict)
    assert found.value == pytest.approx(5 / 6)
    assert found.quality.tolist() == pytest.approx([0.02] + [0.82] * 5)
    matrix = confusions({"dense": found}, images)[0]
    assert np.array(matrix.counts).sum() == 6
    assert np.trace(np.array(matrix.counts)) == 5
    assert class_results({"dense": found}, images).counted == "images"


def test_pixels():
    images = open_set(DataConfig(format="digits_maps", **DATA), "val")
    found = collected(
        images,
        Segmentation(images.labels),
        lambda index: MapPrediction(torch.from_numpy(map_of(images, index).copy())),
    )
    assert found.value == 1.0
    assert found.interval == (1.0, 1.0)
    assert class_results({"dense": found}, images).counted == "pixels"
