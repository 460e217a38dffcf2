"""Every network that flyweight can build by name: one table."""

from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.lineage import Lineage, note_lineage
from flyweight.zoo import ssd_models, yolo_models
from flyweight.zoo.spec import ModelSpec

SPECS: dict[str, ModelSpec] = {row.name: row for row in (*yolo_models.ROWS, *ssd_models.ROWS)}


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
