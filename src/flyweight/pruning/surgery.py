"""Surgery: removal of the channels that a plan does not keep, and the check of the result.

The result is a module of the same classes: parameters are replaced by narrower ones, and the
attributes that repeat their sizes are updated.
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
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example, draw, tensors_in
from flyweight.graph.recording import private_copy
from flyweight.graph.stored import copy_module, held_tensors
from flyweight.origin import PRUNE_VERSION, Transform, note_transform
from flyweight.pruning.optimizers import carry_over
from flyweight.pruning.plans import PruningPlan


def prune(model: nn.Module, plan: PruningPlan, *, verify: bool = True) -> nn.Module:
    """Return a copy of `model` without the channels that `plan` removes.

    The copy keeps what the model carries beside its values: layout in memory (channels_last), type
    and device of tensors, attributes set on parameters, hooks of modules, and the mode. Gradients
    and hooks registered on single tensors stay with the model.

    Args:
        model: The module that the plan's graph was traced from, or one of the same architecture.
        plan: From `plan`, a solver, or `PruningPlan.from_json`.
        verify: Run both networks once on random inputs and compare the outputs. Skipped on the
            meta device.

    Raises:
        PlanError: The plan names tensors or sizes that the model does not have, or the module's
            code does not compute with the sizes after the cut.
    """
    model = plain_module(model)
    removed = plan.removed()
    # Tensors that are cut are replaced, so their old values need not be copied.
    shared = {id(tensor): tensor for name, tensor, _ in held_tensors(model) if name in removed}
    _require_tensors(model, plan, removed)
    small = copy_module(model, shared)
    prune_(small, plan)
    for parameter in small.parameters():
        parameter.grad = None  # A copy has no gradients, as with `copy.deepcopy`.
    has_example = bool(plan.inputs or plan.keywords)
    if verify and has_example and not any(tensor.is_meta for tensor in model.parameters()):
        require_same(model, small, plan)
    return small


def prune_(model: nn.Module, plan: PruningPlan, optimizer: Optimizer | None = None) -> None:
    """Remove channels of `model` in place; see `prune`.

    Gradients are cut as their parameters are. Hooks registered on a tensor that is cut stay with
    the old tensor: register them again.

    Args:
        model: Changed in place; its parameters are replaced by new ones.
        plan: The channels that stay.
        optimizer: It trains the new parameters afterwards, with its state of the old ones.

    Raises:
        PlanError: The plan names tensors or sizes that the model does not have.
    """
    model = plain_module(model)
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
                f"'{name}', which {type(model).__name__} does not have. Make the plan again from "
                "this model."
            )
        shape = tuple(tensors[name].shape)
        if any(
            axis >= len(shape) or max(gone) >= shape[axis] for axis, gone in axes.items() if gone
        ):
            raise PlanError(
                f"A plan must meet the model it was made for. Received a model whose '{name}' has "
                f"shape {shape}, which is too small for the plan of graph {plan.graph}. Use the "
                "model before any cut; this one may have been pruned already."
            )


def masked(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """Return a copy of `model` with the removed channels zeroed where they are read.

    The pruned network must equal this one: every axis that consumes removed channels has zero
    weights there. This is the definition of an exact cut; it saves no computation.
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
    """Return the largest relative difference between the outputs of `small` and masked `dense`.

    Args:
        dense: The network before the cut.
        small: The network after it.
        plan: The cut.
        inputs: Any inputs; both networks run on them in evaluation mode.
        kwargs: Inputs by keyword.

    Returns:
        The largest absolute difference of an output tensor divided by its largest absolute value;
        infinite where shapes differ or values are not finite.
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
    # A copy runs, because a tensor that the forward stores was made in inference mode, and training
    # with it would fail.
    copy = private_copy(model, values=True)
    with evaluating(model):
        return list(tensors_in(copy(*example.args, **example.kwargs)))


def require_same(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, tolerance: float = 1e-3
) -> None:
    """Check once, on random inputs, that `small` computes the same as the masked `dense`.

    The result of a plan that is not exact only has to run. The tolerance allows for float32 sums in
    another order, whose differences deep networks amplify.

    Raises:
        PlanError: The module's code fails after the cut, or the results differ.
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
            f"{type(small).__name__}: {_first_line(failure)}. Leave out the groups whose size this "
            "code contains as a number."
        ) from failure
    if error > tolerance and plan.exact:
        # Choices by score, such as the regions of a detector, can change with the last bit of
        # float32.
        error = min(error, _error_in_double(dense, small, plan, example))
    if error > tolerance and plan.exact:
        raise PlanError(
            "A pruned model must equal the dense one with the removed channels zeroed. Received a "
            f"relative error of {error:.2g} (allowed {tolerance:g}). Please report this model; "
            "nothing was returned."
        )


def _error_in_double(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, example: Example
) -> float:
    """Return `largest_error` in double precision; infinite if the code fails in it."""
    wide = example.mapped(lambda one: one.double() if one.is_floating_point() else one)
    copies = (copy_module(dense).double(), copy_module(small).double())
    try:
        return largest_error(*copies, plan, wide.args, wide.kwargs)
    except (RuntimeError, ValueError):
        return math.inf


def _first_line(failure: Exception) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0][:200]
