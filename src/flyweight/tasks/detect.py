"""Object detection in one stage: tasks for networks that return maps of YOLO or SSD."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from flyweight.config.tasks import DetectConfig, MetricName
from flyweight.data.batch import Batch, BoxPrediction
from flyweight.errors import ConfigError
from flyweight.on_demand import load
from flyweight.tasks.decoding.boxes import clip_boxes, listed_boxes, suppress
from flyweight.tasks.decoding.ssd import SsdDecoder
from flyweight.tasks.decoding.yolo import YoloDecoder
from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.canvas import Drawable, drawn_on
from flyweight.tasks.losses.ssd import SsdLossSettings, ssd_loss
from flyweight.tasks.losses.yolo import YoloLossSettings, yolo_loss
from flyweight.tasks.task import Listed, Metric, Task
from flyweight.zoo.detectors.ssd import SsdGeometry
from flyweight.zoo.detectors.yolo import YoloGeometry

Geometry = TypeVar("Geometry")

METRICS: Mapping[MetricName, tuple[str, str]] = {
    "voc_11point": ("map_50", "flyweight.tasks.metrics.voc_map:make_voc_map"),
    "voc_area": ("map_50", "flyweight.tasks.metrics.voc_map:make_voc_map"),
    "voc_integral": ("map_50", "flyweight.tasks.metrics.voc_map:make_voc_map"),
    "coco": ("map", "flyweight.tasks.metrics.coco_ap:make_coco_ap"),
    "wider": ("wider_hard", "flyweight.tasks.metrics.wider_ap:make_wider_ap"),
}
"""Every metric by its name in a config.

The first entry is the number that decides which checkpoint is best; the second is the function
`(labels, config) -> metric`, whose file is imported when the metric is needed.
"""


def box_metric(config: DetectConfig, labels: Sequence[str]) -> Metric:
    """Return a new metric of the kind that the settings of a detector name."""
    metric: Metric = load(METRICS[config.metric][1])(labels, config)
    return metric


class BoxDetection(Task, Generic[Geometry]):
    """The parts of a `Task` that all detectors share: decoding, metric and drawing, but no loss.

    Args:
        labels: Class names in the order of their indices, without the background.
        geometry: Anchors or priors, and strides, of the network's raw outputs.
        config: Settings of detection.

    Raises:
        ConfigError: There is no label.
    """

    name = "detect"

    def __init__(
        self, labels: Sequence[str], geometry: Geometry, config: DetectConfig | None = None
    ) -> None:
        if not labels:
            raise ConfigError(
                "A detector must have at least one label. Received: none. "
                "Name the classes in the data set's label list."
            )
        self.labels = tuple(labels)
        self.geometry = geometry
        self.config = DetectConfig() if config is None else config
        self.primary = METRICS[self.config.metric][0]
        self.suppression = self.config.suppression

    def decode(self, outputs: Any, batch: Batch) -> list[BoxPrediction]:
        """Return the boxes of each image that suppression keeps, in pixels of the original image.

        The result is on the CPU.
        """
        decoder = self.decoder()
        if decoder is None:
            raise TypeError("a detector must have a decoder")
        with torch.no_grad():
            boxes, scores = decoder(outputs)
            predictions = []
            for index, target in enumerate(batch.targets):
                factors = boxes.new_tensor(target.scale).repeat(2)
                placed = clip_boxes(boxes[index] * factors, target.original_size)
                kept = suppress(placed, scores[index], self.suppression)
                predictions.append(BoxPrediction(*(part.cpu() for part in kept)))
        return predictions

    def metric(self) -> Metric:
        """Return a new metric."""
        return box_metric(self.config, self.labels)

    def draw(self, image: Drawable, prediction: BoxPrediction, *, threshold: float) -> Drawable:
        """Return the image with the boxes on it that score at least `threshold`."""
        draw = partial(draw_boxes, prediction=prediction, labels=self.labels, threshold=threshold)
        return drawn_on(image, draw)

    def listed(self, prediction: BoxPrediction, *, threshold: float) -> list[Listed]:
        """Return label, score and box of every object that scores at least `threshold`."""
        return listed_boxes(prediction, self.labels, threshold=threshold)


class YoloDetection(BoxDetection[YoloGeometry]):
    """Detection for a network that returns YOLO's raw maps; a `Task`."""

    def loss(self, outputs: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return `loss` and its terms, see `yolo_loss`."""
        settings = YoloLossSettings(
            ignore_threshold=self.config.ignore_threshold,
            label_smoothing=self.config.label_smoothing,
        )
        return yolo_loss(outputs, batch.targets, self.geometry, len(self.labels), settings)

    def decoder(self) -> YoloDecoder:
        """Return the module that computes boxes and scores from the raw maps."""
        return YoloDecoder(self.geometry, len(self.labels))


class SsdDetection(BoxDetection[SsdGeometry]):
    """Detection for a network that returns SSD's raw maps; a `Task`."""

    def loss(self, outputs: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return `loss` and its terms, see `ssd_loss`."""
        settings = SsdLossSettings(
            match_threshold=self.config.match_threshold, negatives=self.config.negatives
        )
        return ssd_loss(outputs, batch.targets, self.geometry, len(self.labels), settings)

    def decoder(self) -> SsdDecoder:
        """Return the module that computes boxes and scores from the raw maps."""
        return SsdDecoder(self.geometry, len(self.labels))
