"""Objective of a student: the loss of its task plus the losses against its teachers."""

from torch import Tensor, nn

from flyweight.data.batch import Batch
from flyweight.distillation.distiller import Distiller
from flyweight.distillation.truth import truth_of
from flyweight.engine.objective import Objective
from flyweight.tasks.task import Task


class DistillObjective(Objective):
    """`task loss + distillation`, for any task and any teacher.

    Args:
        task: Of the student.
        distiller: Of the student and its teachers, with `watch=False`.
    """

    def __init__(self, task: Task, distiller: Distiller) -> None:
        self.task = task
        self.distiller = distiller
        self.modules = distiller.modules
        self.fixed = nn.ModuleList(distiller.teachers)
        self._model: nn.Module | None = None

    def attach(self, model: nn.Module) -> None:
        """Receive the plain model."""
        self._model = model

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the sum under "loss"; the task's terms, and each distillation's as `distill/...`.

        The task's own loss is `task`.
        """
        watched = model if self._model is None else self._model
        found = self.distiller.teach(batch.images)
        with self.distiller.watching(watched):
            own = self.task.loss(self.task.forward(model, batch), batch)
        taught = self.distiller.terms(batch.images, truth_of(batch), found)
        terms = {name: value for name, value in own.items() if name != "loss"}
        named = {f"distill/{name}": value for name, value in taught.items()}
        total = own["loss"] + sum(taught.values())
        return {"loss": total, "task": own["loss"], **terms, **named}
