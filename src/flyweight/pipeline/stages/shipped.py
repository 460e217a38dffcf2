"""Shipped-network stage: a trained network that comes with flyweight, in place of a training."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from flyweight.config.settings import Config
from flyweight.engine.run import BEST
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import Saver, load_model
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.results import Trained, checkpoint_digests
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stage import INPUT, LOADING, NETWORK, TASKS, Inputs, Stage
from flyweight.pipeline.stages.train import TRAIN
from flyweight.workspace import Workspace


def shipped_stage(network: Path) -> Stage:
    """Return the stage that takes the place of the training in a chain.

    It evaluates the network and saves it as a training does, so that everything after it is as
    after a training.

    Args:
        network: The checkpoint.
    """
    weights = digest_of_checkpoint(network)
    return replace(
        _SHIPPED, run=partial(_run, network), surroundings=lambda _: {"shipped weights": weights}
    )


def _run(network: Path, inputs: Inputs, settings: Config, workspace: Workspace) -> Trained:
    model, _ = load_model(network, settings)
    inputs.progress.note(f"weights: trained before, from {network.name}")
    # A training that had this folder before left logs and a state, which are not of this network.
    for earlier in ("logs", "state"):
        shutil.rmtree(workspace.folder / earlier, ignore_errors=True)
    data = inputs.splits
    metrics = evaluate_model(model, settings, data.val)
    saved = workspace.folder / BEST
    Saver(settings, data.labels, kind_of(settings))(model, metrics, saved)
    return Trained(saved, metrics, 0.0)


_SHIPPED = Stage(
    name=TRAIN.name,
    run=TRAIN.run,
    read=TRAIN.read,
    settings=(*NETWORK, *INPUT, *TASKS),
    harmless=LOADING,
    splits=("val",),
    digests=checkpoint_digests,
    makes=lambda _: (BEST,),
    folder=TRAIN.folder,
)
