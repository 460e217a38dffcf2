"""Samples of a segmentation set: augmented for training, plain for evaluation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from flyweight.config.data import AugmentConfig, MapAugment
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import IGNORE, MapTarget
from flyweight.data.images import image_of, normalise, prepare
from flyweight.data.layouts.map_files import map_of
from flyweight.data.records import MapSet
from flyweight.data.samples.sampling import SAMPLE, SampleRequest, keyed_random

Item = tuple[Tensor, MapTarget]


@dataclass(frozen=True)
class MapTrainSamples(Dataset[Item]):
    """Augmented images; `__getitem__` takes a `SampleRequest` of a `StepSampler`."""

    map_set: MapSet
    preprocessing: Preprocessing
    augment: AugmentConfig
    seed: int

    def __getitem__(self, request: SampleRequest) -> Item:
        augment = self.augment.segment
        image, labels = _pair_of(self.map_set, request.image)
        height, width = image.shape[-2:]
        with keyed_random(SAMPLE, self.seed, request.epoch, request.image):
            image, labels = _scaled(image, labels, augment, self.preprocessing)
            image, labels = _cut(image, labels, augment.crop or request.size, self.preprocessing)
            image, labels = _augmented(image, labels, augment)
        target = MapTarget(
            labels=labels,
            image_id=request.image,
            path=self.map_set.records[request.image].path or Path(),
            original_size=(height, width),
        )
        return normalise(image, self.preprocessing), target


@dataclass(frozen=True)
class MapValSamples(Dataset[Item]):
    """Plain images; position `i` is the image with the index `indices[i]`."""

    map_set: MapSet
    preprocessing: Preprocessing
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        index = self.indices[position]
        image, full = _pair_of(self.map_set, index)
        height, width = image.shape[-2:]
        target = MapTarget(
            labels=_labels_at_input(full, self.preprocessing),
            full=full,
            scale=self.preprocessing.scale(height, width),
            image_id=index,
            path=self.map_set.records[index].path or Path(),
            original_size=(height, width),
        )
        return prepare(image, self.preprocessing), target


def _pair_of(map_set: MapSet, index: int) -> tuple[Tensor, Tensor]:
    """Return image `(3, h, w)` and labels `(h, w)`, both uint8."""
    return image_of(map_set, index), torch.from_numpy(map_of(map_set, index))


def _labels_at_input(labels: Tensor, preprocessing: Preprocessing) -> Tensor:
    resized = _resized_labels(labels, preprocessing.resized(*labels.shape))
    return _padded(resized, (preprocessing.height, preprocessing.width), IGNORE)


def _scaled(
    image: Tensor, labels: Tensor, augment: MapAugment, preprocessing: Preprocessing
) -> tuple[Tensor, Tensor]:
    """Resize both to a random multiple of the size in evaluation."""
    low, high = augment.scale
    factor = low + (high - low) * float(torch.rand(()))
    height, width = preprocessing.resized(*labels.shape)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    method = InterpolationMode(preprocessing.interpolation)
    antialias = preprocessing.antialias
    resized = transform.resize(image, list(size), interpolation=method, antialias=antialias)
    return resized, _resized_labels(labels, size)


def _cut(
    image: Tensor, labels: Tensor, size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[Tensor, Tensor]:
    """Pad both to at least `size` and crop a random part of that size."""
    fill = torch.tensor(preprocessing.mean_colour, dtype=torch.uint8)
    height, width = (max(have, want) for have, want in zip(labels.shape, size, strict=True))
    canvas = fill[:, None, None].repeat(1, height, width)
    canvas[:, : labels.shape[0], : labels.shape[1]] = image
    labels = _padded(labels, (height, width), IGNORE)
    top = int(torch.randint(height - size[0] + 1, ()))
    left = int(torch.randint(width - size[1] + 1, ()))
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return canvas[:, rows, columns], labels[rows, columns]


def _augmented(image: Tensor, labels: Tensor, augment: MapAugment) -> tuple[Tensor, Tensor]:
    pair = (tv_tensors.Image(image), tv_tensors.Mask(labels))
    if augment.flip:
        pair = v2.RandomHorizontalFlip()(*pair)
    if augment.color:
        jitter = augment.color
        pair = v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter)(*pair)
    image, mask = pair
    return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def _resized_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `(h, w)` labels at `size`; each pixel gets the label at its centre."""
    method = InterpolationMode.NEAREST_EXACT
    resized: Tensor = transform.resize(labels[None], list(size), interpolation=method)[0]
    return resized


def _padded(labels: Tensor, size: tuple[int, int], value: int) -> Tensor:
    height, width = labels.shape
    return pad(labels, (0, size[1] - width, 0, size[0] - height), value=value)
