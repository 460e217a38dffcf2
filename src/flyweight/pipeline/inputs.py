"""Model, task, data and loaders of a config, and checkpoints opened for use."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from flyweight import checkpoint as checkpoints
from flyweight.checkpoint import Checkpoint, MetricRecord
from flyweight.config.data import FORMATS
from flyweight.config.preprocessing import Appearance, Preprocessing
from flyweight.config.settings import Config
from flyweight.config.tasks import TaskConfig
from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch
from flyweight.data.check import require_sound
from flyweight.data.loading import open_set, train_loader, val_loader
from flyweight.data.records import ImageSet
from flyweight.data.usable import leave_out_bad
from flyweight.engine.run import Loaders, Sizes
from flyweight.errors import CheckpointError, ConfigError, DataError
from flyweight.origin import origin_of
from flyweight.pipeline.belonging import require_architecture
from flyweight.pipeline.networks import kind_of, own_builder, require_sides
from flyweight.pipeline.preflight import weights_path
from flyweight.tasks import by_name as tables
from flyweight.tasks.task import Task
from flyweight.zoo import is_own_name, spec_of
from flyweight.zoo.sources.hub import HUBS, hub_weights
from flyweight.zoo.sources.weights import LoadedWeights, fill, fillable, load_weights


@dataclass(frozen=True)
class Data:
    """The checked splits of a run."""

    train: ImageSet
    val: ImageSet

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return self.train.labels


def open_data(config: Config, *, save_dir: Path | None = None) -> Data:
    """Read both splits and refuse bad images and boxes before anything else happens.

    Args:
        config: What to read.
        save_dir: Gets the list of problems, if there are any.

    Raises:
        DataError: A split is empty, or an image or box is unusable.
        ConfigError: The data is for another task, or has another number of classes than the config.
    """
    require_kind(config)
    data = Data(open_set(config.data, "train"), open_set(config.data, "val"))
    for images in (data.train, data.val):
        _require_images(images)
    _require_classes(data.train, config)
    list_to = _problems_in(save_dir)
    checked = leave_out_bad if config.data.problems == "leave_out" else require_sound
    train, val = checked(data.train, data.val, list_to=list_to)
    return Data(train, data.val if val is None else val)


def open_val(config: Config, *, save_dir: Path | None = None) -> ImageSet:
    """Read and check the split to evaluate on, without needing the one to train on.

    Args:
        config: What to read.
        save_dir: Gets the list of problems, if there are any.

    Raises:
        DataError: The split is empty, or an image or box is unusable.
        ConfigError: The data is for another task, or has another number of classes than the config.
    """
    require_kind(config)
    images = open_set(config.data, "val")
    _require_images(images)
    _require_classes(images, config)
    list_to = _problems_in(save_dir)
    checked = leave_out_bad if config.data.problems == "leave_out" else require_sound
    return checked(images, list_to=list_to)[0]


def _problems_in(save_dir: Path | None) -> Path | None:
    return save_dir / "data_problems.txt" if save_dir is not None else None


def _require_images(images: ImageSet) -> None:
    if not len(images) and not images.problems:
        raise DataError(
            f"A split must have images. Received '{images.name}' with none. "
            f"Check the list that names them{f': {images.source}' if images.source else ''}."
        )


def require_kind(config: Config) -> None:
    """Check that the data of a config are for the task of its network.

    Raises:
        ConfigError: They are for another task, or the images are fitted in a way that it excludes.
    """
    kind, given = kind_of(config), config.data.format
    if given not in FORMATS[kind]:
        raise ConfigError(
            f"The data must be of the model's task. Received data.format '{given}' for "
            f"'{config.model}', which is to {kind}. Formats to {kind}: {', '.join(FORMATS[kind])}."
        )
    if config.fit == "crop" and kind != "classify":
        raise ConfigError(
            f"To {kind}, a network must see the whole image. Received fit 'crop', which cuts the "
            "sides off. Give fit=stretch or fit=pad."
        )


def _require_classes(images: ImageSet, config: Config) -> None:
    labels = images.labels
    if len(labels) != config.num_classes:
        raise ConfigError(
            f"num_classes must be the number of the data's labels, {len(labels)} "
            f"({', '.join(labels[:4])}{', ...' if len(labels) > 4 else ''}). "
            f"Received {config.num_classes}. Set it with: -o num_classes={len(labels)}"
        )


def load_model(path: Path, config: Config | None = None) -> tuple[nn.Module, Checkpoint]:
    """Return the model of a checkpoint, pruned as it was saved, and the data of its file.

    Raises:
        CheckpointError: The file is damaged, or of another architecture than the config's.
        ConfigError: The network does not take images of the config's size.
    """
    model, found = _load(path, config)
    if config is not None:
        require_sides(config.model, config.preprocessing)
    return model, found


def _load(path: Path, config: Config | None) -> tuple[nn.Module, Checkpoint]:
    found = checkpoints.read(path)
    build = None
    if config is not None:
        require_architecture(found, config, path)
        build = own_builder(config)
    return checkpoints.load(path, build=build), found


@dataclass(frozen=True)
class Started:
    """What a network has after the weights to start from were loaded into it.

    Attributes:
        report: What was loaded, for the user.
        fresh: Names of the tensors that keep fresh values. Outputs for other classes, whose shape
            differs in the file, are not among them.
    """

    report: str
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.report


def starting_weights(model: nn.Module, config: Config) -> Started:
    """Load `pretrain_weights` into `model`, if the config names any; return what happened.

    A checkpoint of the same network must fit whole; one that was trained on other classes fills
    all but the outputs; one of another network, plain weights and those of a hub fill what fits.

    Raises:
        CheckpointError: The file is missing, damaged or fits nowhere.
    """
    if config.pretrain_weights is None:
        return Started("weights: fresh", fillable(model))
    if config.pretrain_weights in HUBS:
        source, tensors = hub_weights(config.pretrain_weights, config.model, config.arguments)
        return _started(model, source, fill(model, tensors, source))
    path = weights_path(config.pretrain_weights)
    part = "backbone from " if hasattr(model, "backbone") else ""
    if not checkpoints.is_checkpoint(path):
        return _started(model, f"{part}{path}", load_weights(model, path, what="backbone"))
    found = checkpoints.read(path)
    other = found.origin.architecture != config.model
    if other and not found.plans:
        return _started(model, f"{part}{path}", load_weights(model, path, what="backbone"))
    if found.origin.arguments.get("num_classes") != config.num_classes and not found.plans:
        return _started(model, str(path), load_weights(model, path, what="all"))
    require_architecture(found, config, path)
    checkpoints.load_weights(model, path)
    return Started(f"weights: {path}")


def _started(model: nn.Module, source: str, found: LoadedWeights) -> Started:
    reached = {*found.loaded, *(one.name for one in found.mismatched)}
    fresh = tuple(name for name in fillable(model) if name not in reached)
    return Started(f"weights: {source}: {found}", fresh)


def task_for(
    model: nn.Module, labels: tuple[str, ...], config: TaskConfig, kind: str | None = None
) -> Task:
    """Return the task of `model`.

    Args:
        model: A network of the zoo, of another library, or your own; a detector of your own has an
            attribute `geometry`.
        labels: Class names.
        config: The settings of tasks.
        kind: The task's name; needed for a network of your own.

    Raises:
        ConfigError: The task is not known.
    """
    origin = origin_of(model)
    if origin is not None and not is_own_name(origin.architecture):
        spec = spec_of(origin.architecture)
        return tables.task_for(spec.task, spec.geometry, labels, config)
    if not kind:
        raise ConfigError("A task must be known for the model. Received a model outside the zoo.")
    return tables.task_for(kind, getattr(model, "geometry", None), labels, config)


def task_of(model: nn.Module, labels: tuple[str, ...], config: Config) -> Task:
    """Return the task of the config's model, with the config's settings."""
    return task_for(model, labels, config.tasks, kind_of(config))


def loaders_for(config: Config, train: TrainConfig, data: Data) -> Loaders:
    """Return the loaders that `engine.fit` calls, in its own process or in several."""
    return Loaders(
        partial(_train_batches, config, train, data.train),
        partial(val_batches, config, data.val),
        Sizes(len(data.train), len(data.val), len(data.labels)),
    )


def _train_batches(
    config: Config, train: TrainConfig, images: ImageSet, start: int, rank: int, world_size: int
) -> Iterable[Batch]:
    if train.batch_size % world_size:
        raise ConfigError(
            f"train.batch_size must divide among the devices. Received {train.batch_size} images "
            f"for {world_size} devices. Choose a multiple of {world_size}."
        )
    return train_loader(
        images,
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
    config: Config,
    images: ImageSet,
    rank: int = 0,
    world_size: int = 1,
    order: Sequence[int] | None = None,
) -> Iterable[Batch]:
    """Return this process's share of the images to evaluate, in their order or another."""
    return val_loader(
        images,
        preprocessing=config.preprocessing,
        batch_size=config.eval_batch_size,
        num_workers=config.train.num_workers,
        rank=rank,
        world_size=world_size,
        order=order,
    )


