"""Object detection in one stage, with YOLO's maps or SSD's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from flyweight.config.tasks import DetectConfig, MetricName
from flyweight.data.batch import Batch, BoxPrediction
from flyweight.data.layouts.wider_truth import read_truth
from flyweight.errors import ConfigError
from flyweight.tasks.decoding.boxes import clip_boxes, listed_boxes, suppress
from flyweight.tasks.decoding.ssd import SsdDecoder
from flyweight.tasks.decoding.yolo import YoloDecoder
from flyweight.tasks.drawing.boxes import draw_file
from flyweight.tasks.losses.ssd import SsdLossSettings, ssd_loss
from flyweight.tasks.losses.yolo import YoloLossSettings, yolo_loss
from flyweight.tasks.metrics.coco_ap import CocoAp
from flyweight.tasks.metrics.voc_map import VocMap
from flyweight.tasks.metrics.wider_ap import WiderAp
from flyweight.tasks.task import Listed, Metric, Task
from flyweight.zoo.detectors.ssd import SsdGeometry
from flyweight.zoo.detectors.yolo import YoloGeometry

Geometry = TypeVar("Geometry")

METRICS: Mapping[MetricName, tuple[str, Callable[[Sequence[str]], Metric]]] = {
    "voc_11point": ("map_50", partial(VocMap, method="11point")),
    "voc_area": ("map_50", partial(VocMap, method="area")),
    "voc_integral": ("map_50", partial(VocMap, method="integral")),
    "coco": ("map", CocoAp),
    "wider": ("wider_hard", lambda labels: WiderAp()),
}
"""Every metric by name: the number that decides which checkpoint is best, and how to make one."""


def box_metric(config: DetectConfig, labels: Sequence[str]) -> Metric:
    """Return a fresh metric of the kind that a detector's settings name."""
    if config.metric == "wider" and config.ground_truth is not None:
        return WiderAp(read_truth(config.ground_truth))
    return METRICS[config.metric][1](labels)


class BoxDetection(Task, Generic[Geometry]):
    """What all detection has in common: decoding, metric and images; a `Task` but for its loss.

    Args:
        labels: Class names in the order of their indices, without the background.
        geometry: What the network's raw outputs mean.
        config: What can be chosen.

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
        """Return each image's surviving boxes in pixels of the image on disk.

        The result lies in the host's memory.
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
        """Return a fresh metric."""
        return box_metric(self.config, self.labels)

    def draw(
        self, image: Path, prediction: BoxPrediction, save_to: Path, *, threshold: float
    ) -> None:
        """Draw the boxes that score at least `threshold` and save the image."""
        draw_file(image, prediction, self.labels, save_to, threshold=threshold)

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
        """Return the module that makes boxes and scores of the raw maps."""
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
        """Return the module that makes boxes and scores of the raw maps."""
        return SsdDecoder(self.geometry, len(self.labels))
