"""Cut the channels that a plan does not keep; prove that the result computes the same.

The result is a plain module of the same classes: parameters are replaced by narrower ones and the
attributes that describe them are kept true.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flyweight.errors import PlanError
from flyweight.graph.cutting import Removed, cut_tensors, set_numbers
from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example, draw, tensors_in
from flyweight.graph.recording import private_copy
from flyweight.graph.stored import copy_module, held_tensors
from flyweight.origin import PRUNE_VERSION, Transform, note_transform
from flyweight.pruning.optimizers import carry_over
from flyweight.pruning.plans import PruningPlan


def prune(model: nn.Module, plan: PruningPlan, *, verify: bool = True) -> nn.Module:
    """Return a copy of `model` without the channels that `plan` removes.

    Args:
        model: The module that the plan's graph was traced from, or one built like it.
        plan: From `plan`, a solver, or `PruningPlan.from_json`.
        verify: Run both networks once on random inputs and compare; skipped on the meta device.

    Raises:
        PlanError: The plan names tensors or sizes that the model does not have, or the module's
            own code does not follow the cut.
    """
    removed = plan.removed()
    # What is cut is made anew, so that its old values need not be copied.
    shared = {id(tensor): tensor for name, tensor, _ in held_tensors(model) if name in removed}
    _require_tensors(model, plan, removed)
    small = copy_module(model, shared)
    prune_(small, plan)
    has_example = bool(plan.inputs or plan.keywords)
    if verify and has_example and not any(tensor.is_meta for tensor in model.parameters()):
        require_same(model, small, plan)
    return small


def prune_(model: nn.Module, plan: PruningPlan, optimizer: Optimizer | None = None) -> None:
    """Cut `model` in place; see `prune`.

    Args:
        model: Changed in place; its parameters are replaced by new ones.
        plan: What to keep.
        optimizer: Taken along: it trains the new parameters with its state of the old ones.

    Raises:
        PlanError: The plan names tensors or sizes that the model does not have.
    """
    removed = plan.removed()
    _require_tensors(model, plan, removed)
    replaced = cut_tensors(model, removed, plan.orders)
    if optimizer is not None:
        carry_over(optimizer, replaced)
    _set_numbers(model, plan)
    note_transform(model, Transform("prune", PRUNE_VERSION, plan.to_json()))


def _set_numbers(model: nn.Module, plan: PruningPlan) -> None:
    try:
        set_numbers(model, plan.numbers)
    except AttributeError as error:
        raise PlanError(
            f"A plan must meet the model it was made for. Received a plan for another: {error}. "
            "Make the plan again from this model."
        ) from error


def _require_tensors(model: nn.Module, plan: PruningPlan, removed: Removed) -> None:
    tensors = {name: tensor for name, tensor, _ in held_tensors(model)}
    for name, axes in removed.items():
        if name not in tensors:
            raise PlanError(
                "A plan must meet the model it was made for. Received a plan that narrows "
                f"'{name}', which "
                f"{type(model).__name__} does not have. Make the plan again from this model."
            )
        shape = tuple(tensors[name].shape)
        if any(
            axis >= len(shape) or max(gone) >= shape[axis] for axis, gone in axes.items() if gone
        ):
            raise PlanError(
                f"A plan must meet the model it was made for. Received a model whose '{name}' has "
                f"shape {shape}, "
                f"too small for the plan of graph {plan.graph}. Was it pruned already?"
            )


def masked(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """Return a copy of `model` with the removed channels zeroed where they are read.

    This is what the pruned network must equal: every axis that consumes removed channels has zero
    weights there. It is a definition, not a shortcut; it costs what the dense network costs.
    """
    twin = copy_module(model)
    tensors = {name: tensor for name, tensor, _ in held_tensors(twin)}
    with torch.no_grad():
        for group in plan.groups.values():
            gone = sorted(set(range(group.channels)) - set(group.keep))
            for member in group.members:
                if member.role == "consumes":
                    places = torch.as_tensor(member.positions(group.channels)[gone].ravel())
                    tensors[member.tensor].index_fill_(
                        member.axis, places.to(tensors[member.tensor].device), 0
                    )
    return twin


def largest_error(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> float:
    """Return the largest difference between `small` and the masked `dense`, as a share.

    Args:
        dense: The network before the cut.
        small: The network after it.
        plan: What was cut.
        inputs: Any inputs; both networks run on them in evaluation mode.
        kwargs: Inputs by keyword.
    """
    example = Example(inputs, dict(kwargs or {}))
    expected = _outputs(masked(dense, plan), example)
    found = _outputs(small, example)
    worst = 0.0
    for want, have in zip(expected, found, strict=True):
        if want.shape != have.shape:
            return math.inf
        scale = max(float(want.abs().max()), 1e-12) if want.numel() else 1.0
        gap = float((want - have).abs().max()) / scale if want.numel() else 0.0
        worst = max(worst, gap if math.isfinite(gap) else math.inf)
    return worst


def _outputs(model: nn.Module, example: Example) -> list[Tensor]:
    # A copy runs: what its forward keeps was made in inference mode and would refuse training.
    copy = private_copy(model, values=True)
    with evaluating(model):
        return list(tensors_in(copy(*example.args, **example.kwargs)))


def require_same(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, tolerance: float = 1e-3
) -> None:
    """Check once, on random inputs, that `small` computes what the masked `dense` does.

    A plan that is not exact by its own account must only run. The tolerance allows for float32 sums
    in another order, which deep networks amplify.

    Raises:
        PlanError: The module's code does not follow the cut, or the results differ.
    """
    generator = torch.Generator().manual_seed(0)
    first = next(iter(dense.parameters()))
    inputs = tuple(draw(spec, generator, first) for spec in plan.inputs)
    kwargs = {name: draw(spec, generator, first) for name, spec in plan.keywords.items()}
    example = Example(inputs, kwargs)
    try:
        error = largest_error(dense, small, plan, inputs, kwargs)
    except (RuntimeError, ValueError, IndexError, AssertionError) as failure:
        raise PlanError(
            "A cut must be one that the model's own code follows. Received from "
            f"{type(small).__name__}: "
            f"{_first_line(failure)}. Leave out the groups that this code counts by "
            "hand."
        ) from failure
    if error > tolerance and plan.exact:
        # What a network chooses by scores, regions for one, flips with the last bit of float32.
        error = min(error, _error_in_double(dense, small, plan, example))
    if error > tolerance and plan.exact:
        raise PlanError(
            "A pruned model must equal the dense one with the removed channels zeroed. Received a "
            "relative error of "
            f"{error:.2g} (allowed {tolerance:g}). Please report this model; nothing was returned."
        )


def _error_in_double(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, example: Example
) -> float:
    """Return `largest_error` in double precision; infinite for code that requires another."""
    wide = example.mapped(lambda one: one.double() if one.is_floating_point() else one)
    copies = (copy_module(dense).double(), copy_module(small).double())
    try:
        return largest_error(*copies, plan, wide.args, wide.kwargs)
    except (RuntimeError, ValueError):
        return math.inf


def _first_line(failure: Exception) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0][:200]
