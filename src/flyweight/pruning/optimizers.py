"""Optimizers after a cut: they train the new parameters with the state of the old ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from flyweight.graph.cutting import Replaced, narrowed


def carry_over(optimizer: Optimizer, replaced: Iterable[Replaced]) -> None:
    """Make `optimizer` train the new parameters with the state of the old ones.

    State of a parameter's own shape (momentum, averages of gradients and of their squares), and of
    sums over some of its axes, is cut as the parameter was; numbers, such as a step count, are
    kept. Where a state has another form, the optimizer begins again for this parameter.

    Args:
        optimizer: Changed in place.
        replaced: From `cut_tensors`; tensors that the optimizer does not train are skipped.
    """
    by_identity = {id(change.old): change for change in replaced}
    for group in optimizer.param_groups:
        # In place, because some optimizers hold the list.
        group["params"][:] = [
            by_identity[id(parameter)].new if id(parameter) in by_identity else parameter
            for parameter in group["params"]
        ]
    for parameter in [known for known in optimizer.state if id(known) in by_identity]:
        change = by_identity[id(parameter)]
        state = _cut_state(optimizer.state.pop(parameter), change)
        if state is not None:
            optimizer.state[change.new] = state
    if isinstance(optimizer, LBFGS):
        # It treats all parameters as one vector, whose length it remembers.
        optimizer.state.clear()
        optimizer._numel_cache = None


def _cut_state(state: Mapping[str, Any], change: Replaced) -> dict[str, Any] | None:
    """Return the state of the narrower parameter; nothing where it cannot be cut."""
    shape = change.old.shape
    found = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.numel() > 1:
            if value.ndim != len(shape) or any(
                size not in (1, full) for size, full in zip(value.shape, shape, strict=True)
            ):
                return None
            axes = {axis: gone for axis, gone in change.removed.items() if value.shape[axis] > 1}
            value = narrowed(value, axes)
        elif isinstance(value, (list, tuple, dict)):
            return None
        found[key] = value
    return found
