"""Networks of segmentation_models_pytorch: every architecture, and encoders of every family."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
from coverage_case import Case

_SUITE = "segmentation_models"
_SIDE = 64
_CLASSES = 5

_OF_ARCHITECTURE = {
    "unet": ("resnet18", "mobilenet_v2", "timm-efficientnet-b0", "mit_b0"),
    "unetplusplus": ("resnet18", "efficientnet-b0"),
    "manet": ("resnet18", "mobileone_s0"),
    "linknet": ("resnet18", "vgg11_bn"),
    "fpn": ("resnet18", "mit_b0", "timm-skresnet18"),
    "pspnet": ("resnet18", "mobilenet_v2"),
    "deeplabv3": ("resnet18", "mobilenet_v2"),
    "deeplabv3plus": ("resnet18", "efficientnet-b0"),
    "pan": ("resnet18", "timm-efficientnet-b0"),
    "upernet": ("resnet18", "mit_b0"),
    "segformer": ("resnet18", "mit_b0"),
    "dpt": ("tu-vit_tiny_patch16_224",),
}
_OF_UNET = (
    *("resnext50_32x4d", "dpn68", "vgg11", "senet154", "se_resnet50", "densenet121"),
    *("inceptionresnetv2", "inceptionv4", "xception", "timm-tf_efficientnet_lite0"),
    *("timm-skresnext50_32x4d", "mobileone_s0", "tu-regnety_002", "tu-convnext_atto"),
    *("tu-hrnet_w18_small", "tu-mobilenetv3_small_050", "tu-edgenext_xx_small"),
    *("tu-ghostnet_100", "tu-cspresnet50", "tu-repvgg_a0", "tu-fastvit_t8", "tu-resnest14d"),
)
_OPTIONS: dict[str, dict[str, Any]] = {
    "unet+scse": {"decoder_attention_type": "scse"},
    "unet+classes": {"aux_params": {"classes": 3, "dropout": 0.2}},
    "unet+no norm": {"decoder_use_norm": False},
    "unet+sigmoid": {"activation": "sigmoid"},
    "unet+bicubic": {"decoder_interpolation": "bicubic"},
    "unet+depth 3": {"encoder_depth": 3, "decoder_channels": (64, 32, 16)},
    "unetplusplus+scse": {"decoder_attention_type": "scse"},
    "fpn+cat": {"decoder_merge_policy": "cat"},
    "fpn+classes": {"aux_params": {"classes": 3}},
    "deeplabv3plus+classes": {"aux_params": {"classes": 3, "pooling": "max"}},
}


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    for architecture, encoders in _OF_ARCHITECTURE.items():
        for encoder in encoders:
            yield _case(f"{architecture}-{encoder}", architecture, encoder, {})
    for encoder in _OF_UNET:
        yield _case(f"unet-{encoder}", "unet", encoder, {})
    for name, options in _OPTIONS.items():
        yield _case(name, name.partition("+")[0], "resnet18", options)


def _case(name: str, architecture: str, encoder: str, options: dict[str, Any]) -> Case:
    side = 224 if architecture == "dpt" else _SIDE
    if "inception" in encoder or architecture == "pan":
        side = 128
    build = partial(
        smp.create_model,
        architecture,
        encoder_name=encoder,
        encoder_weights=None,
        classes=_CLASSES,
        **options,
    )
    heads = r"^(segmentation|classification)_head\."
    return Case(_SUITE, name, build, (1, 3, side, side), heads, classes=_CLASSES)
