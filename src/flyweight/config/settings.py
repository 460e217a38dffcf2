"""The YAML file that says what to do, read strictly: an unknown key is named, never ignored."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.config.data import AugmentConfig, DataConfig
from flyweight.config.preprocessing import Appearance, Preprocessing
from flyweight.config.strict_yaml import load_yaml
from flyweight.config.tasks import ClassifyConfig, DetectConfig, SegmentConfig, TaskConfig
from flyweight.config.training import TrainConfig
from flyweight.errors import ConfigError, nearest

# Keys that users of the originals type, and what they are here.
OLD_KEYS = {
    "max_iters": "train.steps",
    "snapshot_iter": "train.evaluate_every",
    "log_iter": "train.log_every",
    "worker_num": "train.num_workers",
    "LearningRate.base_lr": "train.learning_rate",
    "TrainReader.batch_size": "train.batch_size",
    "EvalReader.batch_size": "eval_batch_size",
    "YOLOv3Head.nms.score_threshold": "detect.suppression.score_threshold",
    "YOLOv3Head.nms.nms_threshold": "detect.suppression.iou_threshold",
    "YOLOv3Head.nms.keep_top_k": "detect.suppression.keep",
    "YOLOv3Head.nms.nms_top_k": "detect.suppression.top_k",
    "SSD.output_decoder.score_threshold": "detect.suppression.score_threshold",
    "SSD.output_decoder.nms_threshold": "detect.suppression.iou_threshold",
    "SSD.output_decoder.keep_top_k": "detect.suppression.keep",
    "SSD.output_decoder.nms_top_k": "detect.suppression.top_k",
    "BlazeFace.output_decoder.score_threshold": "detect.suppression.score_threshold",
    "BlazeFace.output_decoder.nms_threshold": "detect.suppression.iou_threshold",
    "BlazeFace.output_decoder.keep_top_k": "detect.suppression.keep",
    "BlazeFace.output_decoder.nms_top_k": "detect.suppression.top_k",
    "MobileNetV3.multiplier": "model_args.multiplier",
    "metric": "detect.metric",
    "use_gpu": "train.accelerator",
}
# What YAML would take for a number or a date, and is a word.
_TEXTS = frozenset(
    {
        *("weights", "pretrain_weights", "save_dir", "data.root", "data.train", "data.val"),
        *("train.precision", "finetune.precision"),
    }
)
TaskName = Literal["detect", "classify", "segment"]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class PruneConfig(BaseModel):
    """What `flyweight prune` and the chain cut when the command line does not say.

    Attributes:
        params: Layers, by the name of their weight; `[all]` is every layer that can be cut.
        ratios: Share of channels to remove, one per layer.
        criterion: A name of `pruning.CRITERIA`.
        round_to: Multiple that the channels that stay are rounded to.
        repair: Refit what is left right after the cut, before any training.
        repair_images: Training images, without labels, to do that with.
    """

    model_config = _STRICT

    params: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    criterion: str = "l1_norm"
    round_to: int = Field(default=1, gt=0)
    repair: bool = False
    repair_images: int = Field(default=500, ge=2)


class MeasureConfig(BaseModel):
    """How the chain measures latency.

    Attributes:
        threads: Thread counts.
        seconds: Time for each file at each thread count.
    """

    model_config = _STRICT

    threads: tuple[int, ...] = (1, 2)
    seconds: float = Field(default=5.0, gt=0)


class Config(Appearance):
    """One model on one data set, from training to the report.

    Besides these keys it has those of `Appearance`: `mean`, `std`, `fit` and so on.

    Attributes:
        model: A name of the zoo.
        task: What the model is for; None is what the zoo says.
        num_classes: Classes, without background.
        width: Multiplies the channels of a network that can be narrowed; None leaves it out.
        model_args: More arguments of the network's builder.
        input_size: Side of the network's square input in pixels, or height and width.
        data: Where images come from.
        augment: How training images vary.
        train: How to train.
        finetune: How to train after pruning; as `train` where it is left out.
        detect: Loss, decoding and metric of a detector.
        classify: Loss of a classifier.
        segment: Loss of a segmenter.
        eval_batch_size: Images per batch in evaluation.
        prune: What to cut.
        bench: How to measure.
        pretrain_weights: Weights to start training from: a backbone's or a whole network's.
        weights: Checkpoint to evaluate, prune, export or predict with.
        save_dir: Folder for everything that is written.
    """

    model_config = _STRICT

    model: str
    task: TaskName | None = None
    num_classes: int = Field(gt=0)
    width: float | None = Field(default=None, gt=0)
    model_args: dict[str, Any] = Field(default_factory=dict)
    input_size: int | tuple[int, int]
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig
    finetune: TrainConfig | None = None
    detect: DetectConfig = DetectConfig()
    classify: ClassifyConfig = ClassifyConfig()
    segment: SegmentConfig = SegmentConfig()
    eval_batch_size: int = Field(default=8, gt=0)
    prune: PruneConfig = PruneConfig()
    bench: MeasureConfig = MeasureConfig()
    pretrain_weights: str | None = None
    weights: str | None = None
    save_dir: str = "output"

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        size = self.input_size
        height, width = (size, size) if isinstance(size, int) else size
        return Preprocessing(
            height=height,
            width=width,
            **{key: getattr(self, key) for key in Appearance.model_fields},
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the network's builder."""
        width = {} if self.width is None else {"width": self.width}
        return {"num_classes": self.num_classes, **width, **self.model_args}

    @property
    def tasks(self) -> TaskConfig:
        """What can be chosen about tasks, whichever the model's is."""
        return TaskConfig(detect=self._detect, classify=self.classify, segment=self.segment)

    @property
    def _detect(self) -> DetectConfig:
        if self.data.ground_truth is None:
            return self.detect
        folder = Path(self.data.root) / self.data.ground_truth
        return self.detect.model_copy(update={"ground_truth": str(folder)})


