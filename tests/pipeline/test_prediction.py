import pytest
import torch

from flyweight.config.preprocessing import Preprocessing
from flyweight.pipeline.prediction import place_detections, prediction_text
from flyweight.tasks.one_image import one_image_batch


def test_place_detections_scales_cuts_and_leaves_padding_out():
    outputs = {
        "boxes": torch.tensor([[[0.0, 16, 32, 64], [-8, -8, 80, 80], [1, 1, 2, 2]]]),
        "scores": torch.tensor([[0.9, 0.8, 0.0]]),
        "labels": torch.tensor([[4, 2, -1]]),
        "counts": torch.tensor([2]),
    }
    image = torch.zeros(3, 128, 32, dtype=torch.uint8)
    batch = one_image_batch(image, Preprocessing(height=64, width=64))
    found = place_detections(outputs, batch, ())
    assert found.boxes.tolist() == [[0, 32, 16, 128], [0, 0, 32, 128]]
    assert found.labels.tolist() == [4, 2]
    assert len(found.scores) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": "cat", "score": 0.756}, "cat  0.76"),
        ({"label": "road", "share": 0.5}, "road  50.0 %"),
        ({"label": "cat", "score": 0.5, "box": [1.2, 2, 3, 4]}, "cat  0.50  [1, 2, 3, 4]"),
    ],
)
def test_rows_in_words(row, words):
    assert prediction_text(row) == words
