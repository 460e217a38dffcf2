"""From a detection set to batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, TypedDict, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision.transforms.v2 import InterpolationMode

from flyweight.data.batch import Batch, BoxTarget
from flyweight.data.coco import read_coco
from flyweight.data.config import AugmentConfig, DataConfig
from flyweight.data.digits import make_digits
from flyweight.data.pictures import normalise, picture_of, prepare, read_picture
from flyweight.data.preprocess import Preprocessing
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.data.sampling import SAMPLE, WORKERS, Draw, StepSampler, Stream, key, keyed_random
from flyweight.data.transforms import (
    INTERPOLATIONS,
    Sample,
    draw_mixup_share,
    make_sample,
    mean_colour,
    mixup,
    resize_sample,
    training_transforms,
)
from flyweight.data.voc import read_voc
from flyweight.errors import ConfigError, DataError

__all__ = ["collate", "open_set", "prepare", "read_picture", "train_loader", "val_loader"]

Split = Literal["train", "val"]
Item = tuple[Tensor, BoxTarget]


class StreamOptions(TypedDict):
    """The fields of `sampling.Stream`, as `train_loader` takes them."""

    batch_size: Required[int]
    steps: Required[int]
    start_step: NotRequired[int]
    seed: NotRequired[int]
    rank: NotRequired[int]
    world_size: NotRequired[int]


def open_set(config: DataConfig, split: Split) -> BoxSet:
    """Read one split of a set.

    Raises:
        DataError: A file that the whole split depends on is missing or unreadable. What ails
            single pictures and boxes is left for `check`.
    """
    source = config.train if split == "train" else config.val
    if config.format == "digits":
        count = config.train_count if split == "train" else config.val_count
        return make_digits(split, count, size=config.size, seed=config.seed)
    if config.format == "voc":
        box_set = read_voc(config.root, source, labels=config.labels)
    else:
        box_set = read_coco(config.root, source, images=config.images, labels=config.labels)
    return box_set.without_difficult_flags() if config.use_difficult else box_set


def train_loader(
    box_set: BoxSet,
    *,
    preprocessing: Preprocessing,
    augment: AugmentConfig,
    num_workers: int = 0,
    **stream: Unpack[StreamOptions],
) -> DataLoader[Batch]:
    """Return the batches of the steps `start_step` to `steps` of an endless seeded stream.

    A step sees the same batch whatever the number of workers and wherever the run was resumed,
    and several devices see slices of the batch that one device would. The pictures left over at
    the end of an epoch wait for the next shuffling. Difficult objects and crowds are left out.

    Args:
        box_set: What to train on.
        preprocessing: Size and normalisation; `augment` may vary the size.
        augment: How pictures vary.
        num_workers: Processes that prepare batches ahead; 0 prepares them here.
        **stream: `batch_size` and `steps`, optionally `start_step`, `seed`, `rank` and
            `world_size`; see `sampling.Stream`.

    Raises:
        ConfigError: A number is out of range, or a step takes more pictures than there are.
        DataError: The set is empty, or on iteration a picture does not decode.
    """
    if not len(box_set):
        raise DataError(
            f"A training set must have pictures. Received '{box_set.name}' with none. "
            "Check the list that names them."
        )
    wanted = Stream(**stream)
    sizes = _sizes(preprocessing, augment)
    sampler = StepSampler(wanted, len(box_set), sizes, methods=len(INTERPOLATIONS))
    samples = _TrainSamples(box_set, preprocessing, augment, wanted.seed)
    return _loader(samples, num_workers, batch_sampler=sampler)


def val_loader(
    box_set: BoxSet,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Batch]:
    """Return all pictures in their order, unvaried; of several devices each takes its share.

    No picture is seen twice, so shares may differ by one. Difficult objects and crowds stay, with
    their flags.

    Raises:
        ConfigError: A number is out of range.
        DataError: On iteration, a picture does not decode.
    """
    Stream(batch_size, steps=0, rank=rank, world_size=world_size)
    indices = tuple(range(rank, len(box_set), world_size))
    samples = _ValSamples(box_set, preprocessing, indices)
    return _loader(samples, num_workers, batch_size=batch_size, sampler=SequentialSampler(samples))


def collate(items: list[Item]) -> Batch:
    """Stack pictures of one size into a batch."""
    return Batch(torch.stack([image for image, _ in items]), tuple(target for _, target in items))


@dataclass(frozen=True)
class _TrainSamples(Dataset[Item]):
    """Varied pictures; `__getitem__` takes a `Draw` of a `StepSampler`."""

    box_set: BoxSet
    preprocessing: Preprocessing
    augment: AugmentConfig
    seed: int

    def __getitem__(self, draw: Draw) -> Item:
        with keyed_random(SAMPLE, self.seed, draw.epoch, draw.picture):
            sample, original_size = self._varied(draw)
        interpolation, smooth = InterpolationMode(self.preprocessing.interpolation), False
        if self.augment.random_interpolation:
            interpolation, smooth = INTERPOLATIONS[draw.method]
        sample = resize_sample(sample, draw.size, interpolation, smooth=smooth)
        record = self.box_set.records[draw.picture]
        target = _target(sample, record, draw.picture, original_size, self.augment.max_boxes)
        return normalise(sample["image"].as_subclass(Tensor), self.preprocessing), target

    def _varied(self, draw: Draw) -> tuple[Sample, tuple[int, int]]:
        sample = self._ordinary(draw.picture)
        height, width = sample["image"].shape[-2:]
        augment, count = self.augment, len(self.box_set)
        epochs = augment.mixup_epochs
        early = epochs is None or draw.epoch < epochs
        if augment.mixup_alpha is not None and early and count > 1:
            share = draw_mixup_share(augment.mixup_alpha)
            other = (draw.picture + int(torch.randint(1, count, ()))) % count
            sample = mixup(sample, self._ordinary(other), share)
        fill = mean_colour(self.preprocessing.mean)
        return training_transforms(augment, fill=fill)(sample), (height, width)

    def _ordinary(self, index: int) -> Sample:
        """Return picture `index` with the objects that are neither difficult nor a crowd."""
        record = self.box_set.records[index]
        image = picture_of(self.box_set, index)
        sample = _sample(image, record)
        keep = ~(sample["difficult"] | sample["crowd"])
        if bool(keep.all()):
            return sample
        rows = {name: sample[name][keep] for name in sample if name not in ("image", "boxes")}
        return make_sample(image, sample["boxes"].as_subclass(Tensor)[keep], **rows)


@dataclass(frozen=True)
class _ValSamples(Dataset[Item]):
    """Pictures as they are; position `i` is picture `indices[i]`."""

    box_set: BoxSet
    preprocessing: Preprocessing
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        index = self.indices[position]
        picture = picture_of(self.box_set, index)
        record = self.box_set.records[index]
        height, width = picture.shape[-2:]
        scale = torch.tensor([self.preprocessing.width / width, self.preprocessing.height / height])
        sample = _sample(picture, record)
        sample["boxes"] = sample["boxes"].as_subclass(Tensor) * scale.repeat(2)
        target = _target(sample, record, index, (height, width), None)
        return prepare(picture, self.preprocessing), target


def _sample(image: Tensor, record: BoxRecord) -> Sample:
    """Return the picture with its boxes, clipped to it."""
    height, width = image.shape[-2:]
    boxes = torch.from_numpy(record.boxes)
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    return make_sample(
        image,
        boxes.clamp(min=torch.zeros(4), max=limit),
        labels=torch.from_numpy(record.labels),
        weights=torch.ones(len(boxes)),
        difficult=torch.from_numpy(record.difficult),
        crowd=torch.from_numpy(record.crowd),
    )


def _target(
    sample: Sample,
    record: BoxRecord,
    index: int,
    original_size: tuple[int, int],
    max_boxes: int | None,
) -> BoxTarget:
    return BoxTarget(
        boxes=sample["boxes"].as_subclass(Tensor)[:max_boxes],
        labels=sample["labels"][:max_boxes],
        weights=sample["weights"][:max_boxes],
        difficult=sample["difficult"][:max_boxes],
        crowd=sample["crowd"][:max_boxes],
        image_id=index,
        path=record.path or Path(),
        original_size=original_size,
    )


def _sizes(preprocessing: Preprocessing, augment: AugmentConfig) -> tuple[tuple[int, int], ...]:
    height, width = preprocessing.height, preprocessing.width
    if augment.multi_scale is None:
        return ((height, width),)
    if height != width:
        raise ConfigError(
            "multi_scale must go with a square preprocessing. "
            f"Received {height}x{width}. Leave multi_scale out or make the sides equal."
        )
    return tuple((side, side) for side in augment.multi_scale)


def _loader(
    samples: Dataset[Item],
    num_workers: int,
    *,
    batch_sampler: StepSampler | None = None,
    sampler: SequentialSampler | None = None,
    batch_size: int = 1,
) -> DataLoader[Batch]:
    # A generator of its own, for a DataLoader draws from the global one each time it starts.
    generator = torch.Generator().manual_seed(key(WORKERS))
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=batch_size,
        sampler=sampler,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=generator,
    )
    return loader
