"""Plans of cuts: one pure function from a cut and a traced network to a pruning plan.

The command line, chains of stages and Python all make their plans here. Nothing is read from files:
curves and prices are handed over as values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flyweight.config.cuts import ALL, BudgetCut, Cut, MaxDropCut, RankingCut, RatioCut
from flyweight.errors import PlanError, counted
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.loss_curves import Losses, leading_layers, ratios_at, ratios_within
from flyweight.planning.ranking import Limits, plan_globally
from flyweight.pruning.criteria import Criterion
from flyweight.pruning.make_plan import plan
from flyweight.pruning.mixed import note_on_curves
from flyweight.pruning.plans import PruningPlan


@dataclass(frozen=True)
class PlanRules:
    """How layers are found and scored.

    Attributes:
        local: Score the named layer alone, as the originals did, not all layers that make the
            group's channels. A ranking always scores all of them.
        inexact: Allow groups whose channels pass an operation that mixes them.
        aliases: Other names of parameters.
        skip_unknown: Under a max drop, leave out scanned layers that the network does not have or
            that cannot be cut, instead of refusing them.
    """

    local: bool = False
    inexact: bool = False
    aliases: Mapping[str, str] | None = None
    skip_unknown: bool = False


def plan_cut(
    graph: ModelGraph,
    cut: Cut,
    *,
    losses: Losses | None = None,
    prices: LatencyPrices | None = None,
    scorer: str | Criterion | None = None,
    rules: PlanRules = PlanRules(),
) -> PruningPlan:
    """Return the plan that a cut means for a network.

    Args:
        graph: Of the network to cut, with the weights that criteria look at.
        cut: What to cut.
        losses: The curves of `cut.scan`, by layer: ratio to loss as a share of the metric.
        prices: The latency of layers, from the cut's latency table, for a latency budget. The plan
            is within the budget as they predict it, which is not measured.
        scorer: A criterion in place of the one that the cut names: `taylor`, once measured on
            images, or `first`, to price a network without weights.
        rules: How layers are found and scored.

    Raises:
        PlanError: A layer is unknown or cannot be cut, the curves allow no cut, or the budget
            cannot be met.
    """
    if isinstance(cut, RankingCut):
        return plan_globally(
            graph,
            scorer or cut.ranking,
            budget=cut.budget,
            round_to=cut.round_to,
            limits=Limits(inexact=rules.inexact),
        )
    made = plan(
        graph,
        _ratios(graph, cut, losses, prices, rules),
        scorer or cut.criterion,
        round_to=cut.round_to,
        local=rules.local,
        inexact=rules.inexact,
        aliases=rules.aliases,
    )
    note = None
    if isinstance(cut, BudgetCut) and losses is not None:
        note = note_on_curves(graph, leading_layers(losses, graph, rules.aliases))
    return made if note is None else replace(made, notes=(*made.notes, note))


def _ratios(
    graph: ModelGraph,
    cut: RatioCut | MaxDropCut | BudgetCut,
    losses: Losses | None,
    prices: LatencyPrices | None,
    rules: PlanRules,
) -> Mapping[str, float] | float:
    if isinstance(cut, RatioCut):
        ratios = dict(zip(cut.params, cut.ratios, strict=True))
        return ratios.get(ALL, ratios)
    if losses is None:
        raise PlanError(
            f"A cut by a scan must come with its curves. Received none for '{cut.scan}'. "
            "Read them with flyweight.sensitivity.read and give losses=curves.all_losses()."
        )
    if isinstance(cut, BudgetCut):
        return ratios_within(
            losses,
            graph,
            cut.budget,
            round_to=cut.round_to,
            aliases=rules.aliases,
            prices=prices,
        )
    chosen = ratios_at(losses, cut.max_drop, cut.rule)
    return _possible(graph, chosen, rules) if rules.skip_unknown else chosen


def _possible(graph: ModelGraph, ratios: Mapping[str, float], rules: PlanRules) -> dict[str, float]:
    """Return the ratios of the layers that the network has and that can be cut."""
    found: dict[str, float] = {}
    refused: PlanError | None = None
    for name, ratio in ratios.items():
        try:
            plan(graph, {name: ratio}, "first", inexact=rules.inexact, aliases=rules.aliases)
            found[name] = ratio
        except PlanError as error:
            refused = error
    if not found and refused is not None:
        raise PlanError(
            "Some layer of the scan must be one that this network can cut. Received "
            f"{counted(len(ratios), 'layer')}, and none is. The last one: {refused}"
        )
    return found
