"""Readers of detection sets by layout: one table."""

from collections.abc import Callable, Mapping

from flyweight.config.data import DataConfig
from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.voc import read_voc
from flyweight.data.layouts.wider import read_wider
from flyweight.data.layouts.yolo_txt import read_yolo
from flyweight.data.records import BoxSet

READERS: Mapping[str, Callable[[DataConfig, str], BoxSet]] = {
    "voc": lambda config, split: read_voc(config.root, split, labels=config.labels),
    "coco": lambda config, split: read_coco(
        config.root, split, images=config.images, labels=config.labels, masks=config.masks
    ),
    "wider": lambda config, split: read_wider(
        config.root, split, images=config.images, labels=config.labels
    ),
    "yolo": lambda config, split: read_yolo(config.root, split, labels=config.labels),
}
"""The layouts of boxes on disk by `DataConfig.format`."""


def read_boxes(config: DataConfig, split: str) -> BoxSet:
    """Read one split of a detection set.

    Args:
        config: Layout and folder.
        split: Name of the split in the layout, see `DataConfig.train`.

    Raises:
        DataError: A file that the whole split depends on is missing or unreadable.
    """
    box_set = READERS[config.format](config, split)
    return box_set.without_difficult_flags() if config.use_difficult else box_set
