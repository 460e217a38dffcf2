"""Export stage: checkpoints as ONNX files that were compared with PyTorch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from flyweight.config.cut_options import CutOptions
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.pruning import PruneConfig
from flyweight.config.settings import Config
from flyweight.data.images import image_of, prepare
from flyweight.data.loading import open_set
from flyweight.data.records import ImageSet
from flyweight.digests import digest_of_file
from flyweight.errors import DataError, ExportError, FileError, counted
from flyweight.exporting.model_card import ModelCard, precision_facts, read_metadata
from flyweight.exporting.nms import Detections
from flyweight.exporting.onnx import ExportResult, OnnxConfig, to_onnx
from flyweight.folder_lock import FolderLock
from flyweight.pipeline.evaluation import cut_again
from flyweight.pipeline.inputs import Loaded, open_checkpoint
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import example_input
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.precision_record import read_record, record_path
from flyweight.pipeline.preflight import ends_of, require_end
from flyweight.pipeline.results import Exported, pruned_checkpoint
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stage import NETWORK, Inputs, Stage
from flyweight.progress import Progress, progress_of
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed
from flyweight.workspace import LOCK, Workspace

WEIGHTS = "weights"
"""Key of the weights' digest among the further facts in the description of an export."""
_COMPARED = 2
_NETWORKS = {"dense": "train", "pruned": "prune"}
"""The networks that a chain exports, and the stages whose results they are."""


