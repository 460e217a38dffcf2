"""Control stage: the dense network, fine-tuned exactly as the pruned one.

Fine-tuning is training, and a network that was not trained to its best gains by it. What a pruned
network gains that its dense network gains as well is no merit of pruning.
"""

from flyweight import checkpoint
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS
from flyweight.engine.run import BEST
from flyweight.pipeline.inputs import load_model
from flyweight.pipeline.results import Trained, checkpoint_digests
from flyweight.pipeline.stage import (
    INPUT,
    LOADING,
    NETWORK,
    TASKS,
    Inputs,
    Stage,
    fine_tuning,
)
from flyweight.pipeline.stages.train import train_model
from flyweight.workspace import Workspace


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Trained:
    dense: Trained = inputs.results["train"]
    model, _ = load_model(dense.checkpoint, settings)
    how, folder = fine_tuning(settings), workspace.folder
    found = train_model(model.train(), settings, how, inputs.splits, folder, resume=inputs.resume)
    saved = found.best_path or found.final_path or folder / BEST
    return Trained(saved, found.best_metrics or found.last_metrics, found.seconds)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Trained:
    path, note = workspace.folder / BEST, workspace.read()
    seconds = note.seconds if note is not None else None
    return Trained(path, checkpoint.read(path).metrics, seconds or 0.0)


CONTROL = Stage(
    name="control",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS, "augment", "finetune"),
    harmless=(*LOADING, *(f"finetune.{key}" for key in sorted(HARMLESS))),
    files=("data.ground_truth",),
    splits=("train", "val"),
    needs=("train.weights",),
    digests=checkpoint_digests,
    makes=lambda _: (BEST,),
    folder="control",
)
