"""Loss curves: what each layer's channels are worth, and the ratios and widths that follow.

A curve is a plain mapping from the share of a layer's channels that are removed to the loss that
the cut causes by itself, as a share of the metric before any cut. A scan measures such curves;
nothing here depends on how.
"""

from collections.abc import Mapping

import numpy as np

from flyweight.config.budget import Budget
from flyweight.config.cuts import Rule, require_max_drop
from flyweight.errors import PlanError
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.budget_solver import solve
from flyweight.planning.knapsack import Option
from flyweight.pruning.make_plan import kept_count, plan

Curve = Mapping[float, float]
"""Ratio to loss."""
Losses = Mapping[str, Curve]
"""Layer to its curve, under any name that a plan understands."""


def ratios_at(losses: Losses, max_drop: float, rule: Rule = "monotone") -> dict[str, float]:
    """Return, for every layer, the largest ratio that costs at most `max_drop`.

    Between two ratios the loss is interpolated linearly; below the first one a layer is not cut,
    as the originals did it. A noisy curve that dips below the threshold after it was above it is
    read two ways: `monotone` takes what more channels cost to be at least what fewer do,
    `original` takes the last dip.

    Args:
        losses: The curves.
        max_drop: Share of the metric that each layer may cost, in 0..1.
        rule: How dips are read.

    Raises:
        PlanError: `max_drop` is not within 0..1, or no layer allows any cut.
    """
    require_max_drop(max_drop)
    found = {layer: _ratio_at(curve, max_drop, rule) for layer, curve in losses.items()}
    chosen = {layer: ratio for layer, ratio in found.items() if ratio > 0}
    if not chosen:
        least = min(loss for curve in losses.values() for loss in curve.values())
        raise PlanError(
            f"max_drop must allow some layer to be cut. Received {max_drop:g}, where the least "
            f"that any cut costs is {least:.3g}. Allow more, or scan smaller ratios."
        )
    return chosen


def ratios_within(
    losses: Losses,
    graph: ModelGraph,
    budget: Budget,
    *,
    round_to: int = 1,
    aliases: Mapping[str, str] | None = None,
    prices: LatencyPrices | None = None,
) -> dict[str, float]:
    """Return the ratios whose losses, added up, are least among all within a budget.

    Args:
        losses: The curves.
        graph: Of the network to cut.
        budget: What it may cost.
        round_to: Multiple that the number of channels that stay is rounded to; under a latency
            budget that of the table is kept, too.
        aliases: Other names of parameters.
        prices: Prices of layers, for a latency budget; the answer is as good as their prediction.

    Raises:
        PlanError: The budget cannot be met, there are no prices for it, or the curves are of other
            layers.
    """
    multiple = round_to if prices is None else prices.multiple_of(round_to)
    layers, options = width_options(losses, graph, multiple, aliases)
    found = solve(graph, options, budget, prices)
    return ratios_of(graph, layers, {group: option.keep for group, option in found.items()})


def width_options(
    losses: Losses,
    graph: ModelGraph,
    round_to: int = 1,
    aliases: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], dict[str, list[Option]]]:
    """Return the layer of each group that the curves cover, and the widths that it can take.

    Raises:
        PlanError: The curves are of other layers.
    """
    layers = leading_layers(losses, graph, aliases)
    options = {
        group: widths(losses[layer], graph.groups[group].size, round_to)
        for group, layer in layers.items()
    }
    return layers, options


def leading_layers(
    losses: Mapping[str, object], graph: ModelGraph, aliases: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return, for every group that a budget can narrow, the layer whose curve is used for it.

    Raises:
        PlanError: The curves are of other layers.
    """
    layers: dict[str, str] = {}
    for layer in losses:
        touched = plan(graph, {layer: 0.5}, "first", inexact=True, aliases=aliases).groups
        if len(touched) == 1:  # a layer of several groups has no single width
            layers.setdefault(next(iter(touched)), layer)
    return layers


def widths(curve: Curve, channels: int, round_to: int = 1) -> list[Option]:
    """Return the widths that a layer of so many channels can take, and what each costs.

    Losses of widths between the ratios of the curve are interpolated; a wider layer never costs
    more than a narrower one.
    """
    losses = {0.0: 0.0, **curve}
    ratios = sorted(losses)
    values = [max(losses[r] for r in ratios[: place + 1]) for place in range(len(ratios))]
    # A scan cut whole channels at each ratio. Losses of other widths lie between.
    gone = [channels - kept_count(channels, ratio, 1) if ratio else 0 for ratio in ratios]
    tried = np.unique(np.concatenate([ratios, (np.array(ratios[1:]) + ratios[:-1]) / 2]))
    kept = {
        channels if ratio == 0 else kept_count(channels, ratio, round_to)
        for ratio in tried.tolist()
    }
    ordered = sorted(kept, reverse=True)
    found = np.interp([channels - keep for keep in ordered], gone, values)
    return [Option(keep, float(loss)) for keep, loss in zip(ordered, found, strict=True)]


def ratios_of(
    graph: ModelGraph, layers: Mapping[str, str], kept: Mapping[str, int]
) -> dict[str, float]:
    """Return the ratios that leave so many channels of groups, by layer; whole ones are left out.

    Args:
        graph: Of the network to cut.
        layers: Group to the layer whose curve is used for it.
        kept: Group to the number of channels that stay.
    """
    sizes = {group: graph.groups[group].size for group in kept}
    return {
        layers[group]: 1 - keep / sizes[group]
        for group, keep in kept.items()
        if keep < sizes[group]
    }


def _ratio_at(curve: Curve, most: float, rule: Rule) -> float:
    """Return the ratio at which a curve crosses `most`; 0 where it begins above."""
    ratios = sorted(curve)
    values = [curve[ratio] for ratio in ratios]
    if rule == "monotone":
        values = [max(values[: place + 1]) for place in range(len(values))]
    fine = [place for place, value in enumerate(values) if value <= most]
    if not fine:
        return 0.0
    place = fine[-1]
    if place + 1 == len(ratios):
        return ratios[place]
    share = (most - values[place]) / (values[place + 1] - values[place])
    return ratios[place] + share * (ratios[place + 1] - ratios[place])
