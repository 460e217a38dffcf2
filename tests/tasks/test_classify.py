from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from flyweight.config.tasks import ClassifyConfig
from flyweight.data.batch import Batch, ClassPrediction, ClassTarget
from flyweight.errors import ConfigError, TrainingError
from flyweight.tasks.classify import Classification

LABELS = ("cat", "dog", "cow")


def batch_of(*pairs):
    targets = [
        ClassTarget(label=label, mixed=mixed, image_id=0, path=Path(), original_size=(8, 8))
        for label, mixed in pairs
    ]
    return Batch(torch.zeros(len(pairs), 3, 8, 8), tuple(targets))


def test_the_loss_is_pytorchs():
    outputs = torch.randn(2, 3, requires_grad=True)
    for smoothing in (0.0, 0.1):
        task = Classification(LABELS, ClassifyConfig(label_smoothing=smoothing))
        loss = task.loss(outputs, batch_of((2, None), (0, None)))["loss"]
        labels = torch.tensor([2, 0])
        assert loss == functional.cross_entropy(outputs, labels, label_smoothing=smoothing)
    loss.backward()
    assert outputs.grad.abs().sum() > 0


def test_blended_pictures_have_blended_labels():
    outputs = torch.randn(2, 3)
    loss = Classification(LABELS).loss(outputs, batch_of((2, (1, 0.25)), (0, None)))["loss"]
    soft = torch.tensor([[0, 0.75, 0.25], [1, 0, 0]])
    assert loss == pytest.approx(float(functional.cross_entropy(outputs, soft)))


def test_scores_are_probabilities_and_the_decoders():
    task, outputs = Classification(LABELS), torch.randn(2, 3)
    predictions = task.decode(outputs, batch_of((0, None), (1, None)))
    exported = task.decoder()(outputs)
    for prediction, row in zip(predictions, exported, strict=True):
        assert float(prediction.scores.sum()) == pytest.approx(1)
        assert torch.allclose(prediction.scores, row)


def test_the_best_is_listed_whatever_its_score():
    task = Classification(LABELS)
    prediction = ClassPrediction(torch.tensor([0.25, 0.41, 0.34]))
    assert task.listed(prediction, threshold=0.5) == [{"label": "dog", "score": 0.41}]
    rows = task.listed(prediction, threshold=0.3)
    assert [row["label"] for row in rows] == ["dog", "cow"]


def test_drawn_at_the_pictures_size(tmp_path):
    prediction = ClassPrediction(torch.tensor([0.2, 0.7, 0.1]))
    image = Image.new("RGB", (90, 60), "white")
    drawn = Classification(LABELS).draw(image, prediction, threshold=0.5)
    assert drawn.size == (90, 60)
    assert len(drawn.getcolors(9999)) > 2


@pytest.mark.parametrize("outputs", [torch.zeros(2, 4), torch.zeros(2, 3, 1, 1), {"out": 1}])
def test_outputs_of_another_shape(outputs):
    for call in (Classification(LABELS).loss, Classification(LABELS).decode):
        with pytest.raises(TrainingError, match=r"scores of shape \(n, 3\)"):
            call(outputs, batch_of((0, None), (1, None)))


def test_no_labels():
    with pytest.raises(ConfigError, match="at least one label"):
        Classification(())
