"""Variants of an example: the same inputs at another image size and another batch size.

A run on one example shows what the code does at that size. Sizes that are equal by chance, and code
that runs only at another size, show when the sizes change (design note 0022).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.graph.example_inputs import Example

_SMALL = 128
"""From this many rows on, a smaller image is tried first, because checks compute its values."""
_LARGEST_STEP = 32


def variants(example: Example) -> Iterator[Example]:
    """Yield the example at other sizes, the most informative first.

    A network may accept none of them. Values are repeated or left out, so that indices and masks
    stay valid.

    Args:
        example: Tensors of shape `(batch, channels, rows, columns)` are images, and so are tensors
            `(channels, rows, columns)` in a list. Of the others, axes whose size equals one that
            changes change alike. Without images, tensors `(batch, positions, channels)`,
            `(batch, channels, positions)` and `(batch, positions)` change their positions.
    """
    batch = _batch_of(example)
    for sizes in _other_sizes(example):
        for larger in (True, False) if batch else (False,):
            yield _resized(example, _Change(batch if larger else None, sizes))
    if batch:
        yield _resized(example, _Change(batch, {}))


def doubled(example: Example) -> Example:
    """Return the example with its batch repeated, for normalisation over a batch of one."""
    batch = _batch_of(example)
    return _resized(example, _Change(batch, {}, 2 * batch)) if batch else example


@dataclass(frozen=True)
class _Change:
    """Other sizes.

    Attributes:
        batch: The batch size that changes; None keeps it.
        sizes: Other sizes by size, of all axes but the first.
        to: The other batch size; by default one more.
    """

    batch: int | None
    sizes: Mapping[int, int]
    to: int | None = None


def _batch_of(example: Example) -> int | None:
    """Return the size of the first axis, if the tensors agree on it."""
    if _listed_images(example):
        return None
    leading = {tensor.shape[0] for _, tensor in example.tensors() if tensor.ndim > 1}
    return leading.pop() if len(leading) == 1 and 0 not in leading else None


def _listed_images(example: Example) -> list[Tensor]:
    """Return images without a batch axis, which detectors take as a list."""
    return [
        tensor
        for place, tensor in example.tensors()
        if place.count("[") > 1 and tensor.ndim == 3 and tensor.shape[0] in (1, 3)
    ]


def _other_sizes(example: Example) -> Iterator[Mapping[int, int]]:
    for spatial in _spatial(example):
        for change in _OPTIONS if min(spatial) >= _SMALL else _OPTIONS[1:]:
            yield {size: change(place, size, _step(size)) for place, size in enumerate(spatial)}


def _spatial(example: Example) -> list[tuple[int, ...]]:
    """Return lists of sizes that change together, one for each guess at where positions lie."""
    tensors = [tensor for _, tensor in example.tensors()]
    images = [tensor.shape[2:] for tensor in tensors if tensor.ndim > 3]
    images += [tensor.shape[1:] for tensor in _listed_images(example)]
    if images:
        return [tuple(dict.fromkeys(images[0]))] if min(images[0]) > 1 else []
    sequences = [axis for tensor in _of_rank(tensors, 3)[:1] for axis in tensor.shape[1:]]
    sequences += [
        tensor.shape[1] for tensor in _of_rank(tensors, 2)[:1] if not tensor.is_floating_point()
    ]
    return [(size,) for size in dict.fromkeys(sequences) if size > 1]


def _of_rank(tensors: list[Tensor], rank: int) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.ndim == rank]


def _step(size: int) -> int:
    """Return the largest power of two that divides a size: strides must continue to fit."""
    return min(size & -size, _LARGEST_STEP)


def _smaller(place: int, size: int, step: int) -> int:
    return max(round(size * (5 + place) / 8 / step), 1) * step


_OPTIONS: tuple[Callable[[int, int, int], int], ...] = (
    _smaller,
    lambda place, size, step: size + (1 + place) * step,
    lambda _, size, step: size + step,
    lambda _, size, __: 2 * size,
)
"""Rows and columns as functions of place, size and step: first two that are no longer equal."""


def _resized(example: Example, change: _Change) -> Example:
    def resized(tensor: Tensor) -> Tensor:
        image = tensor.ndim > 3
        for axis, size in enumerate(tensor.shape):
            if axis == 0 and tensor.ndim > 1 and size == change.batch:
                tensor = _repeated(tensor, 0, change.to or size + 1)
            elif (axis > 1 or (axis == 1 and not image)) and size in change.sizes:
                tensor = _repeated(tensor, axis, change.sizes[size])
        return tensor

    return example.mapped(resized)


def _repeated(tensor: Tensor, axis: int, size: int) -> Tensor:
    """Return a tensor with another size along an axis: shortened, or repeated from its start."""
    places = torch.arange(size, device=tensor.device if not tensor.is_meta else "cpu")
    places = places % tensor.shape[axis]
    return tensor.index_select(axis, places.to(tensor.device))
