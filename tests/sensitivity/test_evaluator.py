from pathlib import Path

import pytest
import torch

from flyweight.config.tasks import TaskConfig
from flyweight.data.batch import Batch, BoxTarget
from flyweight.sensitivity.evaluator import Mean, MeanMetric, state_of, states_by_image
from flyweight.tasks.by_name import task_for
from flyweight.zoo import create, spec_of


def mean(outputs, batch):
    return outputs.mean(1)


def test_the_mean_is_that_of_all_pictures_whatever_the_batches():
    values = torch.tensor([[1.0], [2.0], [6.0]])
    metric = MeanMetric("mean")
    for share in (values[:2], values[2:]):
        metric.merge(state_of(Mean(mean), share, (share,)))
    assert metric.compute() == {"mean": 3.0}
    assert Mean(mean).loss_at_rest(torch.nn.Identity(), (values,)) == -3.0


def test_numbers_are_told_picture_by_picture():
    values = torch.tensor([[1.0], [2.0], [6.0]])
    assert states_by_image(Mean(mean), values, (values,)) == [(1.0, 1), (2.0, 1), (6.0, 1)]


def test_a_tasks_metric_is_told_picture_by_picture():
    torch.manual_seed(0)
    model = create("yolov3_mobilenet_v1", num_classes=3, width=0.25).eval()
    spec = spec_of("yolov3_mobilenet_v1")
    task = task_for(spec.task, spec.geometry, ("a", "b", "c"), TaskConfig())
    flags = torch.zeros(1, dtype=torch.bool)
    targets = tuple(
        BoxTarget(
            image_id=place,
            path=Path(),
            original_size=(64, 64),
            boxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]),
            labels=torch.tensor([place]),
            weights=torch.ones(1),
            difficult=flags,
            crowd=flags,
        )
        for place in range(3)
    )
    batch = Batch(torch.rand(3, 3, 64, 64), targets)
    with torch.no_grad():
        outputs = task.forward(model, batch)
    whole, merged = task.metric(), task.metric()
    whole.merge(state_of(task, outputs, batch))
    parts = states_by_image(task, outputs, batch)
    assert len(parts) == 3
    for part in parts:
        merged.merge(part)
    assert merged.compute() == pytest.approx(whole.compute())


class Strange:
    """A judge whose predictions cannot be taken apart."""

    primary = "n"

    def decode(self, outputs, batch):
        return object()

    def metric(self):
        return self

    def update(self, predictions, batch):
        self.batch = batch

    def state(self):
        return self.batch


def test_what_cannot_be_taken_apart_is_one_piece():
    assert states_by_image(Strange(), None, "batch") == ["batch"]
