"""Average precision as COCO counts it, by faster-coco-eval.

Boxes are continuous, as in COCO's files: a width is the difference of its sides. The originals took
one pixel off every object when reading and put it back on every detection when writing, which
comes to the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.data.batch import Batch, BoxPrediction
from flyweight.tasks.masks import areas_of, run_lengths
from flyweight.tasks.scale import original_boxes

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
"""COCO's twelve numbers in their order: precision, then recall by detections per picture."""


@dataclass(frozen=True)
class CocoPicture:
    """One picture's objects and detections, xyxy in pixels of the picture on disk.

    Attributes:
        image_id: Position of the picture in its set.
        object_boxes: `(n, 4)` float64.
        object_labels: `(n,)` int64.
        ignored: `(n,)` bool, regions in which detections neither count nor punish.
        boxes: `(m, 4)` float64, detections.
        scores: `(m,)` float64.
        labels: `(m,)` int64.
        object_masks: Run lengths, one per object; None where they are not known.
        masks: Likewise of the detections.
        size: Height and width of the picture.
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

    @property
    def has_masks(self) -> bool:
        """Whether masks can be compared."""
        return self.object_masks is not None and self.masks is not None


@dataclass(frozen=True)
class CocoNumbers:
    """COCO's numbers; -1 is one that is not defined, for want of objects.

    Attributes:
        statistics: The twelve by the names in `STATISTICS`.
        classes: Average precision over IoU 0.5:0.95 of each class, in order.
    """

    statistics: Mapping[str, float]
    classes: tuple[float, ...]


def coco_numbers(
    pictures: Sequence[CocoPicture], num_classes: int, compare: Literal["bbox", "segm"] = "bbox"
) -> CocoNumbers:
    """Evaluate all pictures: IoU 0.5:0.95, at most 100 detections of a class in a picture.

    The size of an object is that of its mask or, where it has none, of its box.

    Args:
        pictures: What to evaluate; for "segm" all have masks.
        num_classes: Classes without background.
        compare: Boxes or masks.
    """
    if not pictures:
        undefined = dict.fromkeys(STATISTICS, -1.0)
        return CocoNumbers(undefined, (-1.0,) * num_classes)
    from faster_coco_eval import COCO, COCOeval_faster

    objects = COCO(_object_table(pictures, num_classes))
    detections = objects.loadRes(_detection_table(pictures, masks=compare == "segm"))
    evaluation = COCOeval_faster(objects, detections, compare)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    numbers = (float(number) for number in evaluation.stats[: len(STATISTICS)])
    # IoU x recall x class x size x detections; the first size is all, the last count 100.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = tuple(_mean_of_defined(precision[:, :, index]) for index in range(num_classes))
    return CocoNumbers(dict(zip(STATISTICS, numbers, strict=True)), classes)


def _mean_of_defined(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _object_table(pictures: Sequence[CocoPicture], num_classes: int) -> dict[str, Any]:
    rows = [row for picture in pictures for row in _objects_of(picture)]
    return {
        "images": [
            {"id": picture.image_id, "height": picture.size[0], "width": picture.size[1]}
            for picture in pictures
        ],
        "categories": [{"id": index, "name": str(index)} for index in range(num_classes)],
        "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
    }


def _objects_of(picture: CocoPicture) -> list[dict[str, Any]]:
    rows = [
        {"image_id": picture.image_id, **_row(box, label), "iscrowd": int(ignored)}
        for box, label, ignored in zip(
            picture.object_boxes, picture.object_labels, picture.ignored, strict=True
        )
    ]
    if picture.object_masks is None:
        return rows
    masks = picture.object_masks
    return [
        {**row, "segmentation": mask, "area": area}
        for row, mask, area in zip(rows, masks, areas_of(masks), strict=True)
    ]


def _detection_table(pictures: Sequence[CocoPicture], *, masks: bool) -> list[dict[str, Any]]:
    return [
        {"image_id": picture.image_id, **row, "score": float(score)}
        for picture in pictures
        for row, score in zip(_detections_of(picture, masks=masks), picture.scores, strict=True)
    ]


def _detections_of(picture: CocoPicture, *, masks: bool) -> list[dict[str, Any]]:
    if masks:
        pairs = zip(picture.masks or (), picture.labels, strict=True)
        return [{"segmentation": mask, "category_id": int(label)} for mask, label in pairs]
    return [_row(*pair) for pair in zip(picture.boxes, picture.labels, strict=True)]


def _row(box: NDArray[np.float64], label: np.int64) -> dict[str, Any]:
    left, top, right, bottom = (float(side) for side in box)
    width, height = right - left, bottom - top
    return {
        "bbox": [left, top, width, height],
        "area": width * height,
        "category_id": int(label),
    }


class CocoAp:
    """COCO's average precision; a `Metric`.

    Numbers: those of `STATISTICS` and `ap/<label>` for each class. What has no objects to be
    measured on is left out, except `map`, which is 0 then. Where both objects and detections have
    masks, the same numbers of these follow as `mask_map`, `mask_ap/<label>` and so on. Difficult
    objects are treated like crowds, as regions in which detections neither count nor punish.

    Args:
        labels: Class names.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._pictures: list[CocoPicture] = []

    def update(self, predictions: Sequence[BoxPrediction], batch: Batch) -> None:
        """Keep the predictions and the objects of their pictures."""
        for prediction, target in zip(predictions, batch.targets, strict=True):
            self._pictures.append(
                CocoPicture(
                    image_id=target.image_id,
                    object_boxes=original_boxes(target),
                    object_labels=target.labels.numpy(force=True),
                    ignored=(target.crowd | target.difficult).numpy(force=True),
                    boxes=prediction.boxes.numpy(force=True).astype(np.float64),
                    scores=prediction.scores.numpy(force=True).astype(np.float64),
                    labels=prediction.labels.numpy(force=True),
                    object_masks=target.outlines,
                    masks=None if prediction.masks is None else run_lengths(prediction.masks),
                    size=target.original_size,
                )
            )

    def compute(self) -> dict[str, float]:
        """Return the defined ones of COCO's numbers, and each class's average precision."""
        pictures = sorted(self._pictures, key=lambda picture: picture.image_id)
        named = self._named(coco_numbers(pictures, len(self.labels)))
        if pictures and all(picture.has_masks for picture in pictures):
            masks = self._named(coco_numbers(pictures, len(self.labels), "segm"))
            named |= {f"mask_{name}": value for name, value in masks.items()}
        return named

    def _named(self, numbers: CocoNumbers) -> dict[str, float]:
        classes = zip(self.labels, numbers.classes, strict=True)
        named = {**numbers.statistics, **{f"ap/{name}": value for name, value in classes}}
        return {"map": 0.0, **{name: value for name, value in named.items() if value >= 0}}

    def state(self) -> list[dict[str, Any]]:
        """Return every picture's arrays."""
        return [asdict(picture) for picture in self._pictures]

    def merge(self, state: list[dict[str, Any]]) -> None:
        """Add the pictures another metric of the same labels has seen."""
        self._pictures.extend(CocoPicture(**picture) for picture in state)
