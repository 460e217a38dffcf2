"""The YOLOv3 detectors of the zoo."""

from flyweight.errors import ConfigError
from flyweight.zoo.mobilenet_v1 import MobileNetV1
from flyweight.zoo.spec import ModelSpec
from flyweight.zoo.yolo import COCO_GEOMETRY, YOLOv3


def yolov3_mobilenet_v1(*, num_classes: int = 80, width: float = 1.0) -> YOLOv3:
    """Build YOLOv3 on MobileNetV1; `width` multiplies the channels of both.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ConfigError(
            f"num_classes must be a whole number of at least 1. Received: {num_classes!r}. "
            "Give the number of classes without background."
        )
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 4:
        raise ConfigError(
            f"width must be a number above 0 and at most 4. Received: {width!r}. "
            "1.0 is the original network."
        )
    return YOLOv3(MobileNetV1(width=width), num_classes, width=width, geometry=COCO_GEOMETRY)


ROWS = (
    ModelSpec(
        name="yolov3_mobilenet_v1",
        task="detect",
        build=yolov3_mobilenet_v1,
        geometry=COCO_GEOMETRY,
        summary="YOLOv3 detector on MobileNetV1; 24.6 M values, 22.2 GMACs at 608 x 608",
    ),
)
