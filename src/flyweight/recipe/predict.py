"""One picture through a model and back into the picture's own pixels."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flyweight.data.batch import Batch, BoxPrediction, BoxTarget
from flyweight.data.pictures import prepare
from flyweight.data.preprocess import Preprocessing


def one_picture_batch(picture: Tensor, preprocessing: Preprocessing, path: Path) -> Batch:
    """Return a batch of one picture without known objects.

    Args:
        picture: The picture as read, `(3, h, w)` uint8.
        preprocessing: What makes the network's input of it.
        path: Its file.
    """
    none = torch.zeros(0)
    height, width = picture.shape[-2:]
    target = BoxTarget(
        boxes=torch.zeros(0, 4),
        labels=none.long(),
        weights=none,
        difficult=none.bool(),
        crowd=none.bool(),
        image_id=0,
        path=path,
        original_size=(height, width),
        scale=preprocessing.scale(height, width),
    )
    return Batch(prepare(picture, preprocessing)[None], (target,))


def place_detections(
    outputs: Mapping[str, Tensor], preprocessing: Preprocessing, picture: Tensor
) -> BoxPrediction:
    """Return an exported detector's answer in the pixels of `picture`.

    Args:
        outputs: "boxes", "scores", "labels", "counts" of one picture, as `export.nms.Detections`
            gives them.
        preprocessing: What the picture went through.
        picture: The picture as read, `(3, h, w)` uint8.
    """
    count = int(outputs["counts"].flatten()[0])
    height, width = picture.shape[-2:]
    scale = torch.tensor(preprocessing.scale(height, width)).repeat(2)
    boxes = outputs["boxes"].reshape(-1, 4)[:count] * scale
    limit = torch.tensor([width, height] * 2, dtype=boxes.dtype)
    return BoxPrediction(
        boxes=boxes.clamp(min=0).minimum(limit),
        scores=outputs["scores"].flatten()[:count],
        labels=outputs["labels"].flatten()[:count],
    )
