"""What to prune, and the plan that follows from it. Light: needs neither data nor a trainer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.data.preprocess import Preprocessing
from flyweight.errors import PlanError
from flyweight.graph import ModelGraph, trace
from flyweight.lineage import lineage_of
from flyweight.pruning import PruningPlan, plan, prune
from flyweight.recipe.config import Config
from flyweight.zoo import create
from flyweight.zoo.old_names import old_names


@dataclass(frozen=True)
class Cut:
    """What to prune and how.

    Attributes:
        params: Layers, by the name of their weight; old spellings are understood.
        ratios: Share of channels to remove, one per layer.
        criterion: A name of `pruning.CRITERIA`.
        round_to: Multiple that the channels that stay are rounded to.
    """

    params: tuple[str, ...]
    ratios: tuple[float, ...]
    criterion: str = "l1_norm"
    round_to: int = 1

    def __post_init__(self) -> None:
        if not self.params:
            raise PlanError(
                "Pruning must be told what to cut. Received no layer. Give --pruned-params and "
                "--pruned-ratios, or a 'prune' section in the config."
            )
        if len(self.params) != len(self.ratios):
            raise PlanError(
                "Pruned parameters and ratios must be equally many. Received "
                f"{len(self.params)} parameters and {len(self.ratios)} ratios. Give one ratio per "
                "parameter."
            )


def build_model(config: Config) -> nn.Module:
    """Return the config's network with fresh weights, the same for the same `train.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return create(config.model, **config.arguments)


def weightless(config: Config) -> nn.Module:
    """Return the config's network on the meta device: shapes without memory."""
    with torch.device("meta"):
        return create(config.model, **config.arguments)


def example_input(preprocessing: Preprocessing, device: str = "cpu") -> tuple[Tensor, ...]:
    """Return a picture of the network's input size, for tracing."""
    size = (1, 3, preprocessing.height, preprocessing.width)
    return (torch.zeros(size, device=device),)


def trace_model(model: nn.Module, config: Config) -> ModelGraph:
    """Trace `model` at the config's input size, on whatever device it lives."""
    device = str(next(model.parameters()).device)
    return trace(model, example_input(config.preprocessing, device))


def plan_cut(graph: ModelGraph, cut: Cut) -> PruningPlan:
    """Choose channels by the originals' rule: each layer by its own unpruned weights.

    A model without weights can be priced, not pruned: its plan keeps the first channels.

    Raises:
        PlanError: A name, a ratio or the criterion cannot be meant.
    """
    weightless = any(tensor.is_meta for tensor in graph.tensors.values())
    if len(set(cut.params)) < len(cut.params):
        twice = next(name for name in cut.params if cut.params.count(name) > 1)
        raise PlanError(f"A parameter must be named once. Received '{twice}' twice. Remove one.")
    return plan(
        graph,
        dict(zip(cut.params, cut.ratios, strict=True)),
        "first" if weightless else cut.criterion,
        round_to=cut.round_to,
        local=True,
        aliases=old_names(graph.tensors),
    )


def prune_model(model: nn.Module, config: Config, cut: Cut) -> tuple[nn.Module, PruningPlan]:
    """Return the pruned network and the plan that made it."""
    made = plan_cut(trace_model(model, config), cut)
    return prune(model, made), made


def require_same_cut(model: nn.Module, config: Config, cut: Cut) -> None:
    """Check that ratios given again, as the originals wanted, are those of the checkpoint.

    Raises:
        PlanError: They are not.
    """
    lineage = lineage_of(model)
    plans = [PruningPlan.from_json(text) for text in lineage.plans] if lineage else []
    if not plans:
        return
    removed = {
        member.tensor: group.channels - len(group.keep)
        for made in plans
        for group in made.groups.values()
        for member in group.members
        if member.role == "produces"
    }
    aliases = old_names(name for name, _ in model.named_parameters())
    for name, ratio in zip(cut.params, cut.ratios, strict=True):
        tensor = aliases.get(name, name)
        channels = model.get_parameter(tensor).shape[0] + removed.get(tensor, 0)
        asked = round(channels * ratio)
        if asked != removed.get(tensor, 0):
            raise PlanError(
                "Ratios given for a pruned checkpoint must be those it was pruned with. Received "
                f"{ratio:g} for '{name}' ({asked} of {channels} channels), but "
                f"{removed.get(tensor, 0)} "
                "were removed. Leave --pruned-params and --pruned-ratios out: the file knows."
            )
