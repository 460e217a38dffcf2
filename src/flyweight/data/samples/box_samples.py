"""Samples of a detection set: augmented for training, plain for evaluation."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode

from flyweight.config.data import AugmentConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import BoxTarget
from flyweight.data.images import image_of, normalise, padded, prepare
from flyweight.data.layouts.outlines import masks_of, run_lengths_of
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.data.samples.sampling import SAMPLE, SampleRequest, keyed_random
from flyweight.data.samples.transforms import (
    INTERPOLATIONS,
    ROWS,
    Sample,
    draw_mixup_share,
    make_sample,
    mixup,
    resize_sample,
    training_transforms,
)
from flyweight.errors import ConfigError

Item = tuple[Tensor, BoxTarget]


@dataclass(frozen=True)
class BoxTrainSamples(Dataset[Item]):
    """Augmented images; `__getitem__` takes a `SampleRequest` of a `StepSampler`."""

    box_set: BoxSet
    preprocessing: Preprocessing
    augment: AugmentConfig
    seed: int

    def __getitem__(self, request: SampleRequest) -> Item:
        with keyed_random(SAMPLE, self.seed, request.epoch, request.image):
            sample, original_size = self._augmented(request)
        interpolation, smooth = InterpolationMode(self.preprocessing.interpolation), False
        if self.augment.random_interpolation:
            interpolation, smooth = INTERPOLATIONS[request.method]
        size = self._size(sample, request)
        sample = resize_sample(sample, size, interpolation, smooth=smooth)
        record = self.box_set.records[request.image]
        scale = (original_size[1] / size[1], original_size[0] / size[0])
        target = _target(
            sample,
            record,
            request.image,
            original_size,
            scale=scale,
            max_boxes=self.augment.max_boxes,
        )
        if target.masks is not None:
            target = replace(target, masks=padded(target.masks, request.size))
        image = normalise(sample["image"].as_subclass(Tensor), self.preprocessing)
        return padded(image, request.size), target

    def _size(self, sample: Sample, request: SampleRequest) -> tuple[int, int]:
        """Return the size that the image is resized to, within the size of its batch."""
        if self.preprocessing.fit != "pad":
            return request.size
        whole = {"height": request.size[0], "width": request.size[1]}
        fitted = self.preprocessing.model_copy(update=whole)
        return fitted.resized(*sample["image"].shape[-2:])

    def __post_init__(self) -> None:
        outlined = any(record.outlines is not None for record in self.box_set.records)
        if outlined and self.augment.mixup_alpha is not None:
            raise ConfigError(
                "Images whose objects have masks cannot be blended. Received mixup_alpha "
                f"{self.augment.mixup_alpha}. Set: -o augment.mixup_alpha=null"
            )

    def _augmented(self, request: SampleRequest) -> tuple[Sample, tuple[int, int]]:
        sample = self._ordinary(request.image)
        height, width = sample["image"].shape[-2:]
        augment, count = self.augment, len(self.box_set)
        epochs = augment.mixup_epochs
        early = epochs is None or request.epoch < epochs
        if augment.mixup_alpha is not None and early and count > 1:
            share = draw_mixup_share(augment.mixup_alpha)
            other = (request.image + int(torch.randint(1, count, ()))) % count
            sample = mixup(sample, self._ordinary(other), share)
        fill = self.preprocessing.mean_colour
        transforms = training_transforms(augment, fill=fill, size=request.size)
        return transforms(sample), (height, width)

    def _ordinary(self, index: int) -> Sample:
        """Return image `index` with its objects, without difficult ones and crowds."""
        record = self.box_set.records[index]
        image = image_of(self.box_set, index)
        sample = _sample(image, record)
        keep = ~(sample["difficult"] | sample["crowd"])
        if bool(keep.all()):
            return sample
        rows = {name: sample[name][keep] for name in ROWS}
        kept = make_sample(image, sample["boxes"].as_subclass(Tensor)[keep], **rows)
        return kept if "masks" not in sample else {**kept, "masks": sample["masks"][keep]}


@dataclass(frozen=True)
class BoxValSamples(Dataset[Item]):
    """Plain images; position `i` is the image with the index `indices[i]`."""

    box_set: BoxSet
    preprocessing: Preprocessing
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        index = self.indices[position]
        image = image_of(self.box_set, index)
        record = self.box_set.records[index]
        height, width = image.shape[-2:]
        scale = self.preprocessing.scale(height, width)
        sample = _sample(image, record, masks=False)
        sample["boxes"] = sample["boxes"].as_subclass(Tensor) / torch.tensor(scale).repeat(2)
        target = _target(sample, record, index, (height, width), scale=scale)
        return prepare(image, self.preprocessing), _annotated(target, record)


def own_target(image: Tensor, record: BoxRecord, index: int) -> BoxTarget:
    """Return the target of an image in the pixels of the image instead of the network input."""
    height, width = image.shape[-2:]
    sample = _sample(image, record, masks=False)
    return _annotated(_target(sample, record, index, (height, width), scale=(1.0, 1.0)), record)


def _annotated(target: BoxTarget, record: BoxRecord) -> BoxTarget:
    """Return the target with what evaluation needs from the annotation: run lengths and areas."""
    if record.stated is not None:
        target = replace(target, stated=tuple(tuple(row) for row in record.stated.tolist()))
    if record.outlines is None:
        return target
    lengths = (run_lengths_of(outline, target.original_size) for outline in record.outlines)
    return replace(target, outlines=tuple(lengths))


def _sample(image: Tensor, record: BoxRecord, *, masks: bool = True) -> Sample:
    """Return the image with its boxes, clipped to the image, and with masks if there are any."""
    height, width = image.shape[-2:]
    boxes = torch.from_numpy(record.boxes)
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    sample = make_sample(
        image,
        boxes.clamp(min=torch.zeros(4), max=limit),
        labels=torch.from_numpy(record.labels),
        weights=torch.ones(len(boxes)),
        difficult=torch.from_numpy(record.difficult),
        crowd=torch.from_numpy(record.crowd),
    )
    if masks and record.outlines is not None:
        sample["masks"] = tv_tensors.Mask(masks_of(record.outlines, (height, width)))
    return sample


def _target(
    sample: Sample,
    record: BoxRecord,
    index: int,
    original_size: tuple[int, int],
    *,
    scale: tuple[float, float],
    max_boxes: int | None = None,
) -> BoxTarget:
    masks = sample.get("masks")
    return BoxTarget(
        boxes=sample["boxes"].as_subclass(Tensor)[:max_boxes],
        labels=sample["labels"][:max_boxes],
        weights=sample["weights"][:max_boxes],
        difficult=sample["difficult"][:max_boxes],
        crowd=sample["crowd"][:max_boxes],
        image_id=index,
        path=record.path or Path(),
        original_size=original_size,
        scale=scale,
        masks=None if masks is None else masks.as_subclass(Tensor)[:max_boxes].bool(),
    )
