"""Surgery: removal of the channels that a plan does not keep, and the check of the result.

The result is a module of the same classes: parameters are replaced by narrower ones, and the
attributes that repeat their sizes are updated.
"""

from torch import Tensor, nn
from torch.optim import Optimizer

from flyweight.errors import PlanError
from flyweight.graph.cutting import Removed, cut_tensors, narrowed, set_numbers
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example
from flyweight.graph.kept_results import KeptResult, results_kept, without_results
from flyweight.graph.rescaling import correct
from flyweight.graph.stored import copy_module, held_tensors
from flyweight.origin import PRUNE_VERSION, Transform, note_transform
from flyweight.pruning.optimizers import carry_over
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.verification import require_same, runs_of


def prune(model: nn.Module, plan: PruningPlan, *, verify: bool = True) -> nn.Module:
    """Return a copy of `model` without the channels that `plan` removes.

    The copy keeps what the model carries beside its values: layout in memory (channels_last), type
    and device of tensors, attributes set on parameters, hooks of modules, and the mode. Gradients
    and hooks registered on single tensors stay with the model. So do results that the model keeps
    for its next run; the copy computes its own.

    Args:
        model: The module that the plan's graph was traced from, or one of the same architecture.
        plan: From `plan`, a solver, or `PruningPlan.from_json`.
        verify: Repeat the recorded runs with both networks and compare the outputs. Skipped on
            the meta device.

    Raises:
        PlanError: The plan names tensors or sizes that the model does not have, or the module's
            code does not compute with the sizes after the cut.
    """
    model = plain_module(model)
    _require_tensors(model, plan)
    removed = plan.removed()
    # Tensors that are cut are replaced, so their old values need not be copied.
    shared = {id(tensor): tensor for name, tensor, _ in held_tensors(model) if name in removed}
    kept = _results_kept(model, plan, removed)
    small = copy_module(model, shared, private=False)
    for place in kept:
        place.forget(small)
    _cut(small, plan, removed)
    for parameter in small.parameters():
        parameter.grad = None  # A copy has no gradients, as with `copy.deepcopy`.
    if verify and _can_run(model, plan):
        # Results of an earlier run were not computed in the precision of the check.
        dense = without_results(model, kept)
        require_same(dense, small, plan, lambda part: prune(model, part, verify=False))
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
    _require_tensors(model, plan)
    removed = plan.removed()
    for place in _results_kept(model, plan, removed):
        place.forget(model)
    _cut(model, plan, removed, optimizer)


def _can_run(model: nn.Module, plan: PruningPlan) -> bool:
    has_example = bool(plan.inputs or plan.keywords)
    return has_example and not any(tensor.is_meta for tensor in model.parameters())


def _results_kept(model: nn.Module, plan: PruningPlan, removed: Removed) -> tuple[KeptResult, ...]:
    """Return the results of earlier runs that a cut would leave behind; a plan may have no example.

    A model on the meta device has shapes alone, and does not run.
    """

    def cheapest() -> Example:
        runs = [run for run in runs_of(model, plan) if run.mode == "evaluation"]
        return min(runs, key=lambda run: run.macs).example

    if not _can_run(model, plan):
        return ()
    return results_kept(model, cheapest, removed.keys(), values=True)


def _cut(
    model: nn.Module, plan: PruningPlan, removed: Removed, optimizer: Optimizer | None = None
) -> None:
    shares = _norm_shares(model, plan, removed)
    replaced = cut_tensors(model, removed, plan.orders)
    tensors = {name: tensor for name, tensor, _ in held_tensors(model)}
    for scale, share in shares.items():
        correct(tensors[scale], share)
    if optimizer is not None:
        carry_over(optimizer, replaced)
    _set_numbers(model, plan)
    note_transform(model, Transform("prune", PRUNE_VERSION, plan.to_json()))


def _norm_shares(model: nn.Module, plan: PruningPlan, removed: Removed) -> dict[str, Tensor]:
    """Return what the scales beside normalised weights are multiplied by, by their names."""
    tensors = {name: tensor for name, tensor, _ in held_tensors(model)}
    shares = {}
    for one in plan.rescaled:
        weight, gone = tensors[one.weight], removed.get(one.weight, {})
        if not weight.is_meta:
            inside = {axis: places for axis, places in gone.items() if axis in one.axes}
            outside = {axis: places for axis, places in gone.items() if axis not in one.axes}
            share = one.share(weight, narrowed(weight, inside))
            shares[one.scale] = narrowed(share, outside)
    return shares


def _set_numbers(model: nn.Module, plan: PruningPlan) -> None:
    try:
        set_numbers(model, plan.numbers)
    except AttributeError as error:
        raise PlanError(
            f"A plan must meet the model it was made for. Received a plan for another: {error}. "
            "Make the plan again from this model."
        ) from error


def _require_tensors(model: nn.Module, plan: PruningPlan) -> None:
    plan.require_shapes({name: tuple(tensor.shape) for name, tensor, _ in held_tensors(model)})
