"""YOLOv3 detectors of the zoo, with the names of the configs of PaddleDetection."""

from torch import nn

from flyweight.zoo.arguments import require_factor, require_num_classes
from flyweight.zoo.backbones.mobilenet_v1 import MobileNetV1
from flyweight.zoo.backbones.mobilenet_v3 import MobileNetV3
from flyweight.zoo.backbones.resnet import ResNet
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY, YOLOv3
from flyweight.zoo.spec import ModelSpec


def yolov3_mobilenet_v1(*, num_classes: int = 80, width: float = 1.0) -> YOLOv3:
    """Build YOLOv3 on MobileNetV1; `width` multiplies the channels of both.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    _require(num_classes, width)
    return _on(MobileNetV1(width=width), num_classes, width)


def yolov3_mobilenet_v3(*, num_classes: int = 80, width: float = 1.0) -> YOLOv3:
    """Build YOLOv3 on MobileNetV3-large; `width` multiplies the channels of both.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    _require(num_classes, width)
    return _on(MobileNetV3("large", width=width), num_classes, width)


def yolov3_r34(*, num_classes: int = 80, width: float = 1.0) -> YOLOv3:
    """Build YOLOv3 on ResNet-34; `width` multiplies the channels of both.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    _require(num_classes, width)
    return _on(ResNet(34, "b", width=width), num_classes, width)


def yolov3_r50vd_dcn(*, num_classes: int = 80, width: float = 1.0) -> YOLOv3:
    """Build YOLOv3 on ResNet-50-vd with a deformable last stage; `width` multiplies both.

    Raises:
        ConfigError: `num_classes` is not a whole number above 0, or `width` not within (0, 4].
    """
    _require(num_classes, width)
    return _on(ResNet(50, "d", width=width, deformable=(5,)), num_classes, width)


def _require(num_classes: int, width: float) -> None:
    require_num_classes(num_classes)
    require_factor("width", width)


def _on(backbone: nn.Module, num_classes: int, width: float) -> YOLOv3:
    return YOLOv3(backbone, num_classes, width=width, geometry=COCO_GEOMETRY)


ROWS = (
    ModelSpec(
        name="yolov3_mobilenet_v1",
        task="detect",
        build=yolov3_mobilenet_v1,
        geometry=COCO_GEOMETRY,
        multiple=max(COCO_GEOMETRY.strides),
        summary="YOLOv3 detector on MobileNetV1; 24.6 M parameters, 22.2 GMACs at 608 x 608",
    ),
    ModelSpec(
        name="yolov3_mobilenet_v3",
        task="detect",
        build=yolov3_mobilenet_v3,
        geometry=COCO_GEOMETRY,
        multiple=max(COCO_GEOMETRY.strides),
        summary="YOLOv3 detector on MobileNetV3-large; 23.6 M parameters, 19.0 GMACs at 608 x 608",
    ),
    ModelSpec(
        name="yolov3_r34",
        task="detect",
        build=yolov3_r34,
        geometry=COCO_GEOMETRY,
        multiple=max(COCO_GEOMETRY.strides),
        summary="YOLOv3 detector on ResNet-34; 42.3 M parameters, 44.8 GMACs at 608 x 608",
    ),
    ModelSpec(
        name="yolov3_r50vd_dcn",
        task="detect",
        build=yolov3_r50vd_dcn,
        geometry=COCO_GEOMETRY,
        multiple=max(COCO_GEOMETRY.strides),
        summary="YOLOv3 detector on ResNet-50-vd with a deformable last stage; 46.0 M parameters, "
        "50.6 GMACs at 608 x 608",
    ),
)