@dataclass(frozen=True)
class Saver:
    """Writes checkpoints of one run; picklable, because each process of a run gets a copy.

    Attributes:
        config: Settings of preprocessing and of the task.
        labels: Class names.
        task: Name of the task.
        measured_on: Name of the data that metrics are measured on, where it is known.
    """

    config: Config
    labels: tuple[str, ...]
    task: str
    measured_on: str | None = None

    def __call__(self, model: nn.Module, metrics: Mapping[str, float], path: Path) -> None:
        """Write `model` to `path`, with metrics that were measured today."""
        today = datetime.now(UTC).date().isoformat()
        records = {
            name: MetricRecord(value, self.measured_on, today) for name, value in metrics.items()
        }
        checkpoints.save(
            model,
            path,
            task=self.task,
            labels=self.labels,
            preprocessing=self.config.preprocessing.model_dump(mode="json"),
            metrics=records,
            notes=self.config.tasks.model_dump(mode="json", include={self.task}),
        )


@dataclass(frozen=True)
class Loaded:
    """A checkpoint ready to be used without its config."""

    model: nn.Module
    task: Task
    preprocessing: Preprocessing
    checkpoint: Checkpoint


def open_checkpoint(path: Path, config: Config | None = None) -> Loaded:
    """Return everything that prediction and export need.

    Args:
        path: The file; it is enough where the network is not your own.
        config: Config that names the builder of a network of your own.

    Raises:
        CheckpointError: The file is damaged, or lacks labels or preprocessing.
    """
    model, found = _load(path, config)  # The file has the size of its images.
    absent = [key for key in ("labels", "preprocessing") if not getattr(found, key)]
    if absent:
        raise CheckpointError(
            "A checkpoint must carry labels and preprocessing for export and predict. "
            f"Received '{path}' without {' and '.join(absent)}. Save it again with: fw.save(model, "
            'path, labels=("cat", ...), preprocessing={"height": 320, "width": 320})'
        )
    try:
        settings = TaskConfig.model_validate(found.notes)
    except ValidationError as error:
        raise _misunderstood(error, path) from error
    task = task_for(model, found.labels, settings, found.task)
    return Loaded(model, task, saved_preprocessing(found, path), found)


