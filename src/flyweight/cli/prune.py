"""Pruning from the command line: price a cut, or cut and fine-tune."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flyweight import pipeline
from flyweight.cli.console import metrics_table, say, show, show_json
from flyweight.config.cut_options import CutOptions
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.errors import ConfigError, nearest
from flyweight.pipeline.preflight import require_paths, weights_path

if TYPE_CHECKING:
    from flyweight.graph import Convention

_CONVENTIONS = ("real", "paddle")


@dataclass(frozen=True)
class Request:
    """What the command line asks to cut."""

    config: str
    overrides: tuple[str, ...]
    options: CutOptions

    def read(self) -> tuple[str, Config]:
        """Return the config's name and the config, with the cut of the options.

        Raises:
            ConfigError: The config is invalid.
            PlanError: The cut is.
        """
        name, config = load_config(self.config, self.overrides)
        prune = self.options.applied_to(config.prune)
        return name, config.model_copy(update={"prune": prune})


@dataclass(frozen=True)
class Options:
    """What `prune` does besides the cut."""

    evaluate_first: bool
    repair: bool | None
    finetune: bool
    resume: bool
    as_json: bool


def dry_run(request: Request, convention: str, *, as_json: bool) -> None:
    """Print what the cut saves, from shapes alone."""
    if convention not in _CONVENTIONS:
        raise ConfigError(
            f"--flops-convention must be real or paddle. Received '{convention}'. "
            f"{nearest(convention, _CONVENTIONS)}"
        )
    _, config = request.read()
    priced = pipeline.price(config, cast("Convention", convention), progress=True)
    for note in pipeline.plan_notes(priced.plan):
        say(note)
    if priced.after_ms is not None:
        say(
            f"latency {priced.after_ms:.3f} of {priced.before_ms:.3f} ms, as the "
            "table predicts it; without --dry-run it is measured"
        )
    if as_json:
        widths = {
            name: {"before": group.channels, "after": len(group.keep)}
            for name, group in priced.plan.groups.items()
        }
        show_json({"before": vars(priced.before), "after": vars(priced.after), "groups": widths})
        return
    show(pipeline.cost_table(priced.before, priced.after, priced.plan))


def prune(request: Request, options: Options) -> None:
    """Cut, evaluate if asked, fine-tune, save."""
    name, config = request.read()
    if config.weights:
        weights_path(config.weights)
    require_paths(config)
    if options.repair is not None:
        prune = config.prune.model_copy(update={"repair": options.repair})
        config = config.model_copy(update={"prune": prune})
    first = options.evaluate_first
    wanted = pipeline.PruneOptions(evaluate=first, evaluate_repair=first, finetune=options.finetune)
    found = pipeline.prune(name, config, wanted, resume=options.resume, progress=True)
    if not options.as_json:
        saved = f"saved {found.checkpoint}"
        show(f"{metrics_table(found.metrics)}\n{saved}" if found.metrics else saved)
        return
    steps = [{"step": one.name, "error": one.error, "metric": one.metric} for one in found.repair]
    record = {
        "before": vars(found.before),
        "after": vars(found.after),
        **({"repair": steps} if steps else {}),
        "metrics": found.metrics,
        "checkpoint": found.checkpoint,
        "plan": found.plan_file,
    }
    show_json(record)
