"""Optimizers after a cut: they train the new parameters with the state of the old ones."""

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Optimizer

from flyweight.graph.cutting import Replaced, narrowed


def carry_over(optimizer: Optimizer, replaced: Iterable[Replaced]) -> None:
    """Make `optimizer` train the new parameters with the state of the old ones.

    State of a parameter's own shape (momentum, averages of gradients and of their squares) is cut
    as the parameter was; other state, such as a step count, is kept.

    Args:
        optimizer: Changed in place.
        replaced: From `cut_tensors`; tensors that the optimizer does not train are skipped.
    """
    by_identity = {id(change.old): change for change in replaced}
    for group in optimizer.param_groups:
        group["params"] = [
            by_identity[id(parameter)].new if id(parameter) in by_identity else parameter
            for parameter in group["params"]
        ]
    for parameter in [known for known in optimizer.state if id(known) in by_identity]:
        change = by_identity[id(parameter)]
        state = optimizer.state.pop(parameter)
        optimizer.state[change.new] = {
            key: narrowed(value, change.removed)
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for key, value in state.items()
        }
