"""Drawing of a segmentation: colours of the classes over the image, and their names."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from flyweight.tasks.drawing.colours import class_colour
from flyweight.tasks.drawing.tags import with_tags

Labels = npt.NDArray[np.uint8]

_COVER = 0.5  # Share of the colour over the image.
_NAMED_FROM = 0.005  # Least share of the image for which a class is named.


def draw_map(image: Image.Image, labels: Labels, names: Sequence[str]) -> Image.Image:
    """Return a copy of `image`, RGB, with the colours and names of its classes over it.

    A class called "background" has no colour: its pixels stay as they are.

    Args:
        image: Of any mode.
        labels: `(h, w)`, the class of every pixel.
        names: Class names.
    """
    colours = np.array([class_colour(index) for index in range(256)], dtype=np.float32)
    canvas = np.asarray(image.convert("RGB"), dtype=np.float32)
    cover = np.full(256, _COVER, dtype=np.float32)
    cover[[index for index, name in enumerate(names) if name == "background"]] = 0
    weight = cover[labels][..., None]
    mixed = canvas * (1 - weight) + colours[labels] * weight
    edges = _edges(labels)
    # Full colour along the borders separates neighbours of similar colours.
    mixed[edges] = np.where(weight[edges] > 0, colours[labels[edges]], canvas[edges])
    drawn = Image.fromarray(np.rint(mixed).astype(np.uint8))
    shares = np.bincount(labels.ravel(), minlength=len(names))[: len(names)] / labels.size
    order = [int(index) for index in np.argsort(-shares, kind="stable")]
    shown = [index for index in order if shares[index] >= _NAMED_FROM and cover[index]]
    return with_tags(drawn, [(names[index], index) for index in shown])


def _edges(labels: Labels) -> npt.NDArray[np.bool_]:
    edges = np.zeros(labels.shape, dtype=np.bool_)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    return edges
