"""Segmentation networks of the zoo."""

from functools import partial
from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.zoo import library_parts
from flyweight.zoo.arguments import require_factor, require_num_classes
from flyweight.zoo.segmenters.unet import UNet
from flyweight.zoo.sources.libraries import MainOutput, timm_names
from flyweight.zoo.spec import ModelSpec


def unet(*, num_classes: int = 2, width: float = 1.0) -> UNet:
    """Build PaddleX's UNet; `width` multiplies its channels.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    require_num_classes(num_classes)
    require_factor("width", width)
    return UNet(num_classes, width=width)


def deeplabv3p(
    *, num_classes: int = 21, backbone: str = "mobilenetv2_100", output_stride: int = 16
) -> nn.Module:
    """Build DeepLabV3+ on a backbone of timm.

    Args:
        num_classes: Number of classes, with the background if the data has it as a class.
        backbone: Name of a network of timm that returns maps and supports dilation, such as
            `mobilenetv2_100`, `resnet50` or `tf_mobilenetv3_large_minimal_100`.
        output_stride: Stride of the last map: 16, or 8 for finer maps at four times the cost.

    Raises:
        ConfigError: timm has no such backbone, the backbone returns no such maps, or a number is
            out of range.
    """
    require_num_classes(num_classes)
    if output_stride not in (8, 16):
        raise ConfigError(
            f"output_stride must be 8 or 16. Received: {output_stride!r}. Choose one."
        )
    if backbone not in timm_names():
        raise ConfigError(
            f"backbone must be a name of timm. Received: {backbone!r}. "
            f"{nearest(str(backbone), timm_names())}"
        )
    create = library_parts.timm.create_model
    make = partial(create, backbone, features_only=True, output_stride=output_stride)
    try:
        every: Any = make()
        strides = every.feature_info.reduction()
        low = len(strides) - 1 - strides[::-1].index(4)
        features: Any = make(out_indices=(low, len(strides) - 1))
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            "backbone must give maps at stride 4 and at output_stride. "
            f"Received: {backbone!r}: {' '.join(str(error).split())}. Try 'mobilenetv2_100'."
        ) from error
    channels = features.feature_info.channels()
    network: nn.Module = library_parts.DeepLabV3Plus(
        features, (channels[0], channels[1]), num_classes, output_stride=output_stride
    )
    return network


def lraspp_mobilenet_v3_large(*, num_classes: int = 21) -> nn.Module:
    """Build torchvision's Lite R-ASPP on MobileNetV3-large (arXiv 1905.02244, section 6.4).

    Raises:
        ConfigError: `num_classes` is not a whole number above 0.
    """
    require_num_classes(num_classes)
    build = library_parts.torchvision_models.segmentation.lraspp_mobilenet_v3_large
    return MainOutput(build(weights=None, weights_backbone=None, num_classes=num_classes))


ROWS = (
    ModelSpec(
        name="unet",
        task="segment",
        build=unet,
        geometry=None,
        summary="UNet of PaddleX; 13.4 M parameters, 31.0 GMACs at 256 x 256",
    ),
    ModelSpec(
        name="deeplabv3p",
        task="segment",
        build=deeplabv3p,
        geometry=None,
        summary="DeepLabV3+ on a backbone of timm (model_args.backbone)",
    ),
    ModelSpec(
        name="lraspp_mobilenet_v3_large",
        task="segment",
        build=lraspp_mobilenet_v3_large,
        geometry=None,
        summary="Lite R-ASPP on MobileNetV3-large; 3.2 M parameters, small enough for phones",
    ),
)
