"""A config brought to life: its model, task, data and loaders."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from flyweight import checkpoint as checkpoints
from flyweight.checkpoint import Checkpoint
from flyweight.data.batch import Batch
from flyweight.data.check import require_sound
from flyweight.data.loading import open_set, train_loader, val_loader
from flyweight.data.preprocess import Appearance, Preprocessing
from flyweight.data.records import PictureSet
from flyweight.data.usable import leave_out_bad
from flyweight.engine.config import TrainConfig
from flyweight.engine.run import Loaders
from flyweight.errors import CheckpointError, ConfigError, DataError
from flyweight.lineage import lineage_of
from flyweight.recipe.config import Config
from flyweight.recipe.early import weights_path
from flyweight.tasks import table as tables
from flyweight.tasks.config import TaskConfig
from flyweight.tasks.task import Task
from flyweight.zoo import spec_of
from flyweight.zoo.weights import load_weights


@dataclass(frozen=True)
class Data:
    """The two splits of a run, checked."""

    train: PictureSet
    val: PictureSet

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return self.train.labels


def open_data(config: Config, *, save_dir: Path | None = None) -> Data:
    """Read both splits and refuse bad pictures and boxes before anything else happens.

    Args:
        config: What to read.
        save_dir: Gets the list of problems, if there are any.

    Raises:
        DataError: A split is empty, or a picture or box is unusable.
        ConfigError: The data has another number of classes than the config.
    """
    data = Data(open_set(config.data, "train"), open_set(config.data, "val"))
    for pictures in (data.train, data.val):
        _require_pictures(pictures)
    _require_classes(data.train, config)
    list_to = _problems_in(save_dir)
    if config.data.problems == "leave_out":
        train, val = leave_out_bad(data.train, data.val, list_to=list_to)
        return Data(train, data.val if val is None else val)
    require_sound(data.train, data.val, list_to=list_to)
    return data


def open_val(config: Config, *, save_dir: Path | None = None) -> PictureSet:
    """Read and check the split to evaluate on, without needing the one to train on.

    Args:
        config: What to read.
        save_dir: Gets the list of problems, if there are any.

    Raises:
        DataError: The split is empty, or a picture or box is unusable.
        ConfigError: The data has another number of classes than the config.
    """
    pictures = open_set(config.data, "val")
    _require_pictures(pictures)
    _require_classes(pictures, config)
    list_to = _problems_in(save_dir)
    if config.data.problems == "leave_out":
        return leave_out_bad(pictures, list_to=list_to)[0]
    require_sound(pictures, list_to=list_to)
    return pictures


def _problems_in(save_dir: Path | None) -> Path | None:
    return save_dir / "data_problems.txt" if save_dir is not None else None


def _require_pictures(pictures: PictureSet) -> None:
    if not len(pictures) and not pictures.problems:
        raise DataError(
            f"A split must have pictures. Received '{pictures.name}' with none. "
            f"Check the list that names them{f': {pictures.source}' if pictures.source else ''}."
        )


def _require_classes(pictures: PictureSet, config: Config) -> None:
    labels = pictures.labels
    if len(labels) != config.num_classes:
        raise ConfigError(
            f"num_classes must be the number of the data's labels, {len(labels)} "
            f"({', '.join(labels[:4])}{', ...' if len(labels) > 4 else ''}). "
            f"Received {config.num_classes}. Set it with: -o num_classes={len(labels)}"
        )


def require_same_labels(found: Checkpoint, labels: tuple[str, ...], path: Path) -> None:
    """Check that a checkpoint means the same classes as the data, index by index.

    Raises:
        CheckpointError: It does not; the first difference is named.
    """
    for index, (saved, given) in enumerate(zip(found.labels, labels, strict=False)):
        if saved != given:
            raise CheckpointError(
                f"A checkpoint must know the data's classes in the data's order. Received '{path}' "
                f"whose class {index} is '{saved}' where the data says '{given}'. "
                "Give data.labels in the checkpoint's order."
            )


def load_model(path: Path, config: Config | None = None) -> tuple[nn.Module, Checkpoint]:
    """Return the model of a checkpoint, pruned as it was saved, and what the file says.

    Raises:
        CheckpointError: The file is damaged, or of another architecture than the config's.
    """
    found = checkpoints.read(path)
    if config is not None:
        require_architecture(found, config, path)
    return checkpoints.load(path), found


def require_architecture(found: Checkpoint, config: Config, path: Path) -> None:
    """Check that a checkpoint is of the config's network.

    Raises:
        CheckpointError: It is not; the difference is named.
    """
    lineage = found.lineage
    has = {"model": lineage.architecture, **lineage.arguments}
    wants = {"model": config.model, **config.arguments}
    for key, wanted in wants.items():
        if has.get(key, wanted) != wanted:
            raise CheckpointError(
                f"A checkpoint must be of the config's network. Received '{path}' with {key} "
                f"{has[key]!r} where the config says {wanted!r}. Use the config it was made with."
            )


def starting_weights(model: nn.Module, config: Config) -> str:
    """Load `pretrain_weights` into `model`, if the config names any; return what happened.

    A checkpoint of the same network must fit whole; one that was trained on other classes fills
    all but the outputs, and plain weights fill the backbone.

    Raises:
        CheckpointError: The file is missing, damaged or fits nowhere.
    """
    if config.pretrain_weights is None:
        return "weights: fresh"
    path = weights_path(config.pretrain_weights)
    if not checkpoints.is_checkpoint(path):
        return f"weights: backbone from {path}: {load_weights(model, path, what='backbone')}"
    found = checkpoints.read(path)
    if found.lineage.arguments.get("num_classes") != config.num_classes and not found.plans:
        return f"weights: {path}: {load_weights(model, path, what='all')}"
    require_architecture(found, config, path)
    checkpoints.load_weights(model, path)
    return f"weights: {path}"


def task_for(model: nn.Module, labels: tuple[str, ...], config: TaskConfig) -> Task:
    """Return what `model` is for.

    Raises:
        ConfigError: The model does not come from the zoo.
    """
    lineage = lineage_of(model)
    if lineage is None:
        raise ConfigError("A task must be known for the model. Received a model outside the zoo.")
    spec = spec_of(lineage.architecture)
    return tables.task_for(spec.task, spec.geometry, labels, config)


def loaders_for(config: Config, train: TrainConfig, data: Data) -> Loaders:
    """Return the loaders that `engine.fit` calls, in its own process or in several."""
    return Loaders(
        partial(_train_batches, config, train, data.train),
        partial(val_batches, config, data.val),
    )


def _train_batches(
    config: Config, train: TrainConfig, pictures: PictureSet, start: int, rank: int, world_size: int
) -> Iterable[Batch]:
    if train.batch_size % world_size:
        raise ConfigError(
            f"train.batch_size must divide among the devices. Received {train.batch_size} pictures "
            f"for {world_size} devices. Choose a multiple of {world_size}."
        )
    return train_loader(
        pictures,
        preprocessing=config.preprocessing,
        augment=config.augment,
        num_workers=train.num_workers,
        batch_size=train.batch_size // world_size,
        steps=train.steps,
        start_step=start,
        seed=train.seed,
        rank=rank,
        world_size=world_size,
    )


def val_batches(
    config: Config, pictures: PictureSet, rank: int = 0, world_size: int = 1
) -> Iterable[Batch]:
    """Return this process's share of the pictures to evaluate."""
    return val_loader(
        pictures,
        preprocessing=config.preprocessing,
        batch_size=config.eval_batch_size,
        num_workers=config.train.num_workers,
        rank=rank,
        world_size=world_size,
    )


