"""The networks of the sweep of quantization: small, with random values that no layer ignores."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
import torchvision
from coverage_case import Case
from coverage_models import cases_of
from torch import nn

from flyweight.zoo import create
from flyweight.zoo.specs import SPECS

_SIDE = 96
_SMALL: dict[str, Any] = {"width": 0.25, "proposals": 20}
"""Argument of a builder of the zoo to the value that makes the network small."""
_DEPTHS = {"depths": (1, 1, 2, 1)}
_TIMM: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "mobilenetv4_conv_small": {},
    "efficientnet_lite0": {},
    "repvgg_a0": {},
    "selecsls42": {},
    "convnext_atto": _DEPTHS,
    "vit_tiny_patch16_224": {"depth": 2, "img_size": _SIDE},
    "swin_tiny_patch4_window7_224": {**_DEPTHS, "embed_dim": 24, "img_size": 112},
    "mixer_s32_224": {"img_size": _SIDE},
}
_TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    name: partial(torchvision.models.get_model, name, weights=None)
    for name in (
        *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
        *("shufflenet_v2_x0_5", "squeezenet1_1"),
    )
} | {
    "densenet": partial(torchvision.models.DenseNet, 16, (2, 2, 3, 2), 32),
    "vit": partial(torchvision.models.VisionTransformer, _SIDE, 16, 2, 4, 64, 128),
    "lraspp_mobilenet_v3_large": partial(
        torchvision.models.segmentation.lraspp_mobilenet_v3_large,
        weights=None,
        weights_backbone=None,
        num_classes=5,
    ),
    "deeplabv3_mobilenet_v3_large": partial(
        torchvision.models.segmentation.deeplabv3_mobilenet_v3_large,
        weights=None,
        weights_backbone=None,
        num_classes=5,
    ),
}
_TRANSFORMERS = ("ViT", "MobileViT segmentation", "SegFormer")


def networks() -> Iterator[Case]:
    """Yield the networks of all sources."""
    for name, spec in SPECS.items():
        small = {key: value for key, value in _SMALL.items() if key in spec.defaults}
        side = 128 if name.startswith("blazeface") else _SIDE
        yield Case("zoo", name, partial(create, name, **small), (1, 3, side, side))
    for name, options in _TIMM.items():
        side = options.get("img_size", _SIDE)
        build = partial(timm.create_model, name, pretrained=False, **options)
        yield Case("timm", name, build, (1, 3, side, side))
    for name, make in _TORCHVISION.items():
        yield Case("torchvision", name, make, (1, 3, _SIDE, _SIDE))
    for case in cases_of("transformers"):
        if case.name in (*_TRANSFORMERS, "all"):
            yield case