def export(
    source: ModelSource,
    output_dir: Path,
    *,
    cut: CutOptions | None = None,
    end: str = "",
    runtime: str = DEFAULT_RUNTIME,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> ExportResult:
    """Write the model of `source` as `output_dir/NAME/model.onnx`.

    Args:
        source: The model. With a config, the file is compared with PyTorch on images of its data,
            too.
        output_dir: Gets a folder of the model's name.
        cut: Ratios to prune with first, as the original tools took them. A pruned checkpoint must
            have been pruned with these.
        end: One of `ends_of` the task; empty for the first of them.
        runtime: Name of the runtime that is compared with PyTorch.
        overwrite: Replace the export of another checkpoint.
        progress: Receives messages.

    Raises:
        ConfigError: The source or `end` is invalid.
        ExportError: The file is the export of another checkpoint.
        CheckpointError: The checkpoint is missing, damaged or of another network.
        ExportError: The exported network differs from PyTorch's.
    """
    require_end(end or "raw")
    require_installed(runtime)
    reports = progress_of(progress)
    name, path = source.find()
    target, digest = output_dir / name / "model.onnx", digest_of_checkpoint(path)
    if not overwrite:
        require_own_export(target, digest, path)
    name, path, loaded = source.open()
    config = source.named[1] if source.named else None
    if cut is not None and cut.given:
        wanted = cut.cut(PruneConfig() if config is None else config.prune)
        loaded = cut_again(loaded, wanted, config)
        if not loaded.checkpoint.plans:
            reports.note(f"note: {path} is not pruned; it was cut now")
    reports.note(f"exporting {path}")
    images = _images_of(config, loaded.preprocessing, reports)
    with FolderLock(target.with_name(f".{target.name}{LOCK}")):
        return export_model(
            loaded,
            target,
            end=end,
            name=name,
            images=images,
            runtime=runtime,
            facts={WEIGHTS: digest, **_precision_of(path)},
        )


def _precision_of(checkpoint: Path) -> Mapping[str, str]:
    """Return the precision that was found fastest for the float operations of a checkpoint."""
    record = record_path(checkpoint)
    return precision_facts(read_record(record).latency.inference) if record.is_file() else {}


def require_own_export(target: Path, digest: str, checkpoint: Path) -> None:
    """Check that a file to write is no export of another checkpoint.

    Args:
        target: The ONNX file.
        digest: Of the weights to export.
        checkpoint: Where they are, for the message.

    Raises:
        ExportError: It is one, or a file that does not say what it was made from.
    """
    if not target.exists():
        return
    try:
        recorded = read_metadata(target).extra.get(WEIGHTS, "")
    except (ExportError, FileError):
        recorded = ""
    if recorded == digest:
        return
    state = f"of other weights (digest {recorded[:12]})" if recorded else "of unknown weights"
    raise ExportError(
        f"An export must not replace the export of another checkpoint. Received '{checkpoint}' for "
        f"'{target}', which is {state}. Give another --output-dir, or add --overwrite"
    )


def _images_of(
    config: Config | None, preprocessing: Preprocessing, progress: Progress
) -> tuple[Tensor, ...]:
    """Return prepared images of the config's data, where there are any, and say so."""
    if config is None:
        progress.note("comparing on random inputs; -c CONFIG compares on images of its data, too")
        return ()
    try:
        images = open_set(config.data, "val")
        found = images_to_compare(images, preprocessing)
    except DataError as error:
        progress.note(f"comparing on random inputs, without images: {error}")
        return ()
    shown = f"{counted(len(found), 'image')} of {images.name}"
    progress.note(f"comparing on {shown} and on random inputs")
    return found


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Exported:
    files: dict[str, Path] = {}
    for network, stage in _NETWORKS.items():
        if stage not in inputs.results:
            continue
        made = inputs.results
        path = pruned_checkpoint(made) if stage == "prune" else made[stage].checkpoint
        loaded = open_checkpoint(path, settings)
        images = images_to_compare(inputs.splits.val, loaded.preprocessing)
        for end, file in _files_of(network, settings).items():
            target, title = workspace.folder / file, f"{inputs.name} {network}"
            export_model(
                loaded,
                target,
                end=end,
                name=title,
                images=images,
                runtime=settings.bench.runtime,
            )
        files[network] = workspace.folder / f"{network}.onnx"
    return Exported(files)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Exported:
    found = [network for network, stage in _NETWORKS.items() if stage in inputs.results]
    return Exported({network: workspace.folder / f"{network}.onnx" for network in found})


def _files_of(network: str, settings: Config) -> Mapping[str, str]:
    """Return the ends that a network is exported with, and the file of each."""
    useful = ends_of(kind_of(settings))[0]
    suffix = "nms" if useful == "detections" else useful
    return {"raw": f"{network}.onnx", useful: f"{network}_{suffix}.onnx"}


def _makes(settings: Config) -> Sequence[str]:
    return [file for network in _NETWORKS for file in _files_of(network, settings).values()]


def _digests(result: Exported) -> Mapping[str, str]:
    return {network: digest_of_file(path) for network, path in result.files.items()}


def images_to_compare(images: ImageSet, preprocessing: Preprocessing) -> tuple[Tensor, ...]:
    """Return the first images of a set, each prepared as `(3, height, width)`.

    Raises:
        DataError: One of them does not decode.
    """
    count = min(_COMPARED, len(images))
    return tuple(prepare(image_of(images, index), preprocessing) for index in range(count))


def export_model(
    loaded: Loaded,
    path: Path,
    *,
    end: str = "",
    name: str = "",
    images: Sequence[Tensor] = (),
    runtime: str = DEFAULT_RUNTIME,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> ExportResult:
    """Write a checkpoint's network as ONNX, checked against PyTorch.

    Args:
        loaded: From `open_checkpoint`.
        path: The `.onnx` file; the description goes beside it.
        end: One of `ends_of` the task; empty for the first of them.
        name: What the description calls the model.
        images: Prepared inputs, `(3, height, width)`, to compare on besides random ones: in
            random ones a trained detector finds nothing, so they say little of its detections.
        runtime: Name of the runtime that is compared with PyTorch.
        facts: Further facts for the description, such as the digest of the checkpoint's weights.

    Raises:
        ConfigError: `end` is none of these, or the runtime is not installed.
        ExportError: The exported network differs from PyTorch's.
    """
    end = end or ends_of(loaded.task.name)[0]
    require_end(end, ends_of(loaded.task.name))
    origin = loaded.checkpoint.origin
    card = ModelCard(
        name=name or origin.architecture,
        architecture=origin.architecture,
        task=loaded.task.name,
        labels=loaded.task.labels,
        preprocessing=loaded.preprocessing,
        outputs=end,  # type: ignore[arg-type]
        extra={
            **{key: f"{value:.6g}" for key, value in loaded.checkpoint.metrics.items()},
            **facts,
        },
    )
    return to_onnx(
        loaded.model,
        path,
        example=example_input(loaded.preprocessing),
        card=card,
        postprocess=_postprocess(loaded, end),
        compare_on=[(image[None],) for image in images],
        config=OnnxConfig(runtime=runtime),
    )


def _postprocess(loaded: Loaded, end: str) -> nn.Module | None:
    task = loaded.task
    decoder = None if end == "raw" else task.decoder()
    if end != "detections" or decoder is None:
        return decoder
    finisher = task.finisher()
    if finisher is not None:
        return finisher
    settings = task.suppression  # type: ignore[attr-defined]
    return Detections(
        decoder,
        score_threshold=settings.score_threshold,
        iou_threshold=settings.iou_threshold,
        top_k=settings.top_k,
        keep=settings.keep,
        pixel_offset=1.0 if settings.plus_one else 0.0,
    )


EXPORT = Stage(
    name="export",
    run=_run,
    read=_read,
    settings=NETWORK,
    harmless=("bench.runtime",),
    splits=("val",),
    needs=(
        *("train.weights", "train.description", "prune.weights", "prune.description"),
        *("distill.weights", "distill.description"),
    ),
    digests=_digests,
    makes=_makes,
    folder="export",
)
