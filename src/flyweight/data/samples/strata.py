"""Stratified order of images: every beginning of the order represents the whole set."""

from collections import Counter
from collections.abc import Hashable

import numpy as np

from flyweight.data.records import BoxSet, ClassSet, ImageSet


def stratified_order(images: ImageSet, seed: int = 0) -> tuple[int, ...]:
    """Return the positions of all images, shuffled within strata that are mixed evenly.

    A stratum of m images has one image in every m-th part of the order. Strata of a classification
    set are the classes. Strata of a detection set are pairs of the rarest class in the image and
    the number of objects by powers of two. A segmentation set is one stratum, because its labels
    would have to be read.

    Args:
        images: One split.
        seed: Seed of the shuffling.

    Example:
        >>> from flyweight.data.records import ClassRecord
        >>> records = tuple(ClassRecord(None, int(i >= 6), None) for i in range(8))
        >>> order = stratified_order(ClassSet("cats", ("a", "b"), records))
        >>> sorted(order) == list(range(8)), sum(i >= 6 for i in order[:4])
        (True, 1)
    """
    generator = np.random.default_rng(seed)
    strata: dict[Hashable, list[int]] = {}
    for index, key in enumerate(_keys(images)):
        strata.setdefault(key, []).append(index)
    places: list[tuple[float, int]] = []
    for members in strata.values():
        shuffled = generator.permutation(members)
        offsets = generator.random(len(members))
        parts = (np.arange(len(members)) + offsets) / len(members)
        places += zip(parts.tolist(), shuffled.tolist(), strict=True)
    return tuple(index for _, index in sorted(places))


def _keys(images: ImageSet) -> list[Hashable]:
    if isinstance(images, ClassSet):
        return [record.label for record in images.records]
    if isinstance(images, BoxSet):
        labels = [record.labels.tolist() for record in images.records]
        counts = Counter(label for found in labels for label in set(found))
        return [
            (min(found, key=lambda label: (counts[label], label)), len(found).bit_length())
            if found
            else None
            for found in labels
        ]
    return [None] * len(images)
