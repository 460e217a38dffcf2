"""`flyweight prune`: a network with fewer channels, priced or made and fine-tuned."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import note_busy_machine, say, show, show_json
from flyweight.cli.options import (
    ConfigName,
    Criterion,
    ForeignScan,
    Json,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Resume,
)
from flyweight.errors import ConfigError, nearest
from flyweight.pipeline.preflight import require_paths, weights_path
from flyweight.report.text_table import metrics_table

if TYPE_CHECKING:
    from flyweight.config.settings import Config
    from flyweight.graph import Convention
    from flyweight.pipeline.results import Pruned

CONVENTIONS = ("real", "paddle")

Sensitivities = Annotated[
    str,
    typer.Option(
        "--sensitivities",
        "--sensitivities_file",
        help="Choose ratios from the curves in FILE; DEFAULT takes the curves that come with "
        "flyweight.",
        metavar="FILE",
    ),
]
DropOfCut = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        "--eval_metric_loss",
        help="Largest loss that each layer may cause alone, as a share of the metric; "
        "default: 0.05 where --sensitivities is given without --budget.",
        metavar="SHARE",
    ),
]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Keep QUANTITY within NUMBER: macs, params or size_bytes (below 1 the share kept, "
        "from 1000 on an amount), latency_ms or latency_share. By the curves of --sensitivities; "
        "without them, by a ranking of all channels.",
        metavar="QUANTITY=NUMBER",
    ),
]
TableOfBudget = Annotated[
    str,
    typer.Option(
        "--latency-table",
        help="Latency table of bench --layers, for a latency budget.",
        metavar="FILE",
    ),
]
PrintParams = Annotated[
    bool,
    typer.Option(
        "-P", "--print-params", "--print_params", help="Print parameter names and shapes, and exit."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print what the plan saves, and exit; needs no data. Prices -o weights=CHECKPOINT, or "
        "else the network in the run folder; without them, the shapes of the config.",
    ),
]
FlopsConvention = Annotated[
    str,
    typer.Option(
        "--flops-convention",
        help="How to count FLOPs: real (true shapes), or paddle (as the original tools printed).",
        metavar="NAME",
    ),
]
EvaluateFirst = Annotated[
    bool, typer.Option("--eval", help="Evaluate the pruned network before fine-tuning, too.")
]
Repair = Annotated[
    bool | None,
    typer.Option(
        "--repair/--no-repair",
        help="Refit the remaining weights before fine-tuning, without labels; default: the "
        "config's prune.repair.",
    ),
]
Finetune = Annotated[
    bool, typer.Option("--finetune/--no-finetune", help="Train the pruned network.")
]


def prune(
    config: ConfigName,
    opt: Overrides = None,
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    sensitivities: Sensitivities = "",
    max_drop: DropOfCut = None,
    budget: Budget = "",
    latency_table: TableOfBudget = "",
    criterion: Criterion = "",
    foreign_scan: ForeignScan = False,
    print_params: PrintParams = False,
    dry_run: DryRun = False,
    flops_convention: FlopsConvention = "real",
    evaluate_first: EvaluateFirst = False,
    repair: Repair = None,
    finetune: Finetune = True,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Prune channels, then fine-tune.

    The saved checkpoint records how it was pruned, so the ratios are not needed again.
    """
    _require_convention(flops_convention)
    name, settings = pipeline.load_config(config, opt or ())
    if print_params:
        print_parameters(settings)
        return
    cut = heavy.CutOptions(
        pruned_params, pruned_ratios, sensitivities, max_drop, budget, latency_table, criterion
    )
    changes = {} if repair is None else {"repair": repair}
    if foreign_scan:
        changes["foreign_scan"] = True
    section = cut.applied_to(settings.prune).model_copy(update=changes)
    settings = settings.model_copy(update={"prune": section})
    if dry_run:
        _show_prices(name, settings, flops_convention, as_json=json)
        return
    if settings.weights:
        weights_path(settings.weights)
    require_paths(settings)
    note_busy_machine()
    options = pipeline.PruneOptions(
        evaluate=evaluate_first, evaluate_repair=evaluate_first, finetune=finetune
    )
    result = pipeline.prune(name, settings, options, resume=resume, progress=True)
    if json:
        show_json(_record(result))
        return
    saved = f"saved {result.checkpoint}"
    show(f"{metrics_table(result.metrics)}\n{saved}" if result.metrics else saved)


def print_parameters(settings: "Config") -> None:
    """Print parameter names and shapes in the format of the original tools."""
    for name, tensor in heavy.weightless(settings).named_parameters():
        show(f"parameter name: {name}\tshape: {tuple(tensor.shape)}")


def _require_convention(name: str) -> None:
    if name not in CONVENTIONS:
        raise ConfigError(
            f"--flops-convention must be real or paddle. Received '{name}'. "
            f"{nearest(name, CONVENTIONS)}"
        )


def _show_prices(name: str, settings: "Config", convention: str, *, as_json: bool) -> None:
    priced = pipeline.price(settings, cast("Convention", convention), name=name, say=say)
    for note in pipeline.plan_notes(priced.plan):
        say(note)
    if priced.after_ms is not None:
        say(
            f"latency {priced.after_ms:.3f} of {priced.before_ms:.3f} ms, as the "
            "table predicts it; without --dry-run it is measured"
        )
    if not as_json:
        show(pipeline.cost_table(priced.before, priced.after, priced.plan))
        return
    widths = {
        name: {"before": group.channels, "after": len(group.keep)}
        for name, group in priced.plan.groups.items()
    }
    show_json({"before": vars(priced.before), "after": vars(priced.after), "groups": widths})


def _record(result: "Pruned") -> dict[str, object]:
    steps = [{"step": one.name, "error": one.error, "metric": one.metric} for one in result.repair]
    return {
        "before": vars(result.before),
        "after": vars(result.after),
        **({"repair": steps} if steps else {}),
        "metrics": result.metrics,
        "checkpoint": result.checkpoint,
        "plan": result.plan_file,
    }
