"""Digests as version 0.1.0 computed them, so that its run folders and scans are recognised.

That version recorded one digest of everything that a stage depends on, and in it the paths and
modification times of images.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.data.records import BoxRecord, ClassRecord, ImageSet, MapSet
from flyweight.digests import digest_of_file
from flyweight.pipeline.inputs import Data
from flyweight.pipeline.preflight import HUBS, weights_path

_VERSION = "0.1.0"
_ASIDE = frozenset(
    {
        *("bench", "eval_batch_size", "save_dir"),
        *("train", "finetune", "prune", "weights", "pretrain_weights"),
        *("distill", "quantize"),  # That version had no such sections.
    }
)
_STAGES = ("train", "prune", "export")


def digest_of_images_0_1_0(images: ImageSet) -> str:
    """Return a digest of a split: classes, annotations, and size and time of every file."""
    digest = hashlib.sha256(json.dumps([_VERSION, *images.labels]).encode())
    if isinstance(images, MapSet):
        digest.update(json.dumps(sorted((images.values or {}).items())).encode())
    for record in images.records:
        digest.update(_annotation_of(record))
        for path in (record.path, getattr(record, "map_path", None)):
            if path is not None:
                status = path.stat()
                facts = [str(path), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def digest_as_recorded(recorded: str, images: ImageSet, digest: str) -> str:
    """Return the digest of a split in the form in which a scan recorded it.

    Args:
        recorded: What the scan recorded; may be empty.
        images: The split.
        digest: Its digest today.
    """
    if recorded and recorded != digest and recorded == digest_of_images_0_1_0(images):
        return recorded
    return digest


def digest_of_stage_0_1_0(
    stage: str, name: str, config: Config, data: Data, folder: Path
) -> str | None:
    """Return what version 0.1.0 recorded of a stage; None of stages that it did not record.

    Args:
        stage: The name of the stage.
        name: Of the run.
        config: As it was read.
        data: The splits.
        folder: Of the chain.

    Raises:
        FlyweightError: A checkpoint of an earlier stage cannot be read.
    """
    if stage not in _STAGES:
        return None
    checkpoints = [folder / place / "best_model.safetensors" for place in ("dense", "pruned")]
    if not all(path.is_file() for path in checkpoints[: _STAGES.index(stage)]):
        return None
    made_from: dict[str, Any]
    if stage == "train":
        made_from = {**_facts(config, config.train, data), "start": _start(config)}
    elif stage == "prune":
        made_from = _of_pruned(config, data, checkpoints[0])
    else:
        digests = [digest_of_file(path) for path in checkpoints]
        made_from = {"version": _VERSION, "name": name, "checkpoints": digests}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _of_pruned(config: Config, data: Data, dense: Path) -> dict[str, Any]:
    wanted = config.prune
    cut = {
        "params": wanted.params,
        "ratios": wanted.ratios,
        "criterion": wanted.criterion,
        "round_to": wanted.round_to,
        "from_scan": False,
        "scan": "",
        "budget": "",
    }
    repair = {"repair": wanted.repair_images} if wanted.repair else {}
    facts = _facts(config, config.finetune or config.train, data)
    return {**facts, "cut": cut, "dense": digest_of_file(dense), **repair}


def _facts(config: Config, training: TrainConfig, data: Data) -> Mapping[str, Any]:
    return {
        "version": _VERSION,
        "config": config.model_dump(mode="json", exclude=set(_ASIDE)),
        "training": training.model_dump(mode="json", exclude=set(HARMLESS)),
        "data": [digest_of_images_0_1_0(data.train), digest_of_images_0_1_0(data.val)],
    }


def _start(config: Config) -> str | None:
    start = config.pretrain_weights
    return start if start in (None, *HUBS) else digest_of_file(weights_path(start))


def _annotation_of(record: Any) -> bytes:
    if isinstance(record, BoxRecord):
        boxes: bytes = record.boxes.tobytes() + record.labels.tobytes()
        return boxes + record.difficult.tobytes() + record.crowd.tobytes()
    return str(record.label).encode() if isinstance(record, ClassRecord) else b""
