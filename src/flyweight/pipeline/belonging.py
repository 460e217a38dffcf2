"""The one place that checks what goes together: weights, networks, labels, scans, states and data.

Whatever a checkpoint or a scan was made for is recorded in it. Where two of them are used together,
what differs is named, and the user decides. This module is light: it opens no data.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from flyweight import checkpoint as checkpoints
from flyweight.checkpoint import Checkpoint
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config
from flyweight.errors import CheckpointError, DataError, PlanError, counted
from flyweight.graph.model_graph import ModelGraph
from flyweight.pipeline.preflight import BEST, HUBS, weights_path
from flyweight.pruning import plan
from flyweight.sensitivity.curves import Sensitivity
from flyweight.sensitivity.made_from import differences_between, facts_of, mapping_of
from flyweight.workspace import MadeFrom, Say, Workspace, differences
from flyweight.zoo import is_own_name
from flyweight.zoo.sources.old_names import old_names

KEPT = "before_pruning.safetensors"
"""Copy of the dense checkpoint that pruning in its own folder would replace."""


def dense_checkpoint(name: str, config: Config) -> Path | None:
    """Return the trained dense network of the config's run folder; None where it has none.

    Args:
        name: Of the run.
        config: Has the folder of all runs.

    Raises:
        CheckpointError: A checkpoint in the folder is damaged.
    """
    return dense_in(Path(config.save_dir) / name)


def dense_in(folder: Path) -> Path | None:
    """Return the trained dense network of a run folder; None where it has none.

    That is the folder's best checkpoint, or, where pruning has replaced that one, the copy that
    pruning kept. A network that was pruned already is never taken.

    Raises:
        CheckpointError: A checkpoint in the folder is damaged.
    """
    for path in (folder / BEST, folder / KEPT, folder / "dense" / BEST):
        if path.is_file() and not checkpoints.read(path).plans:
            return path
    return None


def no_dense_checkpoint(found: str) -> CheckpointError:
    """Return the error of pruning without a trained network; `found` is what was received."""
    return CheckpointError(
        f"Pruning must start from a trained network. Received {found}. Train it first with: "
        "flyweight train -c CONFIG; or add: -o weights=CHECKPOINT"
    )


def checkpoint_to_prune(name: str, config: Config) -> Path | None:
    """Return the checkpoint to cut: that of `weights`, else the run folder's dense one.

    Args:
        name: Of the run.
        config: Names the network, and may name its weights.

    Returns:
        None where `pretrain_weights` are to be cut.

    Raises:
        CheckpointError: There is none, or it is not of the config's network.
    """
    path = weights_path(config.weights) if config.weights else dense_checkpoint(name, config)
    if path is not None:
        require_architecture(checkpoints.read(path), config, path)
    elif config.pretrain_weights is None:
        best = Path(config.save_dir) / name / BEST
        state = "is pruned already" if best.is_file() else "does not exist"
        raise no_dense_checkpoint(f"no weights, and '{best}' {state}")
    return path


def require_architecture(found: Checkpoint, config: Config, path: Path) -> None:
    """Check that a checkpoint is of the config's network.

    Raises:
        CheckpointError: It is not; the difference is named.
    """
    origin = found.origin
    has = {"model": origin.architecture, **origin.arguments}
    wants = {"model": config.model, **config.arguments}
    own = is_own_name(config.model)
    # For a network of the zoo, arguments that the config leaves out come from the file. A function
    # of the user gets only the arguments in the config: the file must not choose its arguments.
    for key in {**wants, **has} if own else wants:
        if not own and key not in has:
            continue
        saved, wanted = (values.get(key, "nothing") for values in (has, wants))
        if saved != wanted:
            raise CheckpointError(
                f"A checkpoint must be of the config's network. Received '{path}' with {key} "
                f"{saved!r} where the config says {wanted!r}. Use the config it was made with."
            )


def require_same_labels(known: tuple[str, ...], labels: tuple[str, ...], path: Path) -> None:
    """Check that a network means the same classes as the data, index by index.

    Args:
        known: The labels of the network.
        labels: The labels of the data.
        path: The file of the network.

    Raises:
        CheckpointError: It does not; the first difference is named.
    """
    for index, (saved, given) in enumerate(zip(known, labels, strict=False)):
        if saved != given:
            raise CheckpointError(
                f"A checkpoint must know the data's classes in the data's order. Received '{path}' "
                f"whose class {index} is '{saved}' where the data says '{given}'. "
                "Give data.labels in the checkpoint's order."
            )


def require_labels_to_prune(path: Path | None, config: Config, labels: tuple[str, ...]) -> None:
    """Check that the network to prune means the same classes as the data, index by index.

    Args:
        path: What `checkpoint_to_prune` returned.
        config: May name `pretrain_weights`.
        labels: Class names of the data.

    Raises:
        CheckpointError: It does not; the first difference is named.
    """
    named = config.pretrain_weights
    if path is None and named is not None and named not in HUBS:
        path = weights_path(named)
    if path is None or not checkpoints.is_checkpoint(path):
        return
    found = checkpoints.read(path)
    arguments = found.origin.arguments
    same = (found.origin.architecture, arguments.get("num_classes", config.num_classes))
    if same == (config.model, config.num_classes):
        require_same_labels(found.labels, labels, path)


def preprocessing_text(preprocessing: Preprocessing) -> str:
    """Return what a scan records of the preprocessing, as JSON text."""
    return preprocessing.model_dump_json()


def uses_of(
    graph: ModelGraph, model: nn.Module, preprocessing: Preprocessing, data: str = ""
) -> dict[str, str]:
    """Return what a scan is used for, as scans record it.

    Args:
        graph: Of the network to cut.
        model: The network; on the meta device where its weights are not known.
        preprocessing: Of its input.
        data: Digest of the validation split, where it is known.
    """
    facts = facts_of(graph, model)
    return {**facts, "preprocessing": preprocessing_text(preprocessing), "data": data}


def uses_in_config(curves: Sensitivity, config: Config) -> dict[str, str]:
    """Return the network and the input that a scan is used for, as a config alone gives them.

    An argument of the network that the config does not give, or the scan did not record, is not
    compared: it may be one with a default.
    """
    text = curves.made_from.get("network", "")
    given = {"model": config.model, **config.arguments}
    recorded = mapping_of(text) or given
    network = {name: given.get(name, value) for name, value in recorded.items()}
    return {
        "network": json.dumps(network, sort_keys=True),
        "preprocessing": preprocessing_text(config.preprocessing),
    }


def require_scan(
    curves: Sensitivity, file: Path, uses: Mapping[str, str], *, foreign: bool, say: Say
) -> None:
    """Check that a scan was made of what it is used for.

    Args:
        curves: The scan.
        file: Where it is, for messages.
        uses: What it is used for; see `uses_of`.
        foreign: Use the scan although something differs; that is reported.
        say: Receives notes.

    Raises:
        DataError: Something differs; it is named.
    """
    if not curves.made_from:
        say(f"note: '{file}' does not say what it was measured on; check that it belongs here")
        return
    found = differences_between(curves.made_from, uses)
    if not found:
        return
    named = "; ".join(found)
    if foreign:
        say(f"note: '{file}' is of something else and used all the same: {named}")
        return
    raise DataError(
        f"A scan must be of the network, weights, input and data that it is used for. Received "
        f"'{file}' with other: {named}. Scan again with: flyweight sensitivity; or add "
        "--foreign-scan (in a config: prune.foreign_scan: true) to use it all the same"
    )


def require_same_training(workspace: Workspace, wanted: MadeFrom, say: Say) -> None:
    """Check that a training state is of the training that is to be resumed.

    Args:
        workspace: The folder of the state, with the note of what the training was made from.
        wanted: What the training would be made from now.
        say: Receives notes.

    Raises:
        CheckpointError: Something differs; it is named.
    """
    note = workspace.read()
    if note is None or note.made_from is None:
        say(f"note: '{workspace.folder}' does not say what was trained; check that it belongs here")
        return
    found = differences(note.made_from, wanted)
    if found:
        raise CheckpointError(
            "A resumed training must be of the same network, data and settings. Received "
            f"'{workspace.folder}', where now {'; '.join(map(str, found))}. Give what the training "
            "began with, or start it again without resume."
        )


def note_absent_layers(curves: Sensitivity, graph: ModelGraph, say: Say) -> None:
    """Report the layers of a scan that a network does not have or that cannot be cut in it.

    Scans of other versions of flyweight are matched by the names of groups and of the tensors in
    them.
    """
    if curves.made_from.get("graph") == graph.fingerprint:
        return
    absent, aliases = [], old_names(graph.tensors)
    for layer in curves.curves:
        try:
            plan(graph, {layer: 0.5}, "first", inexact=True, aliases=aliases)
        except PlanError:
            absent.append(layer)
    if absent:
        names = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        say(f"note: {counted(len(absent), 'layer')} of the scan cannot be cut here: {names}")
