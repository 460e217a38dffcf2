"""Training stage: a dense network from fresh or given weights."""

from pathlib import Path

from torch import nn

from flyweight import checkpoint
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.data.usable import notes_on
from flyweight.engine.fit import FitResult, fit
from flyweight.engine.run import BEST
from flyweight.pipeline.inputs import Data, Saver, loaders_for, open_data, starting_weights, task_of
from flyweight.pipeline.network_plans import build_model, weightless
from flyweight.pipeline.networks import require_training_sides
from flyweight.pipeline.results import Trained, checkpoint_digests
from flyweight.pipeline.stage import INPUT, LOADING, NETWORK, TASKS, Inputs, Stage, by_hand
from flyweight.progress import Progress, progress_of
from flyweight.workspace import Workspace


def train(
    name: str, config: Config, *, resume: bool = False, progress: Progress | bool = False
) -> Trained:
    """Train the config's network in `save_dir/NAME`.

    Args:
        name: Of the run.
        config: Model, data and training.
        resume: Resume from the state of an interrupted training, if there is one.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The data, the weights to start from or a setting is unusable, or another
            run works in the folder.
    """
    folder = Path(config.save_dir) / name
    reports = progress_of(progress)
    workspace = TRAIN.workspace(folder, in_chain=False)
    with workspace.locked():
        require_training_sides(config)
        weightless(config)  # A network that cannot be built is refused before the data are read.
        data = open_data(config, save_dir=folder)
        note_left_out(data, reports)
        inputs = Inputs(name, data, resume=resume, progress=reports)
        result: Trained = by_hand(TRAIN, config, inputs, workspace)
    return result


def note_left_out(data: Data, progress: Progress) -> None:
    """Say which images and boxes the run does without, and what the data lack."""
    for note in (*notes_on(data.train), *notes_on(data.val)):
        progress.note(note)


def train_model(
    model: nn.Module,
    config: Config,
    train: TrainConfig,
    data: Data,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | bool = True,
) -> FitResult:
    """Train `model` in place.

    Args:
        model: What is trained.
        config: Of the network, its input, augmentation and task.
        train: How to train.
        data: What to train and to evaluate on.
        folder: Gets checkpoints, logs and the state to resume from.
        resume: Resume from that state, if there is one.
        progress: Receives messages and progress.
    """
    task = task_of(model, data.labels, config)
    return fit(
        model,
        task,
        loaders_for(config, train, data),
        train,
        save_dir=folder,
        resume=resume,
        save_model=Saver(config, data.labels, task.name, measured_on=data.val.name),
        progress=progress,
    )


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Trained:
    model = build_model(settings)
    inputs.progress.note(starting_weights(model, settings).report)
    found = train_model(
        model,
        settings,
        settings.train,
        inputs.splits,
        workspace.folder,
        resume=inputs.resume,
        progress=inputs.progress,
    )
    saved = found.best_path or found.final_path or workspace.folder / BEST
    return Trained(saved, found.best_metrics or found.last_metrics, found.seconds)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Trained:
    path = workspace.folder / BEST
    note = workspace.read()
    seconds = note.seconds if note is not None else None
    return Trained(path, checkpoint.read(path).metrics, seconds or 0.0)


TRAIN = Stage(
    name="train",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS, "augment", "train"),
    harmless=(*LOADING, *(f"train.{key}" for key in sorted(HARMLESS))),
    files=("pretrain_weights", "data.ground_truth"),
    splits=("train", "val"),
    digests=checkpoint_digests,
    makes=lambda _: (BEST,),
    folder="dense",
)
