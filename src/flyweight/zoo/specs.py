"""Table of all networks that flyweight builds by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.origin import Origin, note_origin
from flyweight.zoo.detectors import ssd_models, two_stage_models, yolo_models
from flyweight.zoo.segmenters import segmenter_models as segmenters
from flyweight.zoo.sources.libraries import LIBRARIES, is_library_name, library_model
from flyweight.zoo.sources.own import build_own, own_name
from flyweight.zoo.spec import ModelSpec

SPECS: dict[str, ModelSpec] = {
    row.name: row
    for row in (*yolo_models.ROWS, *ssd_models.ROWS, *two_stage_models.ROWS, *segmenters.ROWS)
}

_OTHERS = ", ".join(f"{library}/NAME" for library in LIBRARIES)


def spec_of(name: str) -> ModelSpec:
    """Return the row `name`, or a row for a network of another library.

    Args:
        name: A key of `SPECS`, or `timm/NAME`, `torchvision/NAME`, `smp/ARCHITECTURE-ENCODER`.

    Raises:
        ConfigError: There is no such network. The error message names the nearest name.
    """
    if is_library_name(name):
        task, build = library_model(name)
        library = name.partition("/")[0]
        return ModelSpec(name, task, build, None, f"a network of {library}")
    if name not in SPECS:
        raise ConfigError(
            f"A model must be one of the zoo. Received: '{name}'. {nearest(name, SPECS)} "
            f"`flyweight models` lists them; networks of other libraries are named {_OTHERS}."
        )
    return SPECS[name]


def create(name: str | Callable[..., nn.Module], /, **arguments: Any) -> nn.Module:
    """Build a network of the zoo, of another library, or of your own, with fresh weights.

    The network returns raw outputs, and `torch.export` can trace it. Under `torch.device("meta")` a
    network of `SPECS` takes no memory. The origin of the network (its name and all arguments,
    defaults included) is recorded, so that a checkpoint can build it again.

    Args:
        name: A key of `SPECS`; `timm/NAME`, `torchvision/NAME` or `smp/ARCHITECTURE-ENCODER`; or a
            function of your own that returns the network.
        **arguments: Keyword arguments of the builder, JSON values.

    Raises:
        ConfigError: The name or an argument is unknown, or the value of an argument is invalid.

    Example:
        >>> model = create("yolov3_mobilenet_v1", num_classes=20, width=0.25)
        >>> model.get_parameter("yolo_block.0.tip.conv.weight").shape
        torch.Size([256, 128, 3, 3])
    """
    if not isinstance(name, str):
        return build_own(name, own_name(name), arguments)
    spec = spec_of(name)
    defaults = spec.defaults
    for argument in arguments:
        if argument not in defaults:
            raise ConfigError(
                f"An argument of '{name}' must be a parameter of its builder. "
                f"Received: '{argument}'. {nearest(argument, defaults)}"
            )
    complete = {**defaults, **arguments}
    model = spec.build(**complete)
    note_origin(model, Origin(architecture=name, arguments=complete))
    return model
