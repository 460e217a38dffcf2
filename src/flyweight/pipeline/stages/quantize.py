"""Quantization stage: calibrate, train where that is wanted, export, and measure both files."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from flyweight.checkpoint import Checkpoint, read
from flyweight.config.reading import touched
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS
from flyweight.digests import digest_of_weights
from flyweight.errors import CheckpointError, FileError, counted
from flyweight.exporting.integer_gate import require_integer
from flyweight.exporting.model_card import precision_facts
from flyweight.graph.example_inputs import Example
from flyweight.measuring.census import Census, take_census
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.belonging import require_same_labels
from flyweight.pipeline.exported_evaluation import evaluate_exported, open_exported
from flyweight.pipeline.inputs import (
    Data,
    Loaded,
    Saver,
    load_model,
    open_data,
    saved_preprocessing,
    task_of,
    val_batches,
    with_overrides,
)
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import example_input
from flyweight.pipeline.networks import kind_of, require_training_sides
from flyweight.pipeline.precision_choice import Subject, choose
from flyweight.pipeline.precision_record import PrecisionRecord, read_record, record_path
from flyweight.pipeline.results import Quantized, Trained
from flyweight.pipeline.stage import (
    INPUT,
    LOADING,
    NETWORK,
    TASKS,
    Inputs,
    Stage,
    by_hand,
    fine_tuning,
)
from flyweight.pipeline.stages.export import export_model, images_to_compare
from flyweight.pipeline.stages.train import note_left_out, train_model
from flyweight.progress import Progress, progress_of
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.placement import layer_names
from flyweight.quantization.quantization_plan import LearnedSteps, QuantizationPlan
from flyweight.quantization.quantize import QuantConfig
from flyweight.quantization.quantize import quantize as to_integers
from flyweight.quantization.rewriting import rewritten
from flyweight.quantization.sites import record_sites
from flyweight.quantization.skipping import skipped
from flyweight.workspace import Workspace

QUANTIZED = "quantized.safetensors"
"""The checkpoint in a run folder, where no other name is given."""
TRAINING = "quantization_training"
"""Folder, within that of the run, of checkpoints and logs of the training."""


@dataclass(frozen=True)
class QuantizeOptions:
    """What the caller of the quantization stage chooses besides the config.

    Attributes:
        output: The checkpoint to write; the ONNX files go beside it. Empty for `QUANTIZED` in the
            run folder.
    """

    output: str = ""

    def path_in(self, folder: Path) -> Path:
        """Return the checkpoint to write, where `folder` is that of the run."""
        return Path(self.output) if self.output else folder / QUANTIZED


def quantize(
    source: ModelSource,
    config: Config,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    resume: bool = False,
    progress: Progress | bool = False,
) -> Quantized:
    """Quantize a trained network, dense or pruned.

    The result is a checkpoint and two ONNX files, of the float and of the quantized network, whose
    metrics are measured on the validation split as the runtime executes them.

    Args:
        source: The float checkpoint and its config.
        config: That config; its section `quantize` says how.
        options: What to write.
        resume: Resume an interrupted training.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The data, the checkpoint or a setting is unusable, a pattern to skip matches
            no layer, or another run works in the folder.
    """
    (name, path), reports = source.find(), progress_of(progress)
    folder = Path(config.save_dir) / name
    _require_other_file(options.path_in(folder), path)
    if config.quantize.mode == "aware":
        require_training_sides(config)
    _, config = _opened(source, config)
    workspace = QUANTIZE.workspace(folder, in_chain=False)
    with workspace.locked():
        data = open_data(config, save_dir=folder)
        found = read(path)
        require_same_labels(found.labels, data.labels, path)
        note_left_out(data, reports)
        inputs = Inputs(name, data, options=options, resume=resume, progress=reports)
        inputs = replace(inputs, results={"train": Trained(path, found.metrics, 0.0)})
        result: Quantized = by_hand(QUANTIZE, config, inputs, workspace)
    return result


def quantization_losses(
    source: ModelSource, config: Config, *, progress: Progress | bool = False
) -> dict[str, float]:
    """Return what the quantization of each layer alone costs, by its operation, largest first.

    The cost is the squared error of the network's outputs, divided by their squared size, on the
    images of the calibration.

    Args:
        source: As for `quantize`.
        config: As for `quantize`.
        progress: Receives messages.

    Raises:
        FlyweightError: As for `quantize`.
    """
    model, config = _opened(source, config)
    data = open_data(config)
    model = rewritten(model) if config.quantize.rewrite else model
    small = _calibrated(model, config, data, progress_of(progress))
    losses = layer_losses(model, small, calibration_images(config, data))
    return dict(sorted(losses.items(), key=lambda pair: -pair[1]))


def _opened(source: ModelSource, config: Config) -> tuple[nn.Module, Config]:
    """Return the float network, and the config with the preprocessing of its checkpoint."""
    _, path = source.find()
    model, found = load_model(path, config)
    if found.preprocessing:
        saved = saved_preprocessing(found, path)
        config = with_overrides(config, saved, touched(source.overrides))
    _require_float(model, path)
    if config.quantize.skip:  # Before the data are read.
        start = rewritten(model) if config.quantize.rewrite else model
        recorded = record_sites(start, Example(example_input(config.preprocessing)))
        skipped(config.quantize.skip, layer_names(recorded))
    return model, config


def _require_other_file(output: Path, path: Path) -> None:
    if output.suffix != ".safetensors":
        raise FileError(
            f"A checkpoint must be a .safetensors file. Received --output '{output}'. Rename it."
        )
    if output.resolve() == path.resolve():
        raise FileError(
            "A quantized checkpoint must not replace the float one. Received "
            f"'{path}' as both. Give another file with --output."
        )


def _require_float(model: nn.Module, path: Path) -> None:
    if plan_of(model) is not None:
        raise CheckpointError(
            f"A network to quantize must be a float one. Received '{path}', which is quantized. "
            "Give the checkpoint that it was made from."
        )


def calibration_images(config: Config, data: Data) -> Tensor:
    """Return training images, spread over the split, as in use: `(n, 3, height, width)`."""
    count = min(config.quantize.images, len(data.train))
    order = [place * len(data.train) // count for place in range(count)]
    return torch.cat([batch.images for batch in val_batches(config, data.train, order=order)])


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Quantized:
    say, data = inputs.progress.note, inputs.splits
    path: Path = inputs.results["train"].checkpoint
    dense, found = load_model(path, settings)
    say(f"weights: {path}")
    output = inputs.options.path_in(workspace.folder)
    small, record = _quantized(dense, settings, data, inputs.progress)
    if settings.quantize.mode == "aware" and plan_of(small) is not None:
        small = _trained(small, settings, inputs, workspace.folder / TRAINING)
    files = _files(output)
    _export(dense, found, inputs, settings, files["float"])
    before = _metrics_of(files["float"], inputs, settings)
    facts = {} if record is None else precision_facts(record.latency.inference)
    _export(small, found, inputs, settings, files["int8"], facts=facts)
    census = take_census(files["int8"], runtime=settings.bench.runtime)
    plan = plan_of(small)
    if plan is not None:
        require_integer(census, plan)
        note_parent(small, Parent("float", digest_of_weights(dense.state_dict())))
    after = _metrics_of(files["int8"], inputs, settings)
    if record is not None:
        record.save(record_path(output))
    saver = Saver(settings, data.labels, kind_of(settings), measured_on=data.val.name)
    saver(small, after, output)
    measured = (task_of(dense, data.labels, settings).primary, {"float": before, "int8": after})
    return _result(output, settings, plan, census, measured, record)


def _quantized(
    dense: nn.Module, settings: Config, data: Data, progress: Progress
) -> tuple[nn.Module, PrecisionRecord | None]:
    """Return the quantized network, and the record of its precisions where they were chosen.

    The network is the float one itself where no choice of integer layers is faster.
    """
    wanted = settings.quantize
    start = rewritten(dense) if wanted.rewrite else dense
    if not wanted.chooses:
        return _calibrated(start, settings, data, progress), None

    def with_floats(floats: Mapping[str, str]) -> nn.Module:
        return _calibrated(start, settings, data, progress, floats)

    images = calibration_images(settings, data)
    subject = Subject(
        dense, start, with_floats, images, settings.preprocessing, settings.bench.runtime
    )
    with tempfile.TemporaryDirectory() as folder:
        choice = choose(subject, wanted.budget, Path(folder), progress)
    return choice.model or dense, choice.record


def _export(
    model: nn.Module,
    found: Checkpoint,
    inputs: Inputs,
    settings: Config,
    file: Path,
    *,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    say, data, runtime = inputs.progress.note, inputs.splits, settings.bench.runtime
    say(f"exporting {file}")
    task = task_of(model, data.labels, settings)
    loaded = Loaded(model.eval(), task, settings.preprocessing, replace(found, metric_records={}))
    images = images_to_compare(data.val, settings.preprocessing)
    made = export_model(loaded, file, name=file.stem, images=images, runtime=runtime, facts=facts)
    for note in made.notes:
        say(note)


def _metrics_of(file: Path, inputs: Inputs, settings: Config) -> dict[str, float]:
    opened = open_exported(file, settings, settings.bench.runtime)
    return evaluate_exported(opened, settings, inputs.splits.val, progress=inputs.progress)


def _result(
    output: Path,
    settings: Config,
    plan: QuantizationPlan | None,
    census: Census,
    measured: tuple[str, Mapping[str, Mapping[str, float]]],
    record: PrecisionRecord | None,
) -> Quantized:
    files, (primary, metrics) = _files(output), measured
    left = [layer for layer in census.layers if not layer.is_integer]
    known = {**({} if plan is None else plan.floats), **({} if record is None else record.floats)}
    return Quantized(
        output,
        files,
        settings.bench.runtime,
        primary,
        metrics,
        census.integer_count,
        {layer.name: known.get(layer.name, layer.reason) for layer in left},
        {kind: file.stat().st_size for kind, file in files.items()},
        None if record is None else record.latency,
    )


def _files(output: Path) -> Mapping[str, Path]:
    """Return the ONNX files beside a checkpoint, of the float and of the quantized network."""
    return {
        "float": output.with_name(f"{output.stem}_float.onnx"),
        "int8": output.with_suffix(".onnx"),
    }


def _calibrated(
    dense: nn.Module,
    settings: Config,
    data: Data,
    progress: Progress,
    floats: Mapping[str, str] = MappingProxyType({}),
) -> nn.Module:
    wanted = settings.quantize
    images = calibration_images(settings, data)
    progress.note(f"calibrating on {counted(len(images), 'training image')}, without labels")
    names = {field.name for field in fields(QuantConfig)} - {"floats"}
    shared = {name: getattr(wanted, name) for name in names}
    return to_integers(dense, images, QuantConfig(**shared, floats=floats))


def _trained(model: nn.Module, settings: Config, inputs: Inputs, folder: Path) -> nn.Module:
    """Return the best network of a training with fake quantization."""
    wanted = settings.quantize
    training = wanted.training(fine_tuning(settings))
    held = round(training.steps * (1 - wanted.hold_share)) if wanted.hold_share else 0
    # Learned steps would not stay powers of two.
    method = "fixed" if wanted.exact else wanted.learned
    student = trainable(model, LearnedSteps(method, held))
    fitted = train_model(
        student.train(),
        settings,
        training,
        inputs.splits,
        folder,
        resume=inputs.resume,
        progress=inputs.progress,
    )
    saved = fitted.best_path or fitted.final_path
    return settled((student if saved is None else load_model(saved, settings)[0]).eval())


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Quantized:
    output = inputs.options.path_in(workspace.folder)
    model, found = load_model(output, settings)
    files = _files(output)
    before = _metrics_of(files["float"], inputs, settings)  # No checkpoint has these.
    census = take_census(files["int8"], runtime=settings.bench.runtime)
    primary = task_of(model, found.labels, settings).primary
    measured = (primary, {"float": before, "int8": found.metrics})
    record = read_record(record_path(output)) if settings.quantize.chooses else None
    return _result(output, settings, plan_of(model), census, measured, record)


QUANTIZE = Stage(
    name="quantize",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS, "augment", "finetune", "quantize", "bench.runtime"),
    harmless=(
        *LOADING,
        *(f"finetune.{key}" for key in sorted(HARMLESS)),
        *(f"quantize.train.{key}" for key in sorted(HARMLESS)),
    ),
    files=("data.ground_truth",),
    splits=("train", "val"),
    needs=("train.weights", "train.description"),
    makes=lambda _: (QUANTIZED,),
    options=QuantizeOptions(),
    folder="quantized",
)
