"""Proposal of a network, its input and its training for a data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.data.survey import Survey

_STRIDE = 32
_OBJECT_PIXELS = 24
"""Side in pixels that an object of median size should have in the input."""


@dataclass(frozen=True)
class Proposal:
    """Settings that suit a data set, and the reasons for them.

    Attributes:
        task: "detect", "classify" or "segment".
        model: Name of the network in the zoo.
        network: More keys of the config that describe the network and its preprocessing.
        input_size: Side of the input in pixels, or height and width.
        batch_size: Images of a training step.
        steps: Training steps.
        epochs: Passes over the training images in these steps.
        learning_rate: Of AdamW.
        sections: Sections of the config for the task and the augmentation.
        reasons: Key to a comment for it.
    """

    task: str
    model: str
    input_size: int | tuple[int, int]
    batch_size: int
    steps: int
    epochs: float
    learning_rate: float
    network: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def propose(task: str, layout: str, train: Survey) -> Proposal:
    """Return a proposal for a data set.

    The networks start from random weights, and are small enough for processors without GPU.

    Args:
        task: "detect", "classify" or "segment".
        layout: A value of `DataConfig.format`.
        train: Survey of the training split.
    """
    if layout == "wider":
        return _faces(train)
    return {"detect": _detector, "classify": _classifier, "segment": _segmenter}[task](train)


def _classifier(train: Survey) -> Proposal:
    size = max(96, min(224, _multiple(min(train.median_size))))
    batch = _batch(train, 32)
    steps, epochs = _steps(train, batch, epochs=40, least=400, most=20_000)
    return Proposal(
        task="classify",
        model="torchvision/mobilenet_v2",
        input_size=size,
        batch_size=batch,
        steps=steps,
        epochs=epochs,
        learning_rate=0.002,
        network={"interpolation": "bilinear"},
        sections={
            "augment": {"classify": {"crop_scale": [0.35, 1.0], "color": 0.2}},
            "classify": {"label_smoothing": 0.1},
        },
        reasons={
            "model": "small and exact to prune; any timm/NAME or torchvision/NAME works, too",
            "input_size": f"the median image has a short side of {min(train.median_size)} pixels",
            "augment": "set flip: false where mirrored images mean something else, such as digits",
        },
    )


def _detector(train: Survey) -> Proposal:
    share = train.object_share or 0.25
    longest = max(train.median_size)
    wanted = _multiple(max(_OBJECT_PIXELS / share, min(320, longest)))
    size = max(224, min(608, wanted, max(320, _multiple(longest))))
    batch = _batch(train, 8)
    steps, epochs = _steps(train, batch, epochs=80, least=800, most=40_000)
    pixels = round(share * size)
    return Proposal(
        task="detect",
        model="yolov3_mobilenet_v1",
        input_size=size,
        batch_size=batch,
        steps=steps,
        epochs=epochs,
        learning_rate=0.002,
        network={"width": 0.5, "interpolation": "bilinear"},
        sections={
            "augment": {"mixup_alpha": None, "random_interpolation": False},
            "detect": {"metric": "voc_area"},
        },
        reasons={
            "model": "see flyweight models for the others",
            "width": "half the channels; remove this line to start from trained weights",
            "input_size": f"an object of median size has a side of {pixels} pixels in it",
            "augment": "set flip: false where mirrored objects are of another class",
            "detect": "mean average precision at IoU 0.5; coco averages 0.5 to 0.95",
        },
    )


def _faces(train: Survey) -> Proposal:
    batch = _batch(train, 16)
    steps, epochs = _steps(train, batch, epochs=80, least=800, most=100_000)
    return Proposal(
        task="detect",
        model="blazeface",
        input_size=320 if max(train.median_size) <= 640 else 640,
        batch_size=batch,
        steps=steps,
        epochs=epochs,
        learning_rate=0.003,
        network={
            "value_range": 255,
            "channels": "bgr",
            "mean": [104, 117, 123],
            "std": [127.502231, 127.502231, 127.502231],
            "interpolation": "bilinear",
        },
        sections={
            "augment": {
                "mixup_alpha": None,
                "brightness": [0.875, 1.125],
                "distort_in_order": True,
                "expand": False,
                "face_crop": True,
                "max_boxes": None,
            },
            "detect": {
                "metric": "wider",
                "match_threshold": 0.35,
                "suppression": {"score_threshold": 0.01, "iou_threshold": 0.3, "keep": 750},
            },
        },
        reasons={
            "model": "finds faces only; see flyweight models for the others",
            "input_size": "side in training; eval can keep the size of images",
            "detect": "average precision of easy, medium and hard faces",
        },
    )


def _segmenter(train: Survey) -> Proposal:
    height, width = train.median_size
    few = len(train.labels) <= 2
    factor = min(1.0, (384 if few else 480) / max(height, width))
    if train.one_shape:
        size: int | tuple[int, int] = (_multiple(height * factor), _multiple(width * factor))
    else:
        size = _multiple(max(height, width) * factor)
    if isinstance(size, tuple) and size[0] == size[1]:
        size = size[0]
    batch = _batch(train, 4)
    steps, epochs = _steps(train, batch, epochs=40, least=400, most=40_000)
    network = {"model": "unet", "width": 0.25} if few else {"model": "deeplabv3p"}
    model = str(network.pop("model"))
    return Proposal(
        task="segment",
        model=model,
        input_size=size,
        batch_size=batch,
        steps=steps,
        epochs=epochs,
        learning_rate=0.001,
        network={
            **network,
            **({} if train.one_shape else {"fit": "pad"}),
            "interpolation": "bilinear",
        },
        sections={
            "augment": {"segment": {"scale": [0.75, 1.5], "color": 0.2}},
            "segment": {"dice": 1.0 if few else 0.0},
        },
        reasons={
            "model": "for two classes and fine structures"
            if few
            else "model_args: {backbone: NAME} takes another backbone of timm",
            "width": "a quarter of the channels trains faster; 1.0 is the original network",
            "input_size": "height and width; all images are resized to it",
            "fit": "images have different shapes: they keep theirs and are padded",
            "segment": "weight of the Dice loss, which helps where a class has few pixels",
        },
    )


def _multiple(pixels: float) -> int:
    """Return the nearest multiple of 32 above 0."""
    return max(1, round(pixels / _STRIDE)) * _STRIDE


def _batch(train: Survey, usual: int) -> int:
    """Return the usual batch size, or less for a set of fewer images; at least 2."""
    return max(2, min(usual, train.images))


def _steps(train: Survey, batch: int, *, epochs: int, least: int, most: int) -> tuple[int, float]:
    """Return steps, in hundreds, and the epochs that they are."""
    steps = math.ceil(epochs * train.images / batch / 100) * 100
    steps = max(least, min(most, steps))
    return steps, steps * batch / train.images