def known_configs() -> tuple[str, ...]:
    """Return the names of the configs that come with flyweight."""
    folder = resources.files("flyweight.config.presets")
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_config(name: str, overrides: Sequence[str] = ()) -> tuple[str, Config]:
    """Read a config by name or path and apply `key=value` overrides.

    Args:
        name: A name of `known_configs`, a path to a YAML file, or the originals' spelling
            `configs/NAME.yml`.
        overrides: As after `-o`: dotted keys, values in YAML, `train.steps=100`.

    Returns:
        The config's name (the file's without its ending) and the config.

    Raises:
        ConfigError: No such config; or a key, a value or the YAML itself cannot be meant. The
            letter names the key and the nearest valid one.
    """
    text, label = _read(name)
    values = load_yaml(text, name)
    if not isinstance(values, dict):
        raise ConfigError(
            f"A config must be a mapping of keys. Received '{name}' without any. "
            f"Start from a built-in one: {', '.join(known_configs())}."
        )
    for key, value in map(_pair, overrides):
        _put(values, key, value)
    try:
        return label, Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_letter(name, error)) from error


def _read(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), path.stem
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"A config must be readable text. Received '{name}': {error}. Save it as UTF-8."
            ) from error
    stem = (
        path.stem
        if path.suffix in {".yml", ".yaml"} and path.parent.name in {"", "configs"}
        else name
    )
    if stem in known_configs():
        entry = resources.files("flyweight.config.presets") / f"{stem}.yaml"
        return entry.read_text(encoding="utf-8"), stem
    raise ConfigError(
        f"A config must be a file or a built-in name. Received '{name}'. "
        f"{nearest(stem, known_configs())} List them with: flyweight models"
    )


def touched(overrides: Sequence[str]) -> frozenset[str]:
    """Return the top-level keys that `key=value` overrides speak of.

    Raises:
        ConfigError: An override cannot be meant.

    Example:
        >>> sorted(touched(["input_size=320", "max_iters=100"]))
        ['input_size', 'train']
    """
    return frozenset(key.split(".")[0] for key, _ in map(_pair, overrides))


def _pair(override: str) -> tuple[str, Any]:
    """Return the key that an override means, and its value."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"An override must read key=value. Received '{override}'. Example: -o train.steps=100"
        )
    key = OLD_KEYS.get(key.strip(), key.strip())
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"An override's value must be YAML. Received '{override}'. Quote it in the shell."
        ) from error
    if key == "train.accelerator" and isinstance(value, bool):
        value = "auto" if value else "cpu"
    return key, text.strip("\"'") if key in _TEXTS and value is not None else value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.get(parent)
        # A copy, because YAML's anchors put one mapping in several places.
        place[parent] = dict(inner) if isinstance(inner, dict) else {}
        place = place[parent]
    place[last] = value


def _letter(name: str, error: ValidationError) -> str:
    """Return the first of pydantic's complaints as one line for the user."""
    first = error.errors()[0]
    place = _place(first["loc"])
    key = ".".join(place)
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        siblings = [".".join([*place[:-1], other]) for other in _keys_at(place[:-1])]
        hint = nearest(key, siblings)
        return f"A config key must be a known one. Received '{key}' in '{name}'. {hint}{more}"
    if first["type"] == "missing":
        return (
            f"A config must have the key '{key}'. Received '{name}' without it. "
            f"Add it there, or with: -o {key}=VALUE{more}"
        )
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = first.get("input")
    shown = f"'{key}'" if isinstance(value, Mapping) else f"{value!r} for '{key}'"
    return (
        f"A config's values must be valid. Received {shown} in '{name}': {reason}. "
        f"Correct it there, or with -o.{more}"
    )


def _place(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of a complaint, without what pydantic adds to tell alternatives apart."""
    place: list[str] = []
    for part in location:
        if isinstance(part, str) and not _keys_at(place):
            break
        place.append(str(part))
    return place


def _keys_at(place: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = _model_in(annotation)
        if model is None:
            return []
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    options = [annotation, *getattr(annotation, "__args__", ())]
    models = [option for option in options if isinstance(option, type)]
    return next((option for option in models if issubclass(option, BaseModel)), None)
