"""Teachers of configs: which network teaches a student, and how it is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from flyweight import checkpoint as checkpoints
from flyweight.checkpoint import Checkpoint
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.digests import digest_of_weights
from flyweight.errors import CheckpointError, ConfigError
from flyweight.pipeline.belonging import dense_checkpoint
from flyweight.pipeline.inputs import open_checkpoint
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.preflight import weights_path
from flyweight.progress import Progress
from flyweight.zoo import is_own_name
from flyweight.zoo.sources.weights import fillable, load_weights

if TYPE_CHECKING:
    from flyweight.config.distilling import DistillConfig


@dataclass(frozen=True, eq=False)
class OpenedTeacher:
    """A teacher that is ready to run.

    Attributes:
        model: The network.
        labels: Its class names; empty where its file has none.
        preprocessing: How its images are made.
        source: Where it was found, for messages.
    """

    model: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    source: str


def open_teacher(settings: "DistillConfig", student: Config) -> OpenedTeacher:
    """Return the teacher that a config's `distill` section names.

    Args:
        settings: The section; names a teacher.
        student: The student's config. A teacher of your own network is built as the student is.

    Raises:
        CheckpointError: A file is missing, damaged, or does not fill the whole network.
        ConfigError: The teacher's config is invalid.
    """
    if settings.teacher_config is not None and settings.teacher_pretrained is not None:
        return _of_config(settings.teacher_config, settings.teacher_pretrained)
    path = weights_path(settings.teacher or "")
    own = is_own_name(checkpoints.read(path).origin.architecture)
    found = open_checkpoint(path, student if own else None)
    return OpenedTeacher(found.model, found.task.labels, found.preprocessing, str(path))


def _of_config(name: str, weights: str) -> OpenedTeacher:
    path = weights_path(weights)
    config = load_config(name)[1]
    if checkpoints.is_checkpoint(path):
        found = open_checkpoint(path, config)
        return OpenedTeacher(found.model, found.task.labels, found.preprocessing, str(path))
    model = build_model(config)
    loaded = load_weights(model, path, what="all").loaded
    fresh = [one for one in fillable(model) if one not in loaded]
    if fresh:
        raise CheckpointError(
            f"A teacher's weights must fill its network. Received '{path}', which leaves "
            f"'{fresh[0]}' of '{config.model}' untrained. Give the weights of the whole "
            "network."
        )
    labels = tuple(config.data.labels or ())
    return OpenedTeacher(model, labels, config.preprocessing, str(path))


def default_teacher(
    name: str, config: Config, student: Path, *, is_cut: bool, progress: Progress
) -> Path:
    """Return the checkpoint of the dense network that teaches its pruned self.

    Args:
        name: Of the run.
        config: Has the folder of all runs.
        student: The student's checkpoint.
        is_cut: Whether the student is going to be cut from that checkpoint.
        progress: Receives a note if the student was cut from another network.

    Raises:
        ConfigError: The student is dense, or its dense network is not in the run folder.
    """
    found = checkpoints.read(student)
    if is_cut and not found.plans:
        return student
    if not found.plans:
        raise ConfigError(
            f"A dense student must have a teacher. Received '{student}', which is not pruned, and "
            "no teacher. Add: -t CHECKPOINT"
        )
    path = dense_checkpoint(name, config)
    if path is None:
        raise ConfigError(
            "A pruned student is taught by the dense network it was cut from. Received "
            f"'{student}' and no dense checkpoint in '{Path(config.save_dir) / name}'. "
            "Add: -t CHECKPOINT"
        )
    _note_other(found, path, progress)
    return path


def _note_other(student: Checkpoint, path: Path, progress: Progress) -> None:
    recorded = [parent.digest for parent in student.parents if parent.role == "dense"]
    if recorded and digest_of_weights(checkpoints.load(path).state_dict()) not in recorded:
        progress.note(f"note: the student was cut from other weights than those of '{path}'")
