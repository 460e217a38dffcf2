"""Average precision of COCO, computed by faster-coco-eval.

Boxes are continuous, as in COCO's files: a width is the difference of two coordinates. The
originals subtracted one pixel from every object when reading and added it to every detection when
writing, which gives the same result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor

from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import Batch, BoxPrediction, BoxTarget
from flyweight.tasks.decoding.scale import original_boxes
from flyweight.tasks.metrics.run_lengths import areas_of, run_lengths

STATISTICS = (
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)
"""The twelve numbers of COCO in their order: precision, then recall by detections per image."""


@dataclass(frozen=True)
class CocoImage:
    """Objects and detections of one image, xyxy in pixels of the original image.

    Attributes:
        image_id: Position of the image in its set.
        object_boxes: `(n, 4)` float64.
        object_labels: `(n,)` int64.
        ignored: `(n,)` bool, regions in which detections count neither as right nor as wrong.
        boxes: `(m, 4)` float64, detections.
        scores: `(m,)` float64.
        labels: `(m,)` int64.
        object_masks: Run lengths, one per object; None if they are unknown.
        masks: Run lengths, one per detection; None if there are none.
        size: Height and width of the image.
        stated: x, y, width, height and area of every object as COCO's file gives them, `(n, 5)`
            float64, used in place of `object_boxes`; None for other layouts.
    """

    image_id: int
    object_boxes: NDArray[np.float64]
    object_labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    object_masks: tuple[Any, ...] | None = None
    masks: tuple[Any, ...] | None = None
    size: tuple[int, int] = (0, 0)
    stated: NDArray[np.float64] | None = None

    @property
    def has_masks(self) -> bool:
        """Whether masks can be compared."""
        return self.object_masks is not None and self.masks is not None


@dataclass(frozen=True)
class CocoNumbers:
    """Numbers of COCO; -1 where a number is undefined because there are no objects.

    Attributes:
        statistics: The twelve by the names in `STATISTICS`.
        classes: Average precision over IoU 0.5:0.95 of each class, in order.
    """

    statistics: Mapping[str, float]
    classes: tuple[float, ...]


def coco_numbers(
    images: Sequence[CocoImage], num_classes: int, compare: Literal["bbox", "segm"] = "bbox"
) -> CocoNumbers:
    """Evaluate all images: IoU 0.5:0.95, at most 100 detections of a class in an image.

    The size of an object is the area in its annotation, as in COCO's own code; without one that of
    its mask or, if it has none, of its box.

    Args:
        images: Objects and detections; for "segm" all images have masks.
        num_classes: Classes without background.
        compare: Boxes or masks.
    """
    if not images:
        undefined = dict.fromkeys(STATISTICS, -1.0)
        return CocoNumbers(undefined, (-1.0,) * num_classes)
    objects = COCO(object_table(images, num_classes))
    detections = objects.loadRes(detection_table(images, masks=compare == "segm"))
    evaluation = COCOeval_faster(objects, detections, compare)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    numbers = (float(number) for number in evaluation.stats[: len(STATISTICS)])
    # IoU x recall x class x size x detections; the first size is all, the last count 100.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = tuple(_mean_of_defined(precision[:, :, index]) for index in range(num_classes))
    return CocoNumbers(dict(zip(STATISTICS, numbers, strict=True)), classes)


def _ignored(target: BoxTarget) -> Tensor:
    """Return which objects of an image COCO's code ignores, `(n,)` bool."""
    if target.stated is not None:  # Of a COCO file.
        return target.crowd
    return target.crowd | target.difficult


