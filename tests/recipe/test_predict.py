from pathlib import Path

import torch

from flyweight.data.preprocess import Preprocessing
from flyweight.recipe.predict import one_picture_batch, place_detections


def test_one_picture_batch():
    picture = torch.zeros(3, 20, 40, dtype=torch.uint8)
    preprocessing = Preprocessing(height=64, width=64, fit="pad")
    batch = one_picture_batch(picture, preprocessing, Path("a.png"))
    assert batch.images.shape == (1, 3, 64, 64)
    assert batch.targets[0].original_size == (20, 40)
    assert batch.targets[0].scale == (40 / 64, 20 / 32)
    assert len(batch.targets[0].boxes) == 0


def test_place_detections_scales_cuts_and_leaves_padding_out():
    outputs = {
        "boxes": torch.tensor([[[0.0, 16, 32, 64], [-8, -8, 80, 80], [1, 1, 2, 2]]]),
        "scores": torch.tensor([[0.9, 0.8, 0.0]]),
        "labels": torch.tensor([[4, 2, -1]]),
        "counts": torch.tensor([2]),
    }
    picture = torch.zeros(3, 128, 32, dtype=torch.uint8)
    found = place_detections(outputs, Preprocessing(height=64, width=64), picture)
    assert found.boxes.tolist() == [[0, 32, 16, 128], [0, 0, 32, 128]]
    assert found.labels.tolist() == [4, 2]
    assert len(found.scores) == 2