@dataclass(frozen=True)
class Saver:
    """Writes checkpoints of one run; picklable, because several processes may hold it."""

    config: Config
    labels: tuple[str, ...]
    task: str

    def __call__(self, model: nn.Module, metrics: Mapping[str, float], path: Path) -> None:
        """Write `model` to `path`."""
        checkpoints.save(
            model,
            path,
            task=self.task,
            labels=self.labels,
            preprocessing=self.config.preprocessing.model_dump(mode="json"),
            metrics=metrics,
            notes=self.config.tasks.model_dump(mode="json", include={self.task}),
        )


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to be used without its config."""

    model: nn.Module
    task: Task
    preprocessing: Preprocessing
    checkpoint: Checkpoint


def open_checkpoint(path: Path) -> Loaded:
    """Return everything that prediction and export need, from the file alone.

    Raises:
        CheckpointError: The file is damaged, or does not say what it is for.
    """
    model, found = load_model(path)
    absent = [key for key in ("labels", "preprocessing") if not getattr(found, key)]
    if absent:
        raise CheckpointError(
            "A checkpoint must carry labels and preprocessing for export and predict. "
            f"Received '{path}' without {' and '.join(absent)}. Save it again with: fw.save(model, "
            'path, labels=("cat", ...), preprocessing={"height": 320, "width": 320})'
        )
    try:
        config = TaskConfig.model_validate(found.notes)
    except ValidationError as error:
        raise _misunderstood(error, path) from error
    task = task_for(model, found.labels, config)
    return Loaded(model, task, saved_preprocessing(found, path), found)


def saved_preprocessing(found: Checkpoint, path: Path) -> Preprocessing:
    """Return how a checkpoint wants its pictures.

    Raises:
        CheckpointError: It does not say so in words of ours.
    """
    try:
        return Preprocessing.model_validate(found.preprocessing)
    except ValidationError as error:
        raise _misunderstood(error, path) from error


def _misunderstood(error: ValidationError, path: Path) -> CheckpointError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return CheckpointError(
        f"A checkpoint's settings must be what flyweight wrote. Received '{path}' with '{key}': "
        f"{first['msg']}. Save the model again."
    )


def as_told(config: Config, saved: Preprocessing, told: Collection[str]) -> Config:
    """Return the config with a checkpoint's own preprocessing, except for what the user told.

    Args:
        config: The config, overrides included.
        saved: The checkpoint's preprocessing.
        told: Keys of the config that overrides speak of.
    """
    own = {key: getattr(saved, key) for key in Appearance.model_fields}
    own["input_size"] = (saved.height, saved.width)
    return config.model_copy(update={key: own[key] for key in own if key not in told})
