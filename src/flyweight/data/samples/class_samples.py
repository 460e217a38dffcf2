"""Samples of a classification set: augmented for training, plain for evaluation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from flyweight.config.data import AugmentConfig, ClassAugment
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import ClassTarget
from flyweight.data.images import image_of, normalise, prepare
from flyweight.data.records import ClassSet
from flyweight.data.samples.sampling import SAMPLE, SampleRequest, keyed_random
from flyweight.data.samples.transforms import draw_mixup_share

Item = tuple[Tensor, ClassTarget]


@dataclass(frozen=True)
class ClassTrainSamples(Dataset[Item]):
    """Augmented images; `__getitem__` takes a `SampleRequest` of a `StepSampler`."""

    class_set: ClassSet
    preprocessing: Preprocessing
    augment: AugmentConfig
    seed: int

    def __getitem__(self, request: SampleRequest) -> Item:
        records, augment = self.class_set.records, self.augment.classify
        count, mixed = len(records), None
        with keyed_random(SAMPLE, self.seed, request.epoch, request.image):
            image, original_size = self._augmented(request.image, request.size)
            if augment.mixup_alpha is not None and count > 1:
                share = draw_mixup_share(augment.mixup_alpha)
                other = (request.image + int(torch.randint(1, count, ()))) % count
                # Normalised images are blended, so that nothing is rounded.
                image = image.lerp(self._augmented(other, request.size)[0], 1 - share)
                mixed = (records[other].label, share)
        target = ClassTarget(
            label=records[request.image].label,
            mixed=mixed,
            image_id=request.image,
            path=records[request.image].path or Path(),
            original_size=original_size,
        )
        return image, target

    def _augmented(self, index: int, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        image = image_of(self.class_set, index)
        height, width = image.shape[-2:]
        transforms = class_transforms(self.augment.classify, size, self.preprocessing)
        return normalise(transforms(image), self.preprocessing), (height, width)


@dataclass(frozen=True)
class ClassValSamples(Dataset[Item]):
    """Plain images; position `i` is the image with the index `indices[i]`."""

    class_set: ClassSet
    preprocessing: Preprocessing
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        index = self.indices[position]
        image = image_of(self.class_set, index)
        height, width = image.shape[-2:]
        record = self.class_set.records[index]
        target = ClassTarget(
            label=record.label,
            image_id=index,
            path=record.path or Path(),
            original_size=(height, width),
        )
        return prepare(image, self.preprocessing), target


def class_transforms(
    augment: ClassAugment, size: tuple[int, int], preprocessing: Preprocessing
) -> v2.Transform:
    """Return the augmentations of a `(3, h, w)` uint8 image, which also resize it to `size`.

    Random numbers come from the global CPU generator of torch, which the caller seeds.
    """
    fill = list(preprocessing.mean_colour)
    steps: list[v2.Transform] = [_crop(augment, size, preprocessing, fill)]
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.rand_augment is not None:
        operations, magnitude = augment.rand_augment
        steps.append(
            v2.RandAugment(
                operations, magnitude, interpolation=InterpolationMode.BILINEAR, fill=fill
            )
        )
    if augment.color:
        jitter = augment.color
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


def _crop(
    augment: ClassAugment, size: tuple[int, int], preprocessing: Preprocessing, fill: list[int]
) -> v2.Transform:
    if augment.crop == "none":
        return v2.Resize(
            list(size),
            interpolation=InterpolationMode(preprocessing.interpolation),
            antialias=preprocessing.antialias,
        )
    return v2.RandomResizedCrop(
        list(size),
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        interpolation=InterpolationMode(preprocessing.interpolation),
        antialias=preprocessing.antialias,
    )