def _rows_of(stated: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(stated, dtype=np.float64).reshape(-1, 5)


def _mean_of_defined(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def object_table(images: Sequence[CocoImage], num_classes: int) -> dict[str, Any]:
    """Return the objects of all images in COCO's format."""
    rows = [row for image in images for row in _objects_of(image)]
    return {
        "images": [
            {"id": image.image_id, "height": image.size[0], "width": image.size[1]}
            for image in images
        ],
        "categories": [{"id": index, "name": str(index)} for index in range(num_classes)],
        "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
    }


def _objects_of(image: CocoImage) -> list[dict[str, Any]]:
    rows = [
        {"image_id": image.image_id, **_row(box, label), "iscrowd": int(ignored)}
        for box, label, ignored in zip(
            image.object_boxes, image.object_labels, image.ignored, strict=True
        )
    ]
    if image.object_masks is not None:
        masks = zip(rows, image.object_masks, areas_of(image.object_masks), strict=True)
        rows = [{**row, "segmentation": mask, "area": area} for row, mask, area in masks]
    if image.stated is None:
        return rows
    stated = zip(rows, image.stated.tolist(), strict=True)
    return [{**row, "bbox": sides, "area": area} for row, (*sides, area) in stated]


def detection_table(images: Sequence[CocoImage], *, masks: bool) -> list[dict[str, Any]]:
    """Return the detections of all images in COCO's format, with masks or with boxes."""
    return [
        {"image_id": image.image_id, **row, "score": float(score)}
        for image in images
        for row, score in zip(_detections_of(image, masks=masks), image.scores, strict=True)
    ]


def _detections_of(image: CocoImage, *, masks: bool) -> list[dict[str, Any]]:
    if masks:
        pairs = zip(image.masks or (), image.labels, strict=True)
        return [{"segmentation": mask, "category_id": int(label)} for mask, label in pairs]
    return [_row(*pair) for pair in zip(image.boxes, image.labels, strict=True)]


def _row(box: NDArray[np.float64], label: np.int64) -> dict[str, Any]:
    left, top, right, bottom = (float(side) for side in box)
    width, height = right - left, bottom - top
    return {
        "bbox": [left, top, width, height],
        "area": width * height,
        "category_id": int(label),
    }


class CocoAp:
    """Average precision of COCO; a `Metric`.

    Numbers: those of `STATISTICS`, and `ap/<label>` for each class. Numbers without objects are
    left out, except `map`, which is 0 then. If both objects and detections have masks, the same
    numbers for masks follow as `mask_map`, `mask_ap/<label>` and so on.

    Crowds are ignored: detections in them count neither as right nor as wrong. So are difficult
    objects of layouts other than COCO's. In a COCO file an object with `ignore` counts like any
    other, because COCO's own code replaces `ignore` by `iscrowd`.

    Args:
        labels: Class names.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._images: list[CocoImage] = []

    def update(self, predictions: Sequence[BoxPrediction], batch: Batch) -> None:
        """Keep the predictions and the objects of their images."""
        for prediction, target in zip(predictions, batch.targets, strict=True):
            self._images.append(
                CocoImage(
                    image_id=target.image_id,
                    object_boxes=original_boxes(target),
                    object_labels=target.labels.numpy(force=True),
                    ignored=_ignored(target).numpy(force=True),
                    boxes=prediction.boxes.numpy(force=True).astype(np.float64),
                    scores=prediction.scores.numpy(force=True).astype(np.float64),
                    labels=prediction.labels.numpy(force=True),
                    object_masks=target.outlines,
                    masks=None if prediction.masks is None else run_lengths(prediction.masks),
                    size=target.original_size,
                    stated=None if target.stated is None else _rows_of(target.stated),
                )
            )

    @property
    def images(self) -> tuple[CocoImage, ...]:
        """What was kept of every image."""
        return tuple(self._images)

    def compute(self) -> dict[str, float]:
        """Return the numbers of COCO that are defined, and the average precision of each class."""
        images = sorted(self._images, key=lambda image: image.image_id)
        named = self._named(coco_numbers(images, len(self.labels)))
        if images and all(image.has_masks for image in images):
            masks = self._named(coco_numbers(images, len(self.labels), "segm"))
            named |= {f"mask_{name}": value for name, value in masks.items()}
        return named

    def _named(self, numbers: CocoNumbers) -> dict[str, float]:
        classes = zip(self.labels, numbers.classes, strict=True)
        named = {**numbers.statistics, **{f"ap/{name}": value for name, value in classes}}
        return {"map": 0.0, **{name: value for name, value in named.items() if value >= 0}}

    def state(self) -> list[dict[str, Any]]:
        """Return the arrays of every image."""
        return [asdict(image) for image in self._images]

    def merge(self, state: list[dict[str, Any]]) -> None:
        """Add the images of another metric with the same labels."""
        self._images.extend(CocoImage(**image) for image in state)


def make_coco_ap(labels: Sequence[str], config: DetectConfig) -> CocoAp:
    """Return the metric that a detector's settings name `coco`."""
    return CocoAp(labels)
