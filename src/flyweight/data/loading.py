"""Loaders: from the configuration of a data set to batches."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, TypedDict, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from flyweight.config.data import AugmentConfig, DataConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import Batch
from flyweight.data.images import prepare, read_image
from flyweight.data.layouts.box_readers import READERS as BOX_READERS
from flyweight.data.layouts.box_readers import read_boxes
from flyweight.data.layouts.class_sets import read_class_folders, read_class_list
from flyweight.data.layouts.digit_sets import make_digit_classes, make_digit_maps
from flyweight.data.layouts.digits import make_digits
from flyweight.data.layouts.listing import folders_in
from flyweight.data.layouts.map_sets import read_cityscapes, read_maps
from flyweight.data.recognition.doubts import is_doubtful
from flyweight.data.records import BoxSet, ClassSet, ImageSet, MapSet
from flyweight.data.samples.box_samples import BoxTrainSamples, BoxValSamples
from flyweight.data.samples.class_samples import ClassTrainSamples, ClassValSamples
from flyweight.data.samples.map_samples import MapTrainSamples, MapValSamples
from flyweight.data.samples.sampling import WORKERS, StepSampler, Stream, key
from flyweight.data.samples.transforms import INTERPOLATIONS
from flyweight.errors import ConfigError, DataError
from flyweight.on_demand import load

__all__ = ["collate", "open_set", "prepare", "read_image", "train_loader", "val_loader"]

Split = Literal["train", "val"]
_OTHER_LAYOUT = "flyweight.data.recognition.recognise:other_layout"  # imports PIL
Item = tuple[Tensor, Any]

SAMPLES: dict[type[ImageSet], tuple[Any, Any]] = {
    BoxSet: (BoxTrainSamples, BoxValSamples),
    ClassSet: (ClassTrainSamples, ClassValSamples),
    MapSet: (MapTrainSamples, MapValSamples),
}
"""Kind of set -> classes of its samples for training and for evaluation."""


class StreamOptions(TypedDict):
    """The fields of `sampling.Stream`, as `train_loader` takes them."""

    batch_size: Required[int]
    steps: Required[int]
    start_step: NotRequired[int]
    seed: NotRequired[int]
    rank: NotRequired[int]
    world_size: NotRequired[int]


def open_set(config: DataConfig, split: Split) -> ImageSet:
    """Read one split of a set.

    Raises:
        DataError: A file that the whole split depends on is missing or unreadable, or the folder
            has another layout. Problems of single images and annotations are
            found by `check`.
    """
    try:
        found = READERS[config.format](config, split)
    except DataError as error:
        other = load(_OTHER_LAYOUT)(config, _source(config, split))
        if other is None:
            raise
        raise _other_layout(config, other) from error
    if not config.made_up and is_doubtful(found):
        other = load(_OTHER_LAYOUT)(config, _source(config, split))
        if other is not None:
            raise _other_layout(config, other)
    return found


def _other_layout(config: DataConfig, other: str) -> DataError:
    return DataError(
        f"The layout of a set must be that of data.format. Received data.format="
        f"{config.format} for '{config.root}', whose files have the layout {other}. Set "
        f"data.format={other}, or write a config for it: flyweight init {config.root}"
    )


def _source(config: DataConfig, split: Split) -> str:
    return config.train if split == "train" else config.val


def _boxes(config: DataConfig, split: Split) -> ImageSet:
    return read_boxes(config, _source(config, split))


def _imagefolder(config: DataConfig, split: Split) -> ImageSet:
    # Both splits have one numbering: that of the class folders of the training split, if it exists.
    labels = config.labels or folders_in(Path(config.root) / config.train) or None
    return read_class_folders(config.root, _source(config, split), labels=labels)


def _class_list(config: DataConfig, split: Split) -> ImageSet:
    return read_class_list(config.root, _source(config, split), labels=config.labels)


def _masks(config: DataConfig, split: Split) -> ImageSet:
    source = _source(config, split)
    return read_maps(config.root, source, labels=config.labels, values=config.values)


def _cityscapes(config: DataConfig, split: Split) -> ImageSet:
    return read_cityscapes(config.root, _source(config, split))


def _made(make: Callable[..., ImageSet], config: DataConfig, split: Split) -> ImageSet:
    count = config.train_count if split == "train" else config.val_count
    return make(split, count, size=config.size, seed=config.seed)


READERS: Mapping[str, Callable[[DataConfig, Split], ImageSet]] = {
    **dict.fromkeys(BOX_READERS, _boxes),
    "imagefolder": _imagefolder,
    "class_list": _class_list,
    "masks": _masks,
    "cityscapes": _cityscapes,
    "digits": partial(_made, make_digits),
    "digits_classes": partial(_made, make_digit_classes),
    "digits_maps": partial(_made, make_digit_maps),
}
"""`DataConfig.format` -> reader."""


def train_loader(
    images: ImageSet,
    *,
    preprocessing: Preprocessing,
    augment: AugmentConfig,
    num_workers: int = 0,
    **stream: Unpack[StreamOptions],
) -> DataLoader[Batch]:
    """Return the batches of the steps `start_step` to `steps` of an endless seeded stream.

    The batch of a step depends neither on the number of workers nor on where the run was resumed.
    Several devices get slices of the batch that one device would get. Images that are left at the
    end of an epoch are not used in this epoch. Difficult objects and crowds are left out.

    Args:
        images: The training split.
        preprocessing: Size and normalisation; `augment` may vary the size.
        augment: The augmentations.
        num_workers: Processes that prepare batches in advance; 0 prepares them in this process.
        **stream: `batch_size` and `steps`, optionally `start_step`, `seed`, `rank` and
            `world_size`; see `sampling.Stream`.

    Raises:
        ConfigError: A number is out of range, or a step takes more images than there are.
        DataError: The set is empty, or on iteration an image does not decode.
    """
    if not len(images):
        raise DataError(
            f"A training set must have images. Received '{images.name}' with none. "
            "Check the list that names them."
        )
    wanted = Stream(**stream)
    sizes = _sizes(preprocessing, augment)
    sampler = StepSampler(wanted, len(images), sizes, methods=len(INTERPOLATIONS))
    samples = _samples_of(images)[0](images, preprocessing, augment, wanted.seed)
    return _loader(samples, num_workers, batch_sampler=sampler)


def val_loader(
    images: ImageSet,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    order: Sequence[int] | None = None,
) -> DataLoader[Batch]:
    """Return all images without augmentation, in their order or in `order`.

    Each device gets a share. No image is repeated, so the shares may differ by one image. Difficult
    objects and crowds are kept, with their flags.

    Raises:
        ConfigError: A number is out of range.
        DataError: On iteration, an image does not decode.
    """
    Stream(batch_size, steps=0, rank=rank, world_size=world_size)
    wanted = range(len(images)) if order is None else order
    indices = tuple(wanted[rank::world_size])
    samples = _samples_of(images)[1](images, preprocessing, indices)
    return _loader(samples, num_workers, batch_size=batch_size, sampler=SequentialSampler(samples))


def collate(items: list[Item]) -> Batch:
    """Stack images of one size into a batch."""
    return Batch(torch.stack([image for image, _ in items]), tuple(target for _, target in items))


def _samples_of(images: ImageSet) -> tuple[Any, Any]:
    if type(images) not in SAMPLES:
        raise ConfigError(
            "A data set must be of a kind that can be loaded. "
            f"Received: {type(images).__name__}. "
            f"Known: {', '.join(kind.__name__ for kind in SAMPLES)}."
        )
    return SAMPLES[type(images)]


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
    # A separate generator, because a DataLoader otherwise draws from the global one at each start.
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
        worker_init_fn=_leave_signals_to_parent,
        generator=generator,
    )
    return loader


def _leave_signals_to_parent(_: int) -> None:
    """Keep Ctrl-C from a worker: it goes to all processes, and the parent may need one more batch.

    A worker ends when its parent does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        # `timeout` and others send SIGTERM to a whole process group.
        os.setpgid(0, 0)
