"""Objective of a training: the loss that is minimised, and the modules that belong to it."""

from torch import Tensor, nn

from flyweight.data.batch import Batch
from flyweight.tasks.task import Task


class Objective:
    """What a training minimises; subclasses implement `loss`.

    An objective may own modules that learn together with the model, for example adaptors between
    the features of a student and its teacher. They are moved to the device, put into training mode,
    optimised, synchronised between devices, saved and resumed with the model. They are no part of
    the checkpoints that a run writes. `fit` leaves the trained weights in them.

    Attributes:
        modules: The modules that learn; None if there are none. They must take part in every loss.
        fixed: Modules that are only moved to the device, such as a teacher; None if there are none.
        rate_factor: Multiplies the learning rate for the parameters of `modules`.
        averaged: Whether `fit` leaves the moving average of `modules` in them, where the config
            asks for an average, instead of their last weights.
    """

    modules: nn.Module | None = None
    fixed: nn.Module | None = None
    rate_factor: float = 1.0
    averaged: bool = False

    def attach(self, model: nn.Module) -> None:
        """Receive the plain model, on its device: before the first step and after each change.

        `loss` gets the same model wrapped for its device and precision. Hooks on layers (to see
        features) belong into `loss`, and out again: the model is copied for saving.
        """

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar to minimise under "loss", and its terms under their names.

        Args:
            model: The model to call, in training mode.
            batch: Images and targets, on the model's device.
        """
        raise NotImplementedError


class TaskObjective(Objective):
    """The loss of a task alone."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `task.loss` of the model's outputs."""
        return self.task.loss(self.task.forward(model, batch), batch)
