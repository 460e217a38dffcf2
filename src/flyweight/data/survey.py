"""Survey of a split: numbers of images and classes, sizes of images and objects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from flyweight.data.layouts.image_files import size_of
from flyweight.data.records import BoxSet, ClassSet, ImageSet
from flyweight.errors import DataError

_THREADS = 4
_MOST_SIZES = 2_000


@dataclass(frozen=True)
class Survey:
    """What a split holds.

    Attributes:
        images: Number of images.
        labels: Class names.
        counts: Objects of each class; of a set of classes, its images; empty for label images.
        sizes: Height and width of the images in pixels, of at most 2,000 of them.
        object_share: Median side of an object as a share of the side of its image, both as square
            roots of areas; None without boxes.
    """

    images: int
    labels: tuple[str, ...]
    counts: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]
    object_share: float | None

    @property
    def median_size(self) -> tuple[int, int]:
        """Median height and median width in pixels."""
        heights, widths = zip(*self.sizes, strict=True)
        return round(float(np.median(heights))), round(float(np.median(widths)))

    @property
    def one_shape(self) -> bool:
        """Whether nearly all images have about the same ratio of width to height."""
        ratios = np.array([width / height for height, width in self.sizes])
        return bool(np.quantile(ratios, 0.95) <= 1.25 * np.quantile(ratios, 0.05))


def survey(images: ImageSet) -> Survey:
    """Survey a split. Of the images only headers are read.

    Raises:
        DataError: None of the images can be read.
    """
    every = max(1, -(-len(images) // _MOST_SIZES))
    indices = range(0, len(images), every)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda index: _size(images, index), indices))
    sizes = {index: size for index, size in zip(indices, found, strict=True) if size is not None}
    if not sizes:
        raise DataError(
            f"A split must have readable images. Received '{images.name}' with {len(images)} "
            "images, of which none can be read. Check the paths in its list."
        )
    return Survey(
        len(images), images.labels, _counts(images), tuple(sizes.values()), _share(images, sizes)
    )


def _size(images: ImageSet, index: int) -> tuple[int, int] | None:
    try:
        return size_of(images, index)
    except DataError:
        return None  # The check names it.


def _counts(images: ImageSet) -> dict[str, int]:
    found: Counter[int] = Counter()
    if isinstance(images, BoxSet):
        for record in images.records:
            found.update(record.labels.tolist())
    elif isinstance(images, ClassSet):
        found.update(record.label for record in images.records)
    else:
        return {}
    return {name: found[index] for index, name in enumerate(images.labels)}


def _share(images: ImageSet, sizes: Mapping[int, tuple[int, int]]) -> float | None:
    if not isinstance(images, BoxSet):
        return None
    shares: list[float] = []
    for index, (height, width) in sizes.items():
        sides: Sequence[Sequence[float]] = images.records[index].boxes.tolist()
        areas = [(right - left) * (low - top) for left, top, right, low in sides]
        shares += [(area / (height * width)) ** 0.5 for area in areas if area > 0]
    return float(np.median(shares)) if shares else None
