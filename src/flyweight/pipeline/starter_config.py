"""Text of a commented config for a data set."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from flyweight.data.survey import Survey
from flyweight.pipeline.proposal import Proposal

_WIDTH = 98


def config_text(
    path: Path,
    proposal: Proposal,
    data: Mapping[str, Any],
    surveys: tuple[Survey, Survey],
    notes: Sequence[str],
) -> str:
    """Return the YAML of a config with comments.

    Args:
        path: File that the config will have.
        proposal: Network, input and training.
        data: Section `data`.
        surveys: Of the training and the validation split.
        notes: Sentences on the data.
    """
    train, val = surveys
    reasons = proposal.reasons
    every = max(1, min(proposal.steps // 8, round(5 * train.images / proposal.batch_size)))
    training: dict[str, Any] = {
        "steps": proposal.steps,
        "batch_size": proposal.batch_size,
        "optimizer": "adamw",
        "learning_rate": proposal.learning_rate,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_steps": 20,
        "ema_decay": 0.99,
        "clip_norm": 10,
        "evaluate_every": every,
    }
    comments = {
        "steps": f"{proposal.epochs:.0f} epochs of {train.images:,} images",
        "evaluate_every": "the best of these evaluations is kept as best_model",
        "ema_decay": "the moving average of the weights is evaluated and saved",
    }
    finetune = {**training, "steps": max(20, proposal.steps // 2)}
    finetune["evaluate_every"] = min(every, finetune["steps"])
    lines = [
        *_head(path, surveys, notes),
        *_items({"model": proposal.model}, reasons),
        *_items({"num_classes": len(train.labels)}, {}),
        *_items({"input_size": _plain(proposal.input_size)}, reasons),
        *_items(proposal.network, reasons),
        "# pretrain_weights: FILE # weights to start from; they help most on small sets",
        *_section("data", data, {"val": f"{val.images:,} images"}),
    ]
    for name, section in proposal.sections.items():
        lines += _section(name, section, {}, reasons.get(name, ""))
    lines += _section("train", training, comments)
    lines += _section("finetune", finetune, {}, "training after pruning")
    lines += _section(
        "prune",
        {"params": ["all"], "ratios": [0.3], "round_to": 8},
        {"round_to": "runtimes are slow with other numbers of channels"},
        "removes 30 % of the channels of every layer; flyweight sensitivity finds better ratios",
    )
    return "\n".join(lines) + "\n"


def _head(path: Path, surveys: tuple[Survey, Survey], notes: Sequence[str]) -> list[str]:
    train, val = surveys
    counts = (
        f"{train.images:,} images to train, {val.images:,} to validate, "
        f"{len(train.labels):,} classes"
    )
    weights = f"weights=output/{path.stem}/best_model"
    # Commands stay on one line each, so that they can be copied.
    commands = [
        shlex.join(["flyweight", "check-data", "-c", str(path)]),
        shlex.join(["flyweight", "train", "-c", str(path)]),
        shlex.join(["flyweight", "prune", "-c", str(path), "-o", weights]),
    ]
    head = wrap(f"Written by flyweight init: {counts}.", _WIDTH - 2)
    remarks = [part for note in notes for part in wrap(f"Note: {note}.", _WIDTH - 2)]
    lines = [*head, "", *commands, *(["", *remarks] if notes else [])]
    return [f"# {line}".rstrip() for line in lines]


def _section(
    name: str, values: Mapping[str, Any], comments: Mapping[str, str], comment: str = ""
) -> list[str]:
    head = f"{name}:{f' # {comment}' if comment else ''}"
    return [head, *(f"  {line}" for line in _items(values, comments))]


def _items(values: Mapping[str, Any], comments: Mapping[str, str]) -> list[str]:
    lines = []
    for key, value in values.items():
        text = yaml.safe_dump(
            _plain(value),
            default_flow_style=True,
            sort_keys=False,
            allow_unicode=True,
            width=_WIDTH - len(key) - 6,
        )
        first, *rest = text.rstrip("\n").removesuffix("\n...").split("\n")
        comment = comments.get(key, "")
        lines += [f"{key}: {first}{f' # {comment}' if comment else ''}"]
        lines += [f"  {line}" for line in rest]
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
