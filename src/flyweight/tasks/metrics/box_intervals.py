"""Main metric of a detector on resampled images, whichever metric it is."""

from typing import Any

from flyweight.data.records import BoxSet
from flyweight.tasks.metrics.coco_ap import CocoAp
from flyweight.tasks.metrics.coco_intervals import resampled_coco
from flyweight.tasks.metrics.voc_intervals import objects_per_image, resampled_map
from flyweight.tasks.metrics.voc_map import Floats, Integers, VocMap
from flyweight.tasks.metrics.wider_ap import WiderAp
from flyweight.tasks.metrics.wider_intervals import resampled_wider


def resampled_metric(metric: Any, images: BoxSet, draws: Integers) -> Floats | None:
    """Return the main metric on resamples, `(resamples,)`; None for a metric of the user's own.

    Of a large set there may be fewer resamples than `draws`; they are the first ones.

    Args:
        metric: After all images of the split.
        images: The split.
        draws: How often each resample contains each image, `(resamples, images)`.
    """
    if isinstance(metric, VocMap):
        return resampled_map(metric.state(), objects_per_image(images), draws, metric.method)
    if isinstance(metric, CocoAp):
        return resampled_coco(metric.images, len(metric.labels), draws)
    if isinstance(metric, WiderAp):
        return resampled_wider(metric.images, draws)
    return None
