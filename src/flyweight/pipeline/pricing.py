"""Prices of a cut: what it saves, from shapes alone; light, without data and trainers."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from flyweight import checkpoint as checkpoints
from flyweight.config.cuts import (
    BUILT_IN,
    TAYLOR,
    THIS_RUN,
    BudgetCut,
    Cut,
    MaxDropCut,
    RankingCut,
    nothing_to_cut,
)
from flyweight.config.pruning import PruneConfig
from flyweight.config.settings import Config
from flyweight.errors import CheckpointError, PlanError
from flyweight.graph import Convention, Cost
from flyweight.on_demand import load
from flyweight.pipeline.belonging import (
    dense_checkpoint,
    note_absent_layers,
    require_architecture,
    require_same_labels,
    require_scan,
    uses_of,
)
from flyweight.pipeline.network_plans import (
    build_model,
    curves_of,
    plan_cut,
    prices_of,
    trace_model,
    weightless,
)
from flyweight.pipeline.networks import own_builder
from flyweight.pipeline.preflight import weights_path
from flyweight.pruning import PruningPlan
from flyweight.workspace import Say

# Most cuts have no scan; they do not wait for the modules of scans.
_BUILTIN_CURVES = "flyweight.sensitivity.builtin_curves:builtin_curves"
_READ_CURVES = "flyweight.sensitivity.curves:read"


@dataclass(frozen=True)
class Priced:
    """What a cut would save.

    Attributes:
        plan: What would be cut.
        before: Cost of the dense network.
        after: Cost of the pruned one.
        before_ms: Latency of the dense network, where there is a latency table.
        after_ms: Latency of the pruned one as the table predicts it, likewise.
    """

    plan: PruningPlan
    before: Cost
    after: Cost
    before_ms: float | None = None
    after_ms: float | None = None


def price(
    config: Config,
    convention: Convention = "real",
    *,
    name: str = "",
    say: Say = lambda _: None,
) -> Priced:
    """Return what the config's cut would save.

    The network is the one that `flyweight prune` would cut: that of `weights`, else the trained
    dense one in the run folder. Without either it is priced from its shapes.

    Args:
        config: Model and cut.
        convention: How multiply-adds are counted.
        name: Of the run, whose folder may have the network; empty to look for none.
        say: Receives notes.

    Raises:
        FlyweightError: The cut, or a file that it names, is unusable.
    """
    notes: list[str] = []  # Given at the end: a mistake is one line.
    note = notes.append
    cut = cut_of(config.prune, config.model, note)
    model = _priced_network(cut, config, name, note)
    graph = trace_model(model, config.preprocessing)
    curves = curves_of(cut)
    if curves is not None and config.prune.scan != BUILT_IN:
        uses, foreign = uses_of(graph, model, config.preprocessing), config.prune.foreign_scan
        require_scan(curves, Path(str(config.prune.scan)), uses, foreign=foreign, say=note)
        note_absent_layers(curves, graph, note)
    made = plan_cut(graph, cut)
    priced = Priced(made, graph.cost(convention), made.cost(graph, convention))
    prices = prices_of(cut, graph)
    for text in notes:
        say(text)
    if prices is None:
        return priced
    kept = {name: len(group.keep) for name, group in made.groups.items()}
    before_ms, after_ms = prices.predict_ms({}), prices.predict_ms(kept)
    return replace(priced, before_ms=before_ms, after_ms=after_ms)


def cut_of(wanted: PruneConfig, model: str, say: Say) -> Cut:
    """Return the cut that a config describes; every file that it names is one that exists already.

    Args:
        wanted: The config's `prune` section.
        model: The network's name, for the curves that come with flyweight.
        say: Receives a note on where those curves come from.

    Raises:
        PlanError: The config describes no cut, there are no such curves of the network, or the
            scan is to be made by a chain.
    """
    cut = wanted.cut
    if cut is None:
        raise nothing_to_cut()
    if not isinstance(cut, MaxDropCut | BudgetCut):
        return cut
    if THIS_RUN in (cut.scan, getattr(cut, "latency_table", "")):
        raise PlanError(
            f"A cut outside a chain must name the file of its scan and of its latency table. "
            f"Received '{THIS_RUN}', which asks a chain to make it. Run the chain, or make a scan "
            "with: flyweight sensitivity"
        )
    if cut.scan != BUILT_IN:
        return cut
    path: Path = load(_BUILTIN_CURVES)(model)
    place = load(_READ_CURVES)(path).measured_on
    say(
        f"note: {BUILT_IN}: measured on {place}. On your data other layers may matter; "
        "`flyweight sensitivity` measures them"
    )
    return replace(cut, scan=str(path))


def _priced_network(cut: Cut, config: Config, name: str, say: Say) -> nn.Module:
    """Return the network to price; its shapes alone where there are no weights."""
    ranked = isinstance(cut, RankingCut)
    if ranked and cut.criterion == TAYLOR:
        raise PlanError(
            f"--dry-run must rank by weights alone. Received the ranking '{TAYLOR}', which needs "
            "images. Choose another, such as --prune-criterion l1_norm, or leave --dry-run out."
        )
    path = _priced_checkpoint(config, name, say)
    if path is not None:
        say(f"weights: {path}")
        found = checkpoints.read(path)
        if found.plans:
            say("note: these weights are pruned already; they are cut further")
        return checkpoints.load(path, build=own_builder(config))
    if not ranked:
        return weightless(config)
    say("note: the ranking is of untrained weights; give -o weights=CHECKPOINT")
    return build_model(config)


def _priced_checkpoint(config: Config, name: str, say: Say) -> Path | None:
    """Return the checkpoint of `weights`, else the run folder's dense one if it fits the config."""
    path = weights_path(config.weights) if config.weights else None
    if path is None and name:
        path = dense_checkpoint(name, config)
    if path is None:
        return None
    found = checkpoints.read(path)
    try:
        require_architecture(found, config, path)
        require_same_labels(found.labels, config.data.labels or (), path)
    except CheckpointError as error:
        if config.weights:
            raise
        say(f"note: priced without the weights in the run folder. {error}")
        return None
    return path
