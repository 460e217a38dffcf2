"""Hooks of a training: code that runs at its steps, and can change the model there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from flyweight.errors import CheckpointError

Change = Callable[[nn.Module, Optimizer | None], None]
"""Changes a model in place: parameters may be replaced, added, frozen or removed.

It is called for the model with its optimizer, whose state it may carry over to new parameters, as
`fw.prune_(model, plan, optimizer)` does; and for the moving average, if there is one, with None.
"""


class RunningTraining(Protocol):
    """What a hook sees of the run.

    Attributes:
        model: The model that learns, without wrappers.
        average: Its moving average, which is evaluated and saved; None without one.
        steps: Optimizer steps of the whole run.
    """

    model: nn.Module
    steps: int

    @property
    def average(self) -> nn.Module | None:
        """The moving average of the model, or None."""

    def change_model(self, change: Change) -> None:
        """Apply `change` to model and average; the optimizer then trains what trains now.

        State of the optimizer stays for every parameter that it already had or that `change`
        carried over.
        """

    def note(self, text: str) -> None:
        """Show one line of text."""


class Hook:
    """Code that runs at the steps of a training; every method does nothing by default.

    A run that was interrupted continues after its last saved state: each step after that state is
    done again, with its hooks, and none before. So whatever a hook changed before the state must be
    in the state: weights are; changes of structure and a hook's own variables are, if `state` says
    what they were and `restore` makes them again. All devices of a run call their own copy of a
    hook, which must do the same on each.

    Attributes:
        name: Identifies the hook in the state; by default the name of its class.
    """

    @property
    def name(self) -> str:
        """Identifies the hook in the state."""
        return type(self).__name__

    def state(self) -> Any:
        """Return what `restore` needs: None, booleans, numbers, texts, tensors, lists, mappings."""
        return None

    def restore(self, state: Any, change_model: Callable[[Change], None]) -> None:
        """Continue from what `state` returned; called before weights are loaded.

        Args:
            state: The value.
            change_model: Makes the changes of structure again that were made before the state.
        """

    def before_step(self, training: RunningTraining, step: int) -> None:
        """Run before the optimizer step with the 0-based number `step`."""

    def after_step(self, training: RunningTraining, done: int) -> None:
        """Run after `done` steps, with the average updated; an evaluation and the state follow."""

    def before_evaluation(self, training: RunningTraining, done: int) -> None:
        """Run before the model, or its average, is evaluated."""

    def after_evaluation(
        self, training: RunningTraining, done: int, metrics: Mapping[str, float]
    ) -> None:
        """Run after an evaluation, before the best weights are saved."""


def restore_hooks(
    hooks: Sequence[Hook],
    saved: Sequence[tuple[str, Any]],
    path: Path,
    change_model: Callable[[Change], None],
) -> None:
    """Give every hook its saved state, in order.

    Args:
        hooks: Those of the run.
        saved: Name and state of every hook when the state at `path` was saved.
        path: The file, for the error message.
        change_model: See `Hook.restore`.

    Raises:
        CheckpointError: The run has other hooks now.
    """
    ours, theirs = [hook.name for hook in hooks], [name for name, _ in saved]
    if ours != theirs:
        raise CheckpointError(
            f"A resumed run must keep its hooks. They were {theirs} in '{path}' and are {ours} "
            "now. Give the same hooks in the same order, or train without resume."
        )
    for hook, (_, state) in zip(hooks, saved, strict=True):
        hook.restore(state, change_model)
