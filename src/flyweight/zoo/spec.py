"""What the zoo's table says of one network."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table.

    Attributes:
        name: What configs, checkpoints and the command line call it.
        task: The kind of task it is for, `Task.name`.
        build: Makes the network with fresh weights; its arguments are keywords with defaults
            and take JSON values. `num_classes` does not count the background.
        geometry: What a detector's raw outputs mean, such as a `YoloGeometry`; else None.
        summary: One line for people.
    """

    name: str
    task: str
    build: Callable[..., nn.Module]
    geometry: object | None
    summary: str

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments of `build` with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}
