"""Every network that flyweight can build by name: one table."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.lineage import Lineage, note_lineage
from flyweight.zoo.mobilenet_v1 import MobileNetV1
from flyweight.zoo.yolo import COCO_GEOMETRY, YoloGeometry, YOLOv3


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table.

    Attributes:
        name: What configs, checkpoints and the command line call it.
        task: The kind of task it is for, `Task.name`.
        build: Makes the network with fresh weights; its arguments are keywords with defaults
            and take JSON values.
        geometry: The anchors of a detector's raw maps, else None.
        summary: One line for people.
    """

    name: str
    task: str
    build: Callable[..., nn.Module]
    geometry: YoloGeometry | None
    summary: str

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments of `build` with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}


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


_ROWS = (
    ModelSpec(
        name="yolov3_mobilenet_v1",
        task="detect",
        build=yolov3_mobilenet_v1,
        geometry=COCO_GEOMETRY,
        summary="YOLOv3 detector on MobileNetV1; 24.6 M values, 22.2 GMACs at 608 x 608",
    ),
)

SPECS: dict[str, ModelSpec] = {row.name: row for row in _ROWS}


def spec_of(name: str) -> ModelSpec:
    """Return the row called `name`.

    Raises:
        ConfigError: There is none; the letter names the nearest.
    """
    if name not in SPECS:
        raise ConfigError(
            f"A model must be one of the zoo. Received: '{name}'. {nearest(name, SPECS)} "
            "`flyweight models` lists them."
        )
    return SPECS[name]


def create(name: str, **arguments: Any) -> nn.Module:
    """Build a network of the zoo with fresh weights.

    The network is plain: it returns raw outputs and `torch.export` can trace it. Under
    `torch.device("meta")` it takes no memory. Its lineage is noted, defaults written out, so a
    checkpoint can build it again.

    Args:
        name: A key of `SPECS`.
        **arguments: Keyword arguments of its builder.

    Raises:
        ConfigError: The name or an argument is unknown, or an argument's value cannot be meant.

    Example:
        >>> model = create("yolov3_mobilenet_v1", num_classes=20, width=0.25)
        >>> model.get_parameter("yolo_block.0.tip.conv.weight").shape
        torch.Size([256, 128, 3, 3])
    """
    spec = spec_of(name)
    defaults = spec.defaults
    for argument in arguments:
        if argument not in defaults:
            raise ConfigError(
                f"An argument of '{name}' must be one that its builder takes. "
                f"Received: '{argument}'. {nearest(argument, defaults)}"
            )
    complete = {**defaults, **arguments}
    model = spec.build(**complete)
    note_lineage(model, Lineage(architecture=name, arguments=complete))
    return model
