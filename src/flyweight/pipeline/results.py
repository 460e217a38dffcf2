"""Results of stages: plain frozen values, each with the digests that later stages depend on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight import checkpoint
from flyweight.digests import digest_of_value
from flyweight.graph import Cost, ModelGraph
from flyweight.measuring.latency_table import LayerTable
from flyweight.measuring.measure import Measurement
from flyweight.pipeline.precision_record import PrecisionLatency
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pruning import PruningPlan
from flyweight.pruning.repair.repair import RepairStep
from flyweight.report.quantization_results import QuantizationStep
from flyweight.sensitivity import Sensitivity


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        checkpoint: Its file: of the best evaluation, or of the last weights where nothing was
            evaluated.
        metrics: Of that evaluation, by name.
        seconds: Time spent training and evaluating, over all attempts.
    """

    checkpoint: Path
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        checkpoint: Its file, after fine-tuning where there was any.
        plan: What was cut.
        plan_file: The file of the plan.
        before: Cost of the dense network.
        after: Cost of the pruned one.
        metrics: Of the last evaluation, by name; empty where there was none.
        repair: The steps of the repair, where there was one.
    """

    checkpoint: Path
    plan: PruningPlan
    plan_file: Path
    before: Cost
    after: Cost
    metrics: Mapping[str, float]
    repair: tuple[RepairStep, ...] = ()


@dataclass(frozen=True)
class Quantized:
    """A quantized network beside the float one it was made from.

    Attributes:
        checkpoint: Of the quantized network.
        files: "float" and "int8" to their ONNX files.
        runtime: Name of the runtime that executed them.
        primary: Name of the metric that decides.
        metrics: "float" and "int8" to the metrics of the files, by name.
        integer_layers: Number of layers that the runtime computes with integers.
        float_layers: Name of every other layer to the reason.
        file_bytes: "float" and "int8" to the size of the file.
        steps: What was done, each with the metric before and after; empty for calibration alone.
        latency: Of the quantized file beside the float one, where precisions were chosen by it.
    """

    checkpoint: Path
    files: Mapping[str, Path]
    runtime: str
    primary: str
    metrics: Mapping[str, Mapping[str, float]]
    integer_layers: int
    float_layers: Mapping[str, str]
    file_bytes: Mapping[str, int]
    steps: tuple[QuantizationStep, ...] = ()
    latency: PrecisionLatency | None = None


@dataclass(frozen=True)
class Distilled:
    """A student that was trained against a teacher.

    Attributes:
        checkpoint: Its file.
        primary: Name of the main metric.
        before: Metrics of the student before the training, by name.
        metrics: Likewise of the best evaluation.
        teacher: Metrics of the teacher.
        similarity: Name of each tap to how alike the features were before and after; see
            `distillation.similarity.linear_cka`.
    """

    checkpoint: Path
    primary: str
    before: Mapping[str, float]
    metrics: Mapping[str, float]
    teacher: Mapping[str, float]
    similarity: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Scanned:
    """The curves of a scan.

    Attributes:
        file: Where they are.
        curves: The curves.
        graph: Of the network; None where the curves were read from the file.
    """

    file: Path
    curves: Sensitivity
    graph: ModelGraph | None = None


@dataclass(frozen=True)
class LayersTimed:
    """The latency table of a network.

    Attributes:
        file: Where it is.
        table: The table.
        graph: Of the network.
    """

    file: Path
    table: LayerTable
    graph: ModelGraph


@dataclass(frozen=True)
class Exported:
    """The exported networks of a chain.

    Attributes:
        files: Network ("dense", "pruned") to its ONNX file with raw outputs.
    """

    files: Mapping[str, Path]


@dataclass(frozen=True)
class Benchmarked:
    """Measurements of exported files.

    Attributes:
        rows: One per file and thread count.
    """

    rows: tuple[Measurement, ...]

    def of(self, file: Path) -> tuple[Measurement, ...]:
        """Return the measurements of one file."""
        return tuple(row for row in self.rows if row.path == str(file))


@dataclass(frozen=True)
class ComparedNetwork:
    """One network of a comparison.

    Attributes:
        name: Of the network in the report.
        like: Name of the network whose structure it has: "dense" or "pruned".
        metric: The main metric on the validation split.
        difference: 95 % interval of its difference from the first network; None for the first one,
            and for metrics that are not resampled.
    """

    name: str
    like: str
    metric: float
    difference: tuple[float, float] | None = None


@dataclass(frozen=True)
class Compared:
    """Networks that were evaluated on the same images.

    Attributes:
        networks: The dense network first.
    """

    networks: tuple[ComparedNetwork, ...]


def pruned_checkpoint(results: Mapping[str, Any]) -> Path:
    """Return the checkpoint of a chain's pruned network, after its distillation if there is one."""
    last: Pruned | Distilled = results.get("distill") or results["prune"]
    return last.checkpoint


def checkpoint_digests(result: Trained | Pruned | Distilled) -> Mapping[str, str]:
    """Return digests of a network: "weights", and "description" for the rest of its header."""
    found = checkpoint.read(result.checkpoint)
    described: Any = [found.task, found.labels, found.preprocessing, found.notes, found.metrics]
    return {
        "weights": digest_of_checkpoint(result.checkpoint),
        "description": digest_of_value(described),
    }
