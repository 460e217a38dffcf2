"""`prune`: price, cut, fine-tune."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flyweight.cli.console import columns, metrics_table, say, show, show_json
from flyweight.config.cut_options import CutOptions
from flyweight.config.cuts import BUILT_IN, TAYLOR, BudgetCut, Cut, MaxDropCut, RankingCut
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.errors import ConfigError, PlanError, counted, nearest
from flyweight.pipeline.preflight import require_paths, weights_path

if TYPE_CHECKING:
    from torch import nn

    from flyweight.graph import Convention, Cost
    from flyweight.pipeline.inputs import Data
    from flyweight.pruning import PruningPlan


@dataclass(frozen=True)
class Request:
    """What the command line asks to cut."""

    config: str
    overrides: tuple[str, ...]
    options: CutOptions

    def read(self) -> tuple[str, Config, Cut]:
        """Return the config's name, the config, and what to cut.

        Raises:
            ConfigError: The config is invalid.
            PlanError: The cut is.
        """
        name, config = load_config(self.config, self.overrides)
        return name, config, self.options.cut(config.prune)


def with_builtin_curves(cut: Cut, config: Config) -> Cut:
    """Return the cut with the file of the curves that come with flyweight, where it names them.

    Raises:
        PlanError: There are no such curves of the network.
    """
    if not isinstance(cut, MaxDropCut | BudgetCut) or cut.scan != BUILT_IN:
        return cut
    from flyweight.sensitivity import builtin_curves, read

    path = builtin_curves(config.model)
    say(
        f"note: {BUILT_IN}: measured on {read(path).measured_on}. On your data other layers "
        "may matter; `flyweight sensitivity` tells"
    )
    return replace(cut, scan=str(path))


@dataclass(frozen=True)
class Options:
    """How `prune` goes on after the cut."""

    evaluate_first: bool
    repair: bool | None
    finetune: bool
    resume: bool
    as_json: bool


def dry_run(request: Request, convention: str, *, as_json: bool) -> None:
    """Print what the cut saves, from shapes alone."""
    if convention not in ("real", "paddle"):
        raise ConfigError(
            f"--flops-convention must be real or paddle. Received '{convention}'. "
            f"{nearest(convention, ('real', 'paddle'))}"
        )
    counting = cast("Convention", convention)
    _, config, cut = request.read()

    from flyweight.pipeline.network_plans import plan_cut, prices_of, trace_model

    cut = with_builtin_curves(cut, config)
    graph = trace_model(_priced_network(cut, config), config.preprocessing)
    made = plan_cut(graph, cut)
    before, after = graph.cost(counting), made.cost(graph, counting)
    _say_notes(made)
    prices = prices_of(cut, graph)
    if prices is not None:
        kept = {name: len(group.keep) for name, group in made.groups.items()}
        say(
            f"latency {prices.predict_ms(kept):.3f} of {prices.predict_ms({}):.3f} ms, as the "
            "table predicts it; without --dry-run it is measured"
        )
    if as_json:
        widths = {
            name: {"before": group.channels, "after": len(group.keep)}
            for name, group in made.groups.items()
        }
        show_json({"before": vars(before), "after": vars(after), "groups": widths})
        return
    show(cost_table(before, after, made))


def _priced_network(cut: Cut, config: Config) -> "nn.Module":
    """Return the network to price: shapes alone, or weights where the widths depend on them."""
    from flyweight.pipeline.network_plans import build_model, weightless

    if not isinstance(cut, RankingCut):
        return weightless(config)
    if cut.ranking == TAYLOR:
        raise PlanError(
            f"--dry-run must rank by weights alone. Received the ranking '{TAYLOR}', which looks "
            "at images. Choose another, such as --prune-criterion l1_norm, or leave --dry-run out."
        )
    if not config.weights:
        say("note: the ranking is of untrained weights; give -o weights=CHECKPOINT")
        return build_model(config)
    from flyweight.checkpoint import load
    from flyweight.pipeline.networks import own_builder

    return load(weights_path(config.weights), build=own_builder(config))


def cost_table(before: "Cost", after: "Cost", made: "PruningPlan") -> str:
    """Return a cut's widths and prices as text; the last line is in the originals' words."""
    rows = [("group", "before", "after")]
    rows += [(name, str(g.channels), str(len(g.keep))) for name, g in made.groups.items()]
    prices = [("", "before", "after", "change")]
    for label, unit, key in _PRICES:
        old, new = getattr(before, key), getattr(after, key)
        change = f"{100 * (new / old - 1):+.2f} %"
        prices.append((label, f"{old / unit:,.4f}", f"{new / unit:,.4f}", change))
    ratio = (before.macs - after.macs) / before.macs
    line = f"FLOPs -{ratio}; total FLOPs: {float(before.macs)}; pruned FLOPs: {float(after.macs)}"
    return f"{columns(rows)}\n\n{columns(prices)}\n\n{line}"


_PRICES = (
    ("GMACs", 1e9, "macs"),
    ("parameters (M)", 1e6, "params"),
    ("size (MiB)", 2**20, "size_bytes"),
)


def prune(request: Request, options: Options) -> None:
    """Cut, evaluate if asked, fine-tune, save."""
    name, config, cut = request.read()
    if config.weights:
        weights_path(config.weights)
    require_paths(config)

    from flyweight.files import write_text
    from flyweight.pipeline import stage_work as stages
    from flyweight.pipeline.inputs import Saver, open_data
    from flyweight.pipeline.network_plans import build_model, plan_cut, trace_model
    from flyweight.pipeline.networks import kind_of
    from flyweight.pruning import prune as cut_channels

    cut = with_builtin_curves(cut, config)
    folder = Path(config.save_dir) / name
    data = open_data(config, save_dir=folder)
    dense = _starting_point(build_model(config), config, folder)
    graph = trace_model(dense, config.preprocessing)
    cut = _measured(cut, dense, config)
    made = plan_cut(graph, cut, stages.measured_criterion(dense, config, data, cut))
    before, after = graph.cost(), made.cost(graph)
    _say_notes(made)
    small = cut_channels(dense, made)
    write_text(folder / "plan.json", made.to_json())
    say(cost_table(before, after, made))
    repaired = _repaired(dense, small, made, config, data, options)
    metrics: dict[str, float] = {}
    if options.evaluate_first:
        metrics = stages.evaluate_model(small, config, data.val)
        say(f"before fine-tuning\n{metrics_table(metrics)}")
    saved = folder / "pruned.safetensors"
    Saver(config, data.labels, kind_of(config))(small, metrics, saved)
    if options.finetune:
        training = config.finetune or config.train
        result = stages.train_model(small, config, training, data, folder, resume=options.resume)
        saved = result.best_path or result.final_path or saved
        metrics = result.best_metrics or result.last_metrics
    if options.as_json:
        record = {"before": vars(before), "after": vars(after), **repaired, "metrics": metrics}
        show_json({**record, "checkpoint": saved, "plan": folder / "plan.json"})
    else:
        show(f"{metrics_table(metrics)}\nsaved {saved}" if metrics else f"saved {saved}")


def _measured(cut: Cut, dense: "nn.Module", config: Config) -> Cut:
    """Return the cut, found by measuring networks where it is within a latency budget."""
    if not isinstance(cut, BudgetCut) or not cut.budget.measured:
        return cut
    from flyweight.measuring.latency_table import read_table
    from flyweight.pipeline.latency_cuts import NetworkTimer, fitted_cut

    table = read_table(cut.latency_table)
    timer = NetworkTimer(
        dense,
        config.preprocessing,
        threads=table.threads,
        seconds=config.bench.seconds,
        runtime=table.runtime,
    )
    with timer:
        return fitted_cut(cut, timer, say=say)[0]


def _repaired(
    dense: "nn.Module",
    small: "nn.Module",
    made: "PruningPlan",
    config: Config,
    data: "Data",
    options: Options,
) -> dict[str, Any]:
    """Repair `small` in place where that is asked for; return what to tell machines of it."""
    wanted = config.prune.repair if options.repair is None else options.repair
    if not wanted:
        return {}
    from flyweight.pipeline.stage_work import repair_model

    judged = options.evaluate_first
    report = repair_model(dense, small, made, config, data, judged=judged, say=say)
    say(str(report))
    steps = [
        {"step": step.name, "error": step.error, "metric": step.metric} for step in report.steps
    ]
    return {"repair": steps}


def _starting_point(model: "nn.Module", config: Config, folder: Path) -> "nn.Module":
    """Return the network to cut: the checkpoint's, else `model` with the config's weights."""
    from flyweight.pipeline.inputs import load_model, starting_weights

    if not config.weights:
        say(starting_weights(model, config))
        if config.pretrain_weights is None:
            say("note: channels are chosen from untrained weights; give -o weights=CHECKPOINT")
        return model
    path = weights_path(config.weights)
    loaded, found = load_model(path, config)
    say(f"weights: {path}")
    if found.plans:
        say("note: these weights are pruned already; they are cut further")
    if path.parent.resolve() == folder.resolve() and path.name in _OVERWRITTEN:
        _keep(path, folder / "before_pruning.safetensors")
    return loaded.train()


_OVERWRITTEN = ("best_model.safetensors", "model_final.safetensors", "pruned.safetensors")


def _keep(path: Path, kept: Path) -> None:
    """Copy a checkpoint that training in the same folder is going to replace."""
    from flyweight.files import replacing

    with replacing(kept) as draft:
        shutil.copyfile(path, draft)
    say(f"note: the folder's checkpoints will be the pruned network's; '{kept}' keeps this one")


def _say_notes(made: "PruningPlan") -> None:
    for note in made.notes:
        say(f"note: {note}")
    odd = odd_widths(made)
    if 4 * odd > len(made.groups):
        say(
            f"hint: {odd} of {counted(len(made.groups), 'pruned layer')} keep a number of channels "
            f"that is no multiple of {_BLOCK}, which runtimes compute slowly; "
            "-o prune.round_to=16 keeps multiples"
        )


_BLOCK = 8


def odd_widths(made: "PruningPlan") -> int:
    """Return how many pruned groups keep a number of channels that fills no blocks."""
    return sum(len(group.keep) % _BLOCK > 0 for group in made.groups.values())
