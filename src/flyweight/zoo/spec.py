"""Rows of the table of networks."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table: a network that can be built by name.

    Attributes:
        name: Name in configs, in checkpoints and on the command line.
        task: Kind of task, see `Task.name`.
        build: Function that returns the network with fresh weights. Its arguments are keywords with
            defaults and take JSON values. `num_classes` does not count the background.
        geometry: Anchors and scales of a detector's raw outputs, such as a `YoloGeometry`; None for
            other networks.
        summary: Description on one line.
        multiple: The height and the width of the input must be multiples of this number, because
            maps of several strides are joined.
    """

    name: str
    task: str
    build: Callable[..., nn.Module]
    geometry: object | None
    summary: str
    multiple: int = 1

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments of `build` with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}
