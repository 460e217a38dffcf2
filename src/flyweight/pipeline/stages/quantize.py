"""Quantization stage: calibrate, train where that is wanted, export, and measure both files."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.checkpoint import Checkpoint, read
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import touched
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS
from flyweight.digests import digest_of_weights
from flyweight.engine.state import remove_states, state_path
from flyweight.errors import CheckpointError, FileError, counted
from flyweight.exporting.integer_gate import require_integer
from flyweight.exporting.model_card import precision_facts
from flyweight.folder_lock import FolderLock
from flyweight.graph.example_inputs import Example
from flyweight.measuring.census import Census, take_census
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.belonging import require_same_labels, require_same_training
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.exported_evaluation import evaluate_exported, open_exported
from flyweight.pipeline.inputs import (
    Data,
    Loaded,
    Saver,
    load_model,
    open_data,
    saved_preprocessing,
    task_of,
    with_overrides,
)
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import example_input
from flyweight.pipeline.networks import kind_of, require_training_sides
from flyweight.pipeline.precision_choice import Choice, Subject, choose
from flyweight.pipeline.precision_record import PrecisionRecord, read_record
from flyweight.pipeline.quantization_steps import (
    Calibrated,
    CalibrationImages,
    calibrated,
    losses_of_layers,
    quant_config,
)
from flyweight.pipeline.quantized_files import FLOAT, QuantizedFiles
from flyweight.pipeline.results import Quantized, Trained, checkpoint_digests
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stage import (
    INPUT,
    LOADING,
    NETWORK,
    TASKS,
    Inputs,
    Stage,
    by_hand,
    complete,
    fine_tuning,
    made_from,
)
from flyweight.pipeline.stages.export import WEIGHTS, export_model, images_to_compare
from flyweight.pipeline.stages.train import note_left_out, train_model
from flyweight.progress import Progress, progress_of
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.placement import layer_names
from flyweight.quantization.quantization_plan import LearnedSteps
from flyweight.quantization.quantize import quantize as to_integers
from flyweight.quantization.rewriting import rewritten
from flyweight.quantization.sites import record_sites
from flyweight.quantization.skipping import skipped
from flyweight.report.quantization_results import (
    RECORD_NAME,
    QuantizationResult,
    QuantizationStep,
    QuantizedLayer,
    finite,
    read_quantization,
)
from flyweight.workspace import LOCK, MadeFrom, Workspace

QUANTIZED = "quantized.safetensors"
"""The checkpoint in a run folder, where no other name is given."""
TRAINING = "quantization_training"
"""Folder, within that of the run, of checkpoints and logs of the training."""
CALIBRATION = "calibration"
"""Folder, within that of the run, of the state of a calibration while it runs."""
_COLOURS = ("mean", "std", "value_range", "channels")
"""What of the preprocessing changes the values of an image."""


@dataclass(frozen=True)
class QuantizeOptions:
    """What the caller of the quantization stage chooses besides the config.

    Attributes:
        output: The checkpoint to write; the ONNX files go beside it. Empty for `QUANTIZED` in the
            run folder.
    """

    output: str = ""

    def files_in(self, folder: Path) -> QuantizedFiles:
        """Return the files to write, where `folder` is that of the run."""
        return QuantizedFiles(Path(self.output) if self.output else folder / QUANTIZED)


def quantize(
    source: ModelSource,
    config: Config,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> Quantized:
    """Quantize a trained network, dense or pruned.

    The result is a checkpoint and two ONNX files, of the float and of the quantized network, whose
    metrics are measured on the validation split as the runtime executes them. All of them appear at
    the end; where something is refused, none does. An interrupted calibration continues.

    Args:
        source: The float checkpoint and its config.
        config: That config; its section `quantize` says how.
        options: What to write.
        resume: Resume an interrupted training.
        overwrite: Replace the quantized network of another checkpoint.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The data, the checkpoint or a setting is unusable, a pattern to skip matches
            no layer, another run works in the folder, or the files are those of another checkpoint.
    """
    (name, path), reports = source.find(), progress_of(progress)
    folder = Path(config.save_dir) / name
    files = options.files_in(folder)
    _require_other_file(files.checkpoint, path)
    if config.quantize.mode == "aware":
        require_training_sides(config)
    model, config = _opened(source, config, reports.note)
    if not overwrite:
        digests = (digest_of_checkpoint(path), digest_of_weights(model.state_dict()))
        files.require_own(digests, path)
    workspace = QUANTIZE.workspace(folder, in_chain=False)
    lock = files.checkpoint.with_name(f".{files.checkpoint.name}{LOCK}")
    with workspace.locked(), FolderLock(lock):
        data = open_data(config, save_dir=folder)
        found = read(path)
        require_same_labels(found.labels, data.labels, path)
        note_left_out(data, reports)
        inputs = Inputs(name, data, options=options, resume=resume, progress=reports)
        inputs = replace(inputs, results={"train": Trained(path, found.metrics, 0.0)})
        _require_own_training(config, inputs, workspace)
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
    reports = progress_of(progress)
    model, config = _opened(source, config, reports.note)
    data, wanted = open_data(config), config.quantize
    images = CalibrationImages(config, data, wanted.images)
    reports.note(f"calibrating on {counted(len(images), 'training image')}, without labels")
    model = rewritten(model) if wanted.rewrite else model
    chosen = quant_config(wanted, config.bench.runtime)
    small = to_integers(model, images, chosen, say=reports.note)
    losses = losses_of_layers(model, small, chosen, images, images)
    return dict(sorted(losses.items(), key=lambda pair: -pair[1]))


def _opened(
    source: ModelSource, config: Config, say: Callable[[str], None]
) -> tuple[nn.Module, Config]:
    """Return the float network, and the config with the preprocessing of its checkpoint."""
    _, path = source.find()
    model, found = load_model(path, config)
    if found.preprocessing:
        saved = saved_preprocessing(found, path)
        config = with_overrides(config, saved, touched(source.overrides))
        _note_other_colours(saved, config.preprocessing, path, say)
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


def _require_own_training(config: Config, inputs: Inputs, workspace: Workspace) -> None:
    """Refuse to resume the training of another checkpoint, or with other settings."""
    training = _training_in(workspace)
    wants = inputs.resume and config.quantize.mode == "aware"
    if not wants or not state_path(training.folder).is_file():
        return
    earlier = {"train": checkpoint_digests(inputs.results["train"])}
    wanted = made_from(QUANTIZE, complete(config), inputs, workspace.folder, earlier)
    values = _of_training(wanted.values, config)
    require_same_training(training, replace(wanted, values=values), inputs.progress.note)


def _training_in(workspace: Workspace) -> Workspace:
    """Return the folder of the training, which has a note of its own.

    That of the stage is replaced by every attempt, the training state only by another training.
    """
    return Workspace(workspace.folder / TRAINING)


def _of_training(values: Mapping[str, Any], settings: Config) -> dict[str, Any]:
    """Return those of the things that the stage is made from on which its training depends."""
    measured = () if settings.quantize.chooses else ("bench.runtime",)
    return {key: value for key, value in values.items() if key not in ("option output", *measured)}


def _require_float(model: nn.Module, path: Path) -> None:
    if plan_of(model) is not None:
        raise CheckpointError(
            f"A network to quantize must be a float one. Received '{path}', which is quantized. "
            "Give the checkpoint that it was made from."
        )


def _note_other_colours(
    saved: Preprocessing, used: Preprocessing, path: Path, say: Callable[[str], None]
) -> None:
    """Say where the values of the images are others than the network was trained on."""
    other = [name for name in _COLOURS if getattr(saved, name) != getattr(used, name)]
    if other:
        was, now = (
            ", ".join(f"{name} {getattr(one, name)}" for name in other) for one in (saved, used)
        )
        say(
            f"note: images are calibrated with {now}, where '{path}' was trained with {was}. If "
            "that is not intended, leave the -o preprocessing out"
        )


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Quantized:
    path: Path = inputs.results["train"].checkpoint
    dense, found = load_model(path, settings)
    inputs.progress.note(f"weights: {path}")
    made, precisions = _quantized(dense, inputs, settings, workspace)
    files = inputs.options.files_in(workspace.folder)
    facts = {WEIGHTS: digest_of_checkpoint(path)}
    stated = facts if precisions is None else facts | precision_facts(precisions.latency.inference)
    with files.written() as drafts:
        for kind, model, extra in (("float", dense, facts), ("int8", made.model, stated)):
            inputs.progress.note(f"exporting {files.networks[kind]}")
            _export(model, found, inputs, settings, drafts.networks[kind], extra)
        census = take_census(drafts.networks["int8"], runtime=settings.bench.runtime)
        plan = plan_of(made.model)
        if plan is not None:  # Else float was faster.
            require_integer(census, plan)
        metrics = {
            kind: _metrics_of(file, inputs, settings) for kind, file in drafts.networks.items()
        }
        note_parent(made.model, Parent(FLOAT, digest_of_weights(dense.state_dict())))
        data = inputs.splits
        saver = Saver(settings, data.labels, kind_of(settings), measured_on=data.val.name)
        saver(made.model, metrics["int8"], drafts.checkpoint)
        sizes = {kind: file.stat().st_size for kind, file in drafts.networks.items()}
        floats = {} if precisions is None else precisions.floats
        record = _record(made, floats, census, sizes, metrics, (inputs, settings))
        drafts.record.write_text(record.to_json(), encoding="utf-8")
        if precisions is not None:
            precisions.save(drafts.precisions)
    return _result(files, record, precisions)


def _export(
    model: nn.Module,
    found: Checkpoint,
    inputs: Inputs,
    settings: Config,
    file: Path,
    facts: Mapping[str, str],
) -> None:
    data, runtime = inputs.splits, settings.bench.runtime
    task = task_of(model, data.labels, settings)
    loaded = Loaded(model.eval(), task, settings.preprocessing, replace(found, metric_records={}))
    images = images_to_compare(data.val, settings.preprocessing)
    made = export_model(loaded, file, name=file.stem, images=images, runtime=runtime, facts=facts)
    for note in made.notes:
        inputs.progress.note(note)


def _metrics_of(file: Path, inputs: Inputs, settings: Config) -> dict[str, float]:
    opened = open_exported(file, settings, settings.bench.runtime)
    return evaluate_exported(opened, settings, inputs.splits.val, progress=inputs.progress)


def _record(
    made: Calibrated,
    chosen: Mapping[str, str],
    census: Census,
    sizes: Mapping[str, int],
    metrics: Mapping[str, Mapping[str, float]],
    given: tuple[Inputs, Config],
) -> QuantizationResult:
    """Return what was measured, for the result and for a report."""
    (inputs, settings), plan = given, plan_of(made.model)
    images, reasons = inputs.splits.val, {**({} if plan is None else plan.floats), **chosen}
    layers = tuple(
        QuantizedLayer(
            name=layer.name,
            precision=layer.precision,
            reason="" if layer.is_integer else reasons.get(layer.name, layer.reason),
            loss=finite(made.losses.get(layer.name)),
        )
        for layer in census.layers
    )
    pairs = {
        name: {kind: found[name] for kind, found in metrics.items()}
        for name in metrics["int8"]
        if all(finite(found.get(name)) is not None for found in metrics.values())
    }
    return QuantizationResult(
        metric=task_of(made.model, inputs.splits.labels, settings).primary,
        measured_on=f"{counted(len(images), 'image')} of {images.name}",
        runtime=settings.bench.runtime,
        metrics=pairs,
        steps=made.steps,
        layers=layers,
        file_bytes=dict(sizes),
    )


def _result(
    files: QuantizedFiles, found: QuantizationResult, precisions: PrecisionRecord | None
) -> Quantized:
    kinds = tuple(files.networks)
    return Quantized(
        checkpoint=files.checkpoint,
        files=files.networks,
        runtime=found.runtime,
        primary=found.metric,
        metrics={k: {name: pair[k] for name, pair in found.metrics.items()} for k in kinds},
        integer_layers=found.integer_count,
        float_layers={one.name: one.reason for one in found.layers if one.precision != "int8"},
        file_bytes={kind: int(size) for kind, size in found.file_bytes.items()},
        steps=found.steps,
        latency=None if precisions is None else precisions.latency,
    )


def _quantized(
    dense: nn.Module, inputs: Inputs, settings: Config, workspace: Workspace
) -> tuple[Calibrated, PrecisionRecord | None]:
    """Return the quantized network, and the record of its precisions where they were chosen.

    The network is trained where that is wanted, and the float one where no choice is faster.
    """
    data, say, wanted = inputs.splits, inputs.progress, settings.quantize
    primary = task_of(dense, data.labels, settings).primary

    def evaluate(model: nn.Module) -> float:
        return evaluate_model(model, settings, data.val, progress=say)[primary]

    start = rewritten(dense) if wanted.rewrite else dense
    record, floats = None, {}
    if wanted.chooses:
        choice = _choice(dense, start, settings, data, say)
        record, plan = choice.record, None if choice.model is None else plan_of(choice.model)
        if plan is None:
            return Calibrated(dense, (), {}), record
        floats = {name: why for name, why in record.floats.items() if plan.floats.get(name) == why}
    made = calibrated(
        start, settings, data, evaluate, workspace.folder / CALIBRATION, say, floats=floats
    )
    if wanted.mode == "aware":
        made = _with_training(made, inputs, settings, workspace, evaluate)
    return made, record


def _choice(
    dense: nn.Module, start: nn.Module, settings: Config, data: Data, progress: Progress
) -> Choice:
    wanted, runtime = settings.quantize, settings.bench.runtime
    images = torch.cat(list(CalibrationImages(settings, data, wanted.images)))

    def with_floats(floats: Mapping[str, str]) -> nn.Module:
        return to_integers(start, images, quant_config(wanted, runtime, floats), say=progress.note)

    subject = Subject(dense, start, with_floats, images, settings.preprocessing, runtime)
    with tempfile.TemporaryDirectory() as folder:
        return choose(subject, wanted.budget, Path(folder), progress)


def _with_training(
    made: Calibrated,
    inputs: Inputs,
    settings: Config,
    workspace: Workspace,
    evaluate: Callable[[nn.Module], float],
) -> Calibrated:
    training, note = _training_in(workspace), workspace.read()
    if not (inputs.resume and state_path(training.folder).is_file()):
        remove_states(training.folder)  # The note must never be that of an older state.
        recorded = {} if note is None else note.made_from or {}
        training.begin(MadeFrom(_of_training(recorded, settings)))
    trained = _trained(made.model, settings, inputs, training.folder)
    before = made.steps[-1].after if made.steps else None
    after = finite(evaluate(trained))
    if before is None or after is None:
        return replace(made, model=trained)
    step = QuantizationStep(name="training", before=before, after=after)
    return replace(made, model=trained, steps=(*made.steps, step))


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
    files = inputs.options.files_in(workspace.folder)
    found = read_quantization(files.record)
    if found is None:
        raise FileError(f"'{files.record}' must exist. Received: none. Quantize again.")
    chosen = settings.quantize.chooses
    return _result(files, found, read_record(files.precisions) if chosen else None)


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
    makes=lambda _: (QUANTIZED, RECORD_NAME),
    options=QuantizeOptions(),
    folder="quantized",
)
