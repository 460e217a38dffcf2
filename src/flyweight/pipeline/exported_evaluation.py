"""Evaluation of an exported file, as its runtime executes it, on the data of a config."""

from pathlib import Path

from flyweight.config.settings import Config
from flyweight.data.loading import val_loader
from flyweight.data.records import ImageSet
from flyweight.errors import ConfigError
from flyweight.exporting.exported_model import ExportedModel
from flyweight.pipeline.inputs import task_of
from flyweight.pipeline.network_plans import weightless
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.prediction import placing_of
from flyweight.processors import usable_count
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME


def open_exported(path: Path, config: Config, runtime: str = DEFAULT_RUNTIME) -> ExportedModel:
    """Return an exported file that can be evaluated with a config.

    Raises:
        FileError: There is no such file.
        ExportError: It is no ONNX file of flyweight's.
        ConfigError: It is of another task, is not prepared like an image, or its detector has
            another end than detections.
    """
    model = ExportedModel(path, threads=usable_count(), runtime=runtime)
    placing_of(model)
    kind = kind_of(config)
    if model.card.task != kind:
        raise ConfigError(
            f"A file to evaluate must be of the config's task, {kind}. Received '{path}', which "
            f"is to {model.card.task}. Give the file or the config that belongs to it."
        )
    return model


def evaluate_exported(
    model: ExportedModel, config: Config, images: ImageSet, *, progress: Progress | bool = False
) -> dict[str, float]:
    """Return the metrics of an exported file over a checked split; fractions in 0..1.

    Images are given one by one, as the files have a fixed batch. The decoding, and for detectors
    the suppression, are those in the file.

    Args:
        model: From `open_exported`.
        config: The settings of the metric.
        images: The split.
        progress: Receives progress.

    Raises:
        ExportError: The file requires another shape, or its description does not fit its graph.
    """
    preprocessing, place = placing_of(model)
    batches = val_loader(
        images,
        preprocessing=preprocessing,
        batch_size=1,
        num_workers=config.train.num_workers,
    )
    metric = task_of(weightless(config), images.labels, config).metric()
    for batch in progress_over(batches, "evaluate", progress_of(progress), len(images)):
        metric.update([place(batch)], batch)
    return metric.compute()