def saved_preprocessing(found: Checkpoint, path: Path) -> Preprocessing:
    """Return the preprocessing of a checkpoint.

    Raises:
        CheckpointError: The file has no preprocessing of flyweight's.
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


def with_overrides(config: Config, saved: Preprocessing, overridden: Collection[str]) -> Config:
    """Return the config with a checkpoint's own preprocessing, except for what was overridden.

    Args:
        config: The config, overrides included.
        saved: The checkpoint's preprocessing.
        overridden: Keys of the config that the overrides set.
    """
    own = {key: getattr(saved, key) for key in Appearance.model_fields}
    own["input_size"] = (saved.height, saved.width)
    return config.model_copy(update={key: own[key] for key in own if key not in overridden})


def open_with_overrides(path: Path, config: Config | None, overridden: Collection[str]) -> Loaded:
    """Return a checkpoint; overrides of its config take precedence over its own settings.

    Args:
        path: The file.
        config: The config, overrides included; None if the file alone decides.
        overridden: Keys of the config that the overrides set.

    Raises:
        CheckpointError: The file is damaged, or of another network than the config's.
    """
    loaded = open_checkpoint(path, config)
    if config is None:
        return loaded
    wanted = with_overrides(config, loaded.preprocessing, overridden)
    loaded = replace(loaded, preprocessing=wanted.preprocessing)
    if loaded.task.name not in overridden:
        return loaded
    return replace(loaded, task=task_of(loaded.model, loaded.task.labels, config))
