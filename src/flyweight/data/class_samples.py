"""What a classification set's pictures become: varied for training, as they are for evaluation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from flyweight.data.batch import ClassTarget
from flyweight.data.config import AugmentConfig, ClassAugment
from flyweight.data.pictures import normalise, picture_of, prepare
from flyweight.data.preprocess import Preprocessing
from flyweight.data.records import ClassSet
from flyweight.data.sampling import SAMPLE, Draw, keyed_random
from flyweight.data.transforms import draw_mixup_share

Item = tuple[Tensor, ClassTarget]


@dataclass(frozen=True)
class ClassTrainSamples(Dataset[Item]):
    """Varied pictures; `__getitem__` takes a `Draw` of a `StepSampler`."""

    class_set: ClassSet
    preprocessing: Preprocessing
    augment: AugmentConfig
    seed: int

    def __getitem__(self, draw: Draw) -> Item:
        records, augment = self.class_set.records, self.augment.classify
        count, mixed = len(records), None
        with keyed_random(SAMPLE, self.seed, draw.epoch, draw.picture):
            image, original_size = self._varied(draw.picture, draw.size)
            if augment.mixup_alpha is not None and count > 1:
                share = draw_mixup_share(augment.mixup_alpha)
                other = (draw.picture + int(torch.randint(1, count, ()))) % count
                # Of normalised pictures, so that nothing is rounded.
                image = image.lerp(self._varied(other, draw.size)[0], 1 - share)
                mixed = (records[other].label, share)
        target = ClassTarget(
            label=records[draw.picture].label,
            mixed=mixed,
            image_id=draw.picture,
            path=records[draw.picture].path or Path(),
            original_size=original_size,
        )
        return image, target

    def _varied(self, index: int, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        picture = picture_of(self.class_set, index)
        height, width = picture.shape[-2:]
        vary = class_transforms(self.augment.classify, size, self.preprocessing)
        return normalise(vary(picture), self.preprocessing), (height, width)


@dataclass(frozen=True)
class ClassValSamples(Dataset[Item]):
    """Pictures as they are; position `i` is picture `indices[i]`."""

    class_set: ClassSet
    preprocessing: Preprocessing
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        index = self.indices[position]
        picture = picture_of(self.class_set, index)
        height, width = picture.shape[-2:]
        record = self.class_set.records[index]
        target = ClassTarget(
            label=record.label,
            image_id=index,
            path=record.path or Path(),
            original_size=(height, width),
        )
        return prepare(picture, self.preprocessing), target


def class_transforms(
    augment: ClassAugment, size: tuple[int, int], preprocessing: Preprocessing
) -> v2.Transform:
    """Return the variations of `augment`, from a `(3, h, w)` uint8 picture to one of `size`.

    Randomness comes from torch's global CPU generator, which the caller seeds.
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
