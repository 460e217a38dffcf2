"""Decoding of YOLO's raw maps: functions of tensors, and a module for an exported graph."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.errors import ConfigError
from flyweight.tasks.decoding.boxes import clip_boxes
from flyweight.zoo.detectors.yolo import YoloGeometry


def split_map(raw: Tensor, num_anchors: int, num_classes: int) -> Tensor:
    """Return a raw map as float32 `(n, anchors, 5 + classes, h, w)`.

    Raises:
        ConfigError: The map's channels do not fit the number of classes.
    """
    count, channels, height, width = raw.shape
    if channels != num_anchors * (5 + num_classes):
        raise ConfigError(
            f"A map for {num_classes} classes must have {num_anchors * (5 + num_classes)} channels "
            f"({num_anchors} anchors of 5 + {num_classes}). Received: {channels}. Create the model "
            "with as many classes as there are labels."
        )
    return raw.float().reshape(count, num_anchors, 5 + num_classes, height, width)


def decode_offsets(offsets: Tensor, anchors: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """Return the boxes of raw offsets (arXiv 1804.02767, section 2.1).

    Args:
        offsets: tx, ty, tw, th as `(n, anchors, >= 4, h, w)`.
        anchors: Width and height of each anchor, in input pixels.
        stride: Input pixels per cell.

    Returns:
        xyxy in input pixels, not clipped, `(n, anchors, h, w, 4)`.
    """
    height, width = offsets.shape[-2:]
    sizes = offsets.new_tensor(anchors).view(1, -1, 2, 1, 1)
    columns = torch.arange(width, device=offsets.device, dtype=offsets.dtype).expand(height, width)
    rows = torch.arange(height, device=offsets.device, dtype=offsets.dtype)
    cells = torch.stack((columns, rows[:, None].expand(height, width)))
    centres = (offsets[:, :, 0:2].sigmoid() + cells) * stride
    halves = offsets[:, :, 2:4].exp() * sizes / 2
    corners = torch.cat((centres - halves, centres + halves), dim=2)
    return corners.permute(0, 1, 3, 4, 2)


def decode_maps(
    maps: Sequence[Tensor], geometry: YoloGeometry, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return box and scores of every anchor.

    Args:
        maps: Raw maps in the order of `geometry`, each `(n, anchors * (5 + classes), h, w)`.
        geometry: Anchors and strides of the maps.
        num_classes: Classes without background.

    Returns:
        Boxes, xyxy in input pixels, clipped to the input, `(n, all anchors, 4)` float32, and
        scores (objectness times class probability), `(n, all anchors, classes)` float32.

    Raises:
        ConfigError: The maps' channels do not fit the number of classes.
    """
    boxes, scores = [], []
    for scale, (raw, stride) in enumerate(zip(maps, geometry.strides, strict=True)):
        anchors = geometry.anchors_of(scale)
        parts = split_map(raw, len(anchors), num_classes)
        height, width = raw.shape[-2:]
        corners = decode_offsets(parts, anchors, stride).flatten(1, 3)
        boxes.append(clip_boxes(corners, (height * stride, width * stride)))
        probabilities = parts[:, :, 4:].sigmoid().permute(0, 1, 3, 4, 2).flatten(1, 3)
        scores.append(probabilities[..., :1] * probabilities[..., 1:])
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


class YoloDecoder(nn.Module):
    """`decode_maps` as the last layer of an exported graph.

    Args:
        geometry: Anchors and strides of the raw maps.
        num_classes: Classes without background.
        normalised: Return boxes as fractions of the input's width and height, not in pixels.
    """

    def __init__(
        self, geometry: YoloGeometry, num_classes: int, *, normalised: bool = False
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.num_classes = num_classes
        self.normalised = normalised

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes `(n, all anchors, 4)` and scores `(n, all anchors, classes)`."""
        boxes, scores = decode_maps(maps, self.geometry, self.num_classes)
        if self.normalised:
            stride = self.geometry.strides[0]
            height, width = maps[0].shape[-2] * stride, maps[0].shape[-1] * stride
            boxes = boxes / boxes.new_tensor((width, height, width, height))
        return boxes, scores
