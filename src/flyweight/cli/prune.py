"""`prune`: price, cut, fine-tune."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flyweight.cli.console import columns, metrics_table, say, show, show_json
from flyweight.errors import ConfigError, PlanError, nearest
from flyweight.graph import Convention, Cost, ModelGraph
from flyweight.pruning import PruningPlan, split_list
from flyweight.recipe.config import Config, load_config
from flyweight.recipe.cut import Cut, build_model, plan_cut, trace_model, weightless


@dataclass(frozen=True)
class Request:
    """What the command line asks to cut."""

    config: str
    overrides: tuple[str, ...]
    params: str
    ratios: str
    criterion: str

    def read(self) -> tuple[str, Config, Cut]:
        """Return the config's name, the config, and the cut.

        Raises:
            ConfigError: The config cannot be meant.
            PlanError: A ratio is no number, or the lists are not equally long.
        """
        name, config = load_config(self.config, self.overrides)
        return name, config, cut_of(config, self.params, self.ratios, self.criterion)


@dataclass(frozen=True)
class Options:
    """How `prune` goes on after the cut."""

    evaluate_first: bool
    finetune: bool
    resume: bool
    as_json: bool


def cut_of(config: Config, params: str, ratios: str, criterion: str = "") -> Cut:
    """Return what to cut: from the command line if it says, else from the config."""
    if not params and not ratios:
        wanted = config.prune
        return Cut(wanted.params, wanted.ratios, criterion or wanted.criterion, wanted.round_to)
    numbers = tuple(_number(text) for text in split_list(ratios))
    chosen = criterion or config.prune.criterion
    return Cut(tuple(split_list(params)), numbers, chosen, config.prune.round_to)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(
            f"A ratio must be a number between 0 and 1. Received '{text}' in --pruned-ratios. "
            "Write 0.5 to remove half."
        ) from error


def dry_run(request: Request, convention: str, *, as_json: bool) -> None:
    """Print what the cut saves, from shapes alone."""
    if convention not in ("real", "paddle"):
        raise ConfigError(
            f"--flops-convention must be real or paddle. Received '{convention}'. "
            f"{nearest(convention, ('real', 'paddle'))}"
        )
    counted = cast(Convention, convention)
    _, config, cut = request.read()
    graph = trace_model(weightless(config), config)
    made = plan_cut(graph, cut)
    before, after = graph.cost(counted), made.cost(graph, counted)
    for note in made.notes:
        say(f"note: {note}")
    if as_json:
        widths = {
            name: {"before": group.channels, "after": len(group.keep)}
            for name, group in made.groups.items()
        }
        show_json({"before": vars(before), "after": vars(after), "groups": widths})
        return
    show(cost_table(before, after, made))


def cost_table(before: Cost, after: Cost, made: PruningPlan) -> str:
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
    from flyweight.checkpoint import load_weights
    from flyweight.files import write_text
    from flyweight.pruning import prune as cut_channels
    from flyweight.recipe import stages
    from flyweight.recipe.session import load_model, open_data, starting_weights
    from flyweight.recipe.session import weights_path as resolve_path

    name, config, cut = request.read()
    folder = Path(config.save_dir) / name
    data = open_data(config, save_dir=folder)
    if config.weights:
        path = resolve_path(config.weights)
        model = load_model(path, config)[0].train()
        say(f"weights: {path}")
    else:
        model = build_model(config)
        say(starting_weights(model, config))
        if config.pretrain_weights is None:
            say("note: channels are chosen from untrained weights; give -o weights=CHECKPOINT")
    graph = trace_model(model, config)
    made = plan_cut(graph, cut)
    for note in made.notes:
        say(f"note: {note}")
    small = cut_channels(model, made)
    write_text(folder / "plan.json", made.to_json())
    say(cost_table(graph.cost(), made.cost(graph), made))
    metrics = _evaluate_first(small, config) if options.evaluate_first else {}
    saved = folder / "pruned.safetensors"
    stages.save_pruned(small, config, data.labels, metrics, saved)
    if options.finetune:
        training = config.finetune or config.train
        result = stages.train_model(small, config, training, data, folder, resume=options.resume)
        saved = result.best_path or result.final_path or saved
        metrics = result.best_metrics or result.last_metrics
        load_weights(small, saved)
    _finish(graph, made, metrics, saved, as_json=options.as_json)


def _evaluate_first(model: object, config: Config) -> dict[str, float]:
    from torch import nn

    from flyweight.recipe.stages import evaluate_model

    if not isinstance(model, nn.Module):
        return {}
    metrics = evaluate_model(model, config)
    say(f"before fine-tuning\n{metrics_table(metrics)}")
    return metrics


def _finish(
    graph: ModelGraph, made: PruningPlan, metrics: dict[str, float], saved: Path, *, as_json: bool
) -> None:
    before, after = graph.cost(), made.cost(graph)
    if as_json:
        record = {"before": vars(before), "after": vars(after), "metrics": metrics}
        show_json({**record, "checkpoint": saved, "plan": json.loads(made.to_json())["graph"]})
        return
    if metrics:
        show(metrics_table(metrics))
    show(f"saved {saved}")
