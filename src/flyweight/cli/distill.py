"""`flyweight distill`: a student trained against a teacher."""

from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import pipeline
from flyweight.cli.console import note_busy_machine, say, show, show_json
from flyweight.cli.options import (
    ConfigName,
    Criterion,
    Json,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Resume,
    Weights,
)
from flyweight.config.distilling import require_strategy
from flyweight.errors import ConfigError
from flyweight.pipeline.preflight import require_paths, weights_path

if TYPE_CHECKING:
    from flyweight.config.settings import Config
    from flyweight.pipeline.results import Distilled

Teacher = Annotated[
    str,
    typer.Option(
        "-t",
        "--teacher",
        "--teacher_config",
        help="Checkpoint of the teacher, or its config together with --teacher-pretrained; "
        "default: the dense network that the student was pruned from.",
        metavar="FILE",
    ),
]
TeacherPretrained = Annotated[
    str,
    typer.Option(
        "--teacher-pretrained",
        "--teacher_pretrained",
        help="Weights of the teacher whose config -t names.",
        metavar="FILE",
    ),
]
StrategyName = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="Losses: auto, kl, dkd, l2, split, crosskd, mimic, fsp, attention, cwd, pkd, mgd or "
        "fgd; default: the config's distill.strategy.",
        metavar="NAME",
    ),
]


def distill(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    teacher: Teacher = "",
    teacher_pretrained: TeacherPretrained = "",
    strategy: StrategyName = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    criterion: Criterion = "",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a student against a teacher.

    With --pruned-params the student is pruned first, and taught by itself before the cut where no
    teacher is given.
    """
    overrides = list(opt or ())
    if weights:
        overrides.append(f"weights={weights}")
    name, settings = pipeline.load_config(config, [*overrides, *_section(strategy)])
    settings = _with_teacher(settings, teacher, teacher_pretrained)
    require_strategy(settings.distill.strategy_name)
    if settings.weights:
        weights_path(settings.weights)
    require_paths(settings)
    note_busy_machine()
    options = pipeline.DistillOptions(pruned_params, pruned_ratios, criterion)
    result = pipeline.distill(name, settings, options, resume=resume, progress=True)
    for tap, (before, after) in result.similarity.items():
        say(f"similarity at {tap}: {before:.3f} -> {after:.3f}")
    if json:
        show_json(_record(result))
        return
    show(_summary(result))


def _section(strategy: str) -> list[str]:
    return [f"distill.strategy={strategy}"] if strategy else []


def _with_teacher(settings: "Config", teacher: str, pretrained: str) -> "Config":
    """Return the settings with the teacher of the command line, if it names one."""
    if pretrained and not teacher:
        raise ConfigError(
            "--teacher-pretrained must come with the teacher's config. Received no -t. "
            "Add: -t CONFIG"
        )
    if not teacher:
        return settings
    named = {"teacher": None, "teacher_config": teacher, "teacher_pretrained": pretrained}
    if pretrained:
        weights_path(pretrained)
        pipeline.load_config(teacher)
    else:
        _require_checkpoint(teacher)
        named = {"teacher": teacher, "teacher_config": None, "teacher_pretrained": None}
    return settings.model_copy(update={"distill": settings.distill.model_copy(update=named)})


def _require_checkpoint(teacher: str) -> None:
    """Check that -t alone names a checkpoint, not a config."""
    is_config = teacher in pipeline.known_configs() or teacher.endswith((".yml", ".yaml"))
    if is_config:
        raise ConfigError(
            f"A teacher's config must come with its weights. Received -t '{teacher}' alone "
            "(teacher_pretrained should be set). Add: --teacher-pretrained WEIGHTS"
        )
    weights_path(teacher)


def _record(result: "Distilled") -> dict[str, object]:
    main = result.primary
    return {
        "checkpoint": result.checkpoint,
        "metric": {"before": result.before.get(main), "after": result.metrics.get(main)},
        "teacher_metric": result.teacher.get(main),
        "metrics": {
            "name": main,
            "before": result.before,
            "after": result.metrics,
            "teacher": result.teacher,
        },
        "similarity": {
            tap: {"before": one, "after": two} for tap, (one, two) in result.similarity.items()
        },
    }


def _summary(result: "Distilled") -> str:
    rows = (("teacher", result.teacher), ("before", result.before), ("after", result.metrics))
    lines = [
        f"{name:8} {100 * numbers[result.primary]:6.2f} %"
        for name, numbers in rows
        if result.primary in numbers
    ]
    return "\n".join([f"{result.primary}", *lines, f"saved {result.checkpoint}"])
