"""Settings of one YAML file: one model on one data set, from training to the report."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flyweight.config.data import AugmentConfig, DataConfig
from flyweight.config.preprocessing import Appearance, Preprocessing
from flyweight.config.pruning import PruneConfig
from flyweight.config.quantization import QuantizeConfig
from flyweight.config.tasks import ClassifyConfig, DetectConfig, SegmentConfig, TaskConfig
from flyweight.config.training import TrainConfig

TaskName = Literal["detect", "classify", "segment"]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class MeasureConfig(BaseModel):
    """How exported networks are measured.

    Attributes:
        threads: Numbers of threads to measure with.
        seconds: Seconds of timed inferences for each file at each number of threads.
        runtime: Name of the runtime that executes the exported files.
    """

    model_config = _STRICT

    threads: tuple[int, ...] = (1, 2)
    seconds: float = Field(default=5.0, gt=0)
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"


class Config(Appearance):
    """One model on one data set, from training to the report.

    Besides these keys it has those of `Appearance`: `mean`, `std`, `fit` and so on.

    Attributes:
        model: Name of a network in the zoo.
        task: Task of the model; None takes the zoo's.
        num_classes: Number of classes, without background.
        width: Factor of all channels, of networks that take one; None does not pass it.
        model_args: More arguments of the network's builder.
        input_size: Side of the network's square input in pixels, or height and width.
        data: Data set and its splits.
        augment: Random variation of training images.
        train: Training of the dense network.
        finetune: Training after pruning; None takes `train`.
        detect: Loss, decoding and metric of a detector.
        classify: Loss of a classifier.
        segment: Loss of a segmenter.
        eval_batch_size: Images per batch in evaluation.
        prune: What to cut, and the repair after it.
        quantize: What becomes integers, and the training for it.
        bench: Measuring of latency.
        pretrain_weights: Weights to start training from: of a backbone or of a whole network.
        weights: Checkpoint to evaluate, prune, export or predict with.
        save_dir: Folder of all written files.
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
    quantize: QuantizeConfig = QuantizeConfig()
    bench: MeasureConfig = MeasureConfig()
    pretrain_weights: str | None = None
    weights: str | None = None
    save_dir: str = "output"

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images for the network's input."""
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
        """The settings of all tasks; the model uses those of its own."""
        return TaskConfig(detect=self._detect, classify=self.classify, segment=self.segment)

    @property
    def _detect(self) -> DetectConfig:
        if self.data.ground_truth is None:
            return self.detect
        folder = Path(self.data.root) / self.data.ground_truth
        return self.detect.model_copy(update={"ground_truth": str(folder)})
