"""Tasks by name: one table of the functions that make them."""

from collections.abc import Callable, Mapping
from typing import Any

from flyweight.config.tasks import TaskConfig
from flyweight.errors import ConfigError
from flyweight.tasks.classify import Classification
from flyweight.tasks.detect import SsdDetection, YoloDetection
from flyweight.tasks.segment import Segmentation
from flyweight.tasks.task import Task
from flyweight.tasks.two_stage_detection import TwoStageDetection
from flyweight.zoo.detectors.ssd import SsdGeometry
from flyweight.zoo.detectors.two_stage_outputs import TwoStageGeometry
from flyweight.zoo.detectors.yolo import YoloGeometry

DETECTORS: Mapping[type, Callable[[tuple[str, ...], Any, TaskConfig], Task]] = {
    YoloGeometry: lambda labels, geometry, config: YoloDetection(labels, geometry, config.detect),
    SsdGeometry: lambda labels, geometry, config: SsdDetection(labels, geometry, config.detect),
    TwoStageGeometry: lambda labels, geometry, config: TwoStageDetection(
        labels, geometry, config.detect
    ),
}
"""The task of every kind of detector, by the type of its geometry."""

TASKS: Mapping[str, Callable[[tuple[str, ...], TaskConfig], Task]] = {
    "classify": lambda labels, config: Classification(labels, config.classify),
    "segment": lambda labels, config: Segmentation(labels, config.segment),
}
"""The tasks that do not depend on the network, by their name."""


def task_for(kind: str, geometry: Any, labels: tuple[str, ...], config: TaskConfig) -> Task:
    """Return the task of a model.

    Args:
        kind: `Task.name`.
        geometry: Anchors or priors, and strides, of a detector's raw outputs; None for other tasks.
        labels: Class names in the order of their indices.
        config: Settings of all tasks.

    Raises:
        ConfigError: No such task, or a detector without a geometry.
    """
    if kind in TASKS:
        return TASKS[kind](labels, config)
    make = DETECTORS.get(type(geometry))
    if kind != "detect" or make is None:
        known = ", ".join(sorted({"detect", *TASKS}))
        raise ConfigError(
            f"A task must be known for the model. Received '{kind}' with "
            f"{'no geometry' if geometry is None else type(geometry).__name__}. Known: {known}."
        )
    return make(labels, geometry, config)
