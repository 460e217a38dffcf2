"""The networks of the sweep of quantization: small, with random values that no layer ignores."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torchvision
from coverage_case import Case
from coverage_models import build_timm, cases_of

from flyweight.zoo import create
from flyweight.zoo.specs import SPECS

_SIDE = 96
_SMALL: dict[str, Any] = {"width": 0.25, "proposals": 20}
"""Argument of a builder to the value that makes the network small."""
_TIMM = {
    "resnet18": 96,
    "mobilenetv2_050": 96,
    "mobilenetv3_small_050": 96,
    "efficientnet_lite0": 96,
    "regnety_002": 96,
    "convnext_atto": 96,
    "vit_tiny_patch16_224": 96,
    "swin_tiny_patch4_window7_224": 224,
    "repvgg_a0": 96,
    "mobilenetv4_conv_small": 96,
}
_CLASSIFIERS = (
    *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"),
    *("densenet121", "squeezenet1_1", "vit_b_32"),
)
_SEGMENTERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
_TRANSFORMERS = ("ViT", "MobileViT segmentation", "SegFormer")


def networks() -> Iterator[Case]:
    """Yield the networks of all sources."""
    yield from _zoo()
    for name, side in _TIMM.items():
        yield Case("timm", name, partial(build_timm, name, side), (1, 3, side, side))
    for name in (*_CLASSIFIERS, *_SEGMENTERS):
        options: dict[str, Any] = {"weights": None}
        if name in _SEGMENTERS:
            options |= {"weights_backbone": None, "num_classes": 5}
        side = 224 if name.startswith("vit") else _SIDE
        build = partial(torchvision.models.get_model, name, **options)
        yield Case("torchvision", name, build, (1, 3, side, side))
    for case in cases_of("transformers"):
        if case.name in (*_TRANSFORMERS, "all"):
            yield case


def _zoo() -> Iterator[Case]:
    for name, spec in SPECS.items():
        small = {key: value for key, value in _SMALL.items() if key in spec.defaults}
        side = 128 if name.startswith("blazeface") else _SIDE
        yield Case("zoo", name, partial(create, name, **small), (1, 3, side, side))
