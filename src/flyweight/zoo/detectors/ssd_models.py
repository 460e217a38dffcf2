"""One-stage detectors of the zoo with the priors of SSD: SSDLite, and BlazeFace for faces."""

from flyweight.errors import ConfigError
from flyweight.zoo.arguments import require_factor, require_num_classes
from flyweight.zoo.backbones.mobilenet_v3 import Size
from flyweight.zoo.detectors.blazeface import (
    FACE_GEOMETRY,
    NAS,
    NAS_V2,
    ORIGINAL,
    BlazeNet,
    Filters,
    blaze_net,
    lite_net,
    plain_predictor,
)
from flyweight.zoo.detectors.ssd import SSD, SSDLITE_GEOMETRY, SsdLiteBackbone
from flyweight.zoo.spec import ModelSpec


def ssdlite_mobilenet_v3_small(
    *, num_classes: int = 80, width: float = 1.0, multiplier: float = 0.5
) -> SSD:
    """Build SSDLite on MobileNetV3-small.

    Args:
        num_classes: Number of classes without background.
        width: Multiplies every layer's channels.
        multiplier: Multiplies those of the last three blocks in addition, see `MobileNetV3`.

    Raises:
        ConfigError: The value of an argument is invalid.
    """
    return _ssdlite("small", num_classes, width, multiplier)


def ssdlite_mobilenet_v3_large(
    *, num_classes: int = 80, width: float = 1.0, multiplier: float = 0.5
) -> SSD:
    """Build SSDLite on MobileNetV3-large.

    Args:
        num_classes: Number of classes without background.
        width: Multiplies every layer's channels.
        multiplier: Multiplies those of the last three blocks in addition, see `MobileNetV3`.

    Raises:
        ConfigError: The value of an argument is invalid.
    """
    return _ssdlite("large", num_classes, width, multiplier)


def _ssdlite(size: Size, num_classes: int, width: float, multiplier: float) -> SSD:
    require_num_classes(num_classes)
    require_factor("width", width)
    require_factor("multiplier", multiplier)
    backbone = SsdLiteBackbone(size, width=width, multiplier=multiplier)
    return SSD(backbone, num_classes, geometry=SSDLITE_GEOMETRY)


def blazeface(*, num_classes: int = 1, kernel_size: int = 5) -> SSD:
    """Build BlazeFace.

    Args:
        num_classes: Number of classes without background. The default class is "face".
        kernel_size: 5, or 3 for two 3x3 layers in place of each 5x5 layer.

    Raises:
        ConfigError: The value of an argument is invalid.
    """
    return _blazeface(ORIGINAL, num_classes, kernel_size)


def blazeface_lite(*, num_classes: int = 1) -> SSD:
    """Build BlazeFace Lite.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0.
    """
    return _face_detector(lite_net(), num_classes)


def blazeface_nas(*, num_classes: int = 1, kernel_size: int = 5) -> SSD:
    """Build BlazeFace with the widths of the first architecture search (NAS).

    Args:
        num_classes: Number of classes without background. The default class is "face".
        kernel_size: 5, or 3 for two 3x3 layers in place of each 5x5 layer.

    Raises:
        ConfigError: The value of an argument is invalid.
    """
    return _blazeface(NAS, num_classes, kernel_size)


def blazeface_nas_v2(*, num_classes: int = 1, kernel_size: int = 5) -> SSD:
    """Build BlazeFace with the widths of the second architecture search (NAS_V2).

    Args:
        num_classes: Number of classes without background. The default class is "face".
        kernel_size: 5, or 3 for two 3x3 layers in place of each 5x5 layer.

    Raises:
        ConfigError: The value of an argument is invalid.
    """
    return _blazeface(NAS_V2, num_classes, kernel_size)


def _blazeface(filters: Filters, num_classes: int, kernel_size: int) -> SSD:
    if kernel_size not in (3, 5):
        raise ConfigError(
            f"kernel_size must be 3 or 5. Received: {kernel_size!r}. 5 is the original network."
        )
    return _face_detector(blaze_net(filters, kernel_size=kernel_size), num_classes)


def _face_detector(backbone: BlazeNet, num_classes: int) -> SSD:
    require_num_classes(num_classes)
    return SSD(backbone, num_classes, geometry=FACE_GEOMETRY, predictor=plain_predictor)


ROWS = (
    ModelSpec(
        name="ssdlite_mobilenet_v3_small",
        task="detect",
        build=ssdlite_mobilenet_v3_small,
        geometry=SSDLITE_GEOMETRY,
        summary="SSDLite detector on MobileNetV3-small; 1.9 M parameters, 0.18 GMACs at 320 x 320",
    ),
    ModelSpec(
        name="ssdlite_mobilenet_v3_large",
        task="detect",
        build=ssdlite_mobilenet_v3_large,
        geometry=SSDLITE_GEOMETRY,
        summary="SSDLite detector on MobileNetV3-large; 3.4 M parameters, 0.53 GMACs at 320 x 320",
    ),
    ModelSpec(
        name="blazeface",
        task="detect",
        build=blazeface,
        geometry=FACE_GEOMETRY,
        summary="BlazeFace face detector; 198,384 parameters, 1.22 GMACs at 640 x 640",
    ),
    ModelSpec(
        name="blazeface_lite",
        task="detect",
        build=blazeface_lite,
        geometry=FACE_GEOMETRY,
        summary="BlazeFace Lite face detector; 170,838 parameters, 1.18 GMACs at 640 x 640",
    ),
    ModelSpec(
        name="blazeface_nas",
        task="detect",
        build=blazeface_nas,
        geometry=FACE_GEOMETRY,
        summary="BlazeFace NAS face detector; 58,756 parameters, 0.27 GMACs at 640 x 640",
    ),
    ModelSpec(
        name="blazeface_nas_v2",
        task="detect",
        build=blazeface_nas_v2,
        geometry=FACE_GEOMETRY,
        summary="BlazeFace NAS_V2 face detector; 97,156 parameters, 0.45 GMACs at 640 x 640",
    ),
)
