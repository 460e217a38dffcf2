"""Plans of a config's network. This module is light: it needs neither data nor a trainer."""

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flyweight.checkpoint import Checkpoint, rebuild
from flyweight.config.cuts import BudgetCut, Cut, MaxDropCut, RankingCut
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config
from flyweight.errors import PlanError
from flyweight.graph import ModelGraph, trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.latency_table import read_table
from flyweight.on_demand import load
from flyweight.pipeline.networks import create_network
from flyweight.planning.cut_plans import PlanRules
from flyweight.planning.cut_plans import plan_cut as plan_of
from flyweight.pruning import Criterion, PruningPlan, prune
from flyweight.zoo import SPECS
from flyweight.zoo.sources.old_names import old_names
from flyweight.zoo.sources.own import Builder

if TYPE_CHECKING:
    from flyweight.sensitivity.curves import Sensitivity

# Most cuts have no scan; `--dry-run` does not wait for the modules of scans then.
_READ_CURVES = "flyweight.sensitivity.curves:read"


def build_model(config: Config) -> nn.Module:
    """Return the config's network with fresh weights, the same for the same `train.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return create_network(config)


def weightless(config: Config) -> nn.Module:
    """Return the config's network without weights: shapes without memory, if it is of the zoo.

    Networks of other libraries and your own may compute constants while they are built, which
    needs memory.
    """
    with torch.device("meta") if config.model in SPECS else nullcontext():
        return create_network(config)


def example_input(preprocessing: Preprocessing, device: str = "cpu") -> tuple[Tensor, ...]:
    """Return an image of the network's input size, for tracing."""
    size = (1, 3, preprocessing.height, preprocessing.width)
    return (torch.zeros(size, device=device),)


def trace_model(model: nn.Module, preprocessing: Preprocessing) -> ModelGraph:
    """Trace `model` at its input size, on the device of its parameters."""
    device = str(next(model.parameters()).device)
    graph = trace(model, example_input(preprocessing, device))
    complete = getattr(model, "evaluates_all_layers", False)
    return replace(graph, notes=()) if complete else graph


def curves_of(cut: Cut) -> "Sensitivity | None":
    """Return the curves of a cut's scan; None where the cut has no scan.

    Raises:
        DataError: The file cannot be read.
    """
    if not isinstance(cut, MaxDropCut | BudgetCut):
        return None
    curves: Sensitivity = load(_READ_CURVES)(cut.scan)
    return curves


def prices_of(cut: Cut, graph: ModelGraph) -> LatencyPrices | None:
    """Return the latency of the network's layers; None where the cut has no latency table.

    Raises:
        FlyweightError: The table cannot be read, or lacks a layer.
    """
    if not isinstance(cut, BudgetCut) or not cut.latency_table:
        return None
    return LatencyPrices.of(graph, read_table(cut.latency_table))


def plan_cut(graph: ModelGraph, cut: Cut, measured: Criterion | None = None) -> PruningPlan:
    """Choose channels by the rule of the original tools: each layer by its own unpruned weights.

    A model without weights can be priced, not pruned: its plan keeps the first channels. A ranking
    needs weights in any case, because the widths depend on them.

    Args:
        graph: The graph of the model to cut.
        cut: What to cut; its files are read.
        measured: The criterion that `cut` names, if it was measured on images.

    Raises:
        PlanError: A name, a ratio or the criterion is invalid.
    """
    weightless = any(tensor.is_meta for tensor in graph.tensors.values())
    curves = curves_of(cut)
    return plan_of(
        graph,
        cut,
        losses=None if curves is None else curves.all_losses(),
        prices=prices_of(cut, graph),
        scorer="first" if weightless and not isinstance(cut, RankingCut) else measured,
        rules=PlanRules(local=True, aliases=old_names(graph.tensors), skip_unknown=True),
    )


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
    """Return a checkpoint's model, pruned with the ratios that were given beside the checkpoint.

    The original tools needed the ratios again for a pruned checkpoint; here they are compared with
    those in the file. A checkpoint that is not pruned is pruned now.

    Args:
        model: The checkpoint's model.
        found: The checkpoint.
        preprocessing: Of the network's input.
        cut: The ratios.
        build: Builds a network of your own.

    Raises:
        PlanError: The checkpoint was pruned with other ratios, or they do not fit the network.
    """
    if not found.origin.plans:
        return prune_model(model, preprocessing, cut)[0]
    before = before_cut(found, build)
    _require_same_cut(found, plan_cut(trace_model(before, preprocessing), cut))
    return model


def before_cut(found: Checkpoint, build: Builder | None = None) -> nn.Module:
    """Return the network of a pruned checkpoint before its last cut, without its weights.

    Args:
        found: The checkpoint; it may have been pruned several times.
        build: Builds a network of your own.
    """
    return rebuild(replace(found, origin=found.origin.before_last("prune")), build)


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
                f"{removed} were removed. Leave the ratios out, because the file has them."
            )
