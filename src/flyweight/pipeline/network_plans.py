"""What to prune, and the plan that follows from it. Light: needs neither data nor a trainer."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flyweight.checkpoint import Checkpoint, rebuild
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config
from flyweight.errors import PlanError, counted, nearest
from flyweight.graph import ModelGraph, trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.pipeline.networks import create_network
from flyweight.pruning import CRITERIA, Criterion, PruningPlan, plan, prune
from flyweight.zoo import SPECS
from flyweight.zoo.sources.old_names import old_names
from flyweight.zoo.sources.own import Builder

TAYLOR = "taylor"
ALL = "all"


@dataclass(frozen=True)
class Cut:
    """What to prune and how.

    Attributes:
        params: Layers, by the name of their weight; old spellings are understood. `all` alone
            stands for every layer that can be cut.
        ratios: Share of channels to remove, one per layer.
        criterion: A name of `pruning.CRITERIA`, or `taylor`, which needs images.
        round_to: Multiple that the channels that stay are rounded to.
        from_scan: Whether the layers were found by a scan, maybe of another network: those that
            this one does not have, or cannot cut, are passed over.
        scan: File of a scan to choose ratios from, within `budget`.
        budget: As `Budget.parse` reads it, for example `macs=0.5`.
    """

    params: tuple[str, ...]
    ratios: tuple[float, ...]
    criterion: str = "l1_norm"
    round_to: int = 1
    from_scan: bool = False
    scan: str = ""
    budget: str = ""

    def __post_init__(self) -> None:
        if not self.params and not self.budget:
            raise PlanError(
                "Pruning must be told what to cut. Received no layer. Give --pruned-params and "
                "--pruned-ratios, or a 'prune' section in the config."
            )
        if len(self.params) != len(self.ratios):
            raise PlanError(
                "Pruned parameters and ratios must be equally many. Received "
                f"{counted(len(self.params), 'parameter')} and "
                f"{counted(len(self.ratios), 'ratio')}. Give one ratio per parameter."
            )
        known = [*CRITERIA, TAYLOR]
        if self.criterion not in known:
            raise PlanError(
                f"A criterion must be a known one. Received '{self.criterion}'. "
                f"{nearest(self.criterion, known)}"
            )
        if len(set(self.params)) < len(self.params):
            twice = next(name for name in self.params if self.params.count(name) > 1)
            raise PlanError(
                f"A parameter must be named once. Received '{twice}' twice. Remove one."
            )

    def prices(self, graph: ModelGraph) -> LatencyPrices | None:
        """Return what the network's layers take; None where no table was given."""
        return None


def build_model(config: Config) -> nn.Module:
    """Return the config's network with fresh weights, the same for the same `train.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return create_network(config)


def weightless(config: Config) -> nn.Module:
    """Return the config's network to look at: shapes without memory, where it is of the zoo.

    Networks of other libraries and your own may compute constants as they are built, for which
    they need memory.
    """
    with torch.device("meta") if config.model in SPECS else nullcontext():
        return create_network(config)


def example_input(preprocessing: Preprocessing, device: str = "cpu") -> tuple[Tensor, ...]:
    """Return an image of the network's input size, for tracing."""
    size = (1, 3, preprocessing.height, preprocessing.width)
    return (torch.zeros(size, device=device),)


def trace_model(model: nn.Module, preprocessing: Preprocessing) -> ModelGraph:
    """Trace `model` at its input size, on whatever device it lives."""
    device = str(next(model.parameters()).device)
    return trace(model, example_input(preprocessing, device))


def plan_cut(graph: ModelGraph, cut: Cut, measured: Criterion | None = None) -> PruningPlan:
    """Choose channels by the originals' rule: each layer by its own unpruned weights.

    A model without weights can be priced, not pruned: its plan keeps the first channels.

    Args:
        graph: Of the model to cut.
        cut: What to cut and how.
        measured: The criterion that `cut` names, where it was measured on images.

    Raises:
        PlanError: A name, a ratio or the criterion cannot be meant.
    """
    weightless = any(tensor.is_meta for tensor in graph.tensors.values())
    aliases = old_names(graph.tensors)
    return plan(
        graph,
        _wanted(graph, cut, aliases),
        "first" if weightless else measured or cut.criterion,
        round_to=cut.round_to,
        local=True,
        aliases=aliases,
    )


def _wanted(graph: ModelGraph, cut: Cut, aliases: Mapping[str, str]) -> Mapping[str, float] | float:
    if cut.budget:
        from flyweight.sensitivity import Budget, read

        wanted = Budget.parse(cut.budget)
        prices = cut.prices(graph)
        return read(cut.scan).ratios_within(graph, wanted, cut.round_to, aliases, prices)
    ratios = dict(zip(cut.params, cut.ratios, strict=True))
    if set(ratios) == {ALL}:
        return ratios[ALL]
    return _possible(graph, ratios) if cut.from_scan else ratios


def _possible(graph: ModelGraph, ratios: dict[str, float]) -> dict[str, float]:
    """Return the ratios of layers that `graph` has and can cut."""
    found: dict[str, float] = {}
    refused: PlanError | None = None
    for name, ratio in ratios.items():
        try:
            plan(graph, {name: ratio}, "first", aliases=old_names(graph.tensors))
            found[name] = ratio
        except PlanError as error:
            refused = error
    if not found and refused is not None:
        raise PlanError(
            f"Some layer of the scan must be one that this network can cut. Received "
            f"{counted(len(ratios), 'layer')}, and none is. The last one: {refused}"
        )
    return found


def prune_model(
    model: nn.Module, preprocessing: Preprocessing, cut: Cut, measured: Criterion | None = None
) -> tuple[nn.Module, PruningPlan]:
    """Return the pruned network and the plan that made it; see `plan_cut`."""
    made = plan_cut(trace_model(model, preprocessing), cut, measured)
    return prune(model, made), made


def with_cut(
    model: nn.Module,
    found: Checkpoint,
    preprocessing: Preprocessing,
    cut: Cut,
    build: Builder | None = None,
) -> nn.Module:
    """Return the model that a checkpoint and ratios given with it mean, as the originals took them.

    A pruned checkpoint must have been pruned with these ratios; another is cut now.

    Args:
        model: From the checkpoint.
        found: What the checkpoint says.
        preprocessing: Of the network's input.
        cut: What was asked for.
        build: Makes the network where it is your own.

    Raises:
        PlanError: The ratios are others, or cannot be meant for this network.
    """
    if not found.origin.plans:
        return prune_model(model, preprocessing, cut)[0]
    before = rebuild(replace(found, origin=found.origin.before_last("prune")), build)
    _require_same_cut(found, plan_cut(trace_model(before, preprocessing), cut))
    return model


def _require_same_cut(found: Checkpoint, wanted: PruningPlan) -> None:
    last = found.origin.plans[-1]
    saved = PruningPlan.from_json(last).groups
    for name, group in wanted.groups.items():
        removed = group.channels - (len(saved[name].keep) if name in saved else group.channels)
        asked = group.channels - len(group.keep)
        if asked != removed:
            raise PlanError(
                "Ratios given for a pruned checkpoint must be those it was pruned with. Received "
                f"ones that remove {asked} of the {group.channels} channels of '{name}', where "
                f"{removed} were removed. Leave the ratios out: the file knows."
            )
