"""`flyweight predict`: what a model finds on images, drawn and listed."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import say, show, show_json
from flyweight.cli.image_paths import images_of, targets_of
from flyweight.cli.options import Json, OutputDir, Overrides, Runtime, Weights
from flyweight.errors import ConfigError, counted
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

Images = Annotated[list[Path] | None, typer.Argument(help="Images or folders of images.")]
ConfigOfWeights = Annotated[
    str,
    typer.Option(
        "-c",
        "--config",
        help="Config whose run folder has the checkpoint; optional.",
        metavar="CONFIG",
    ),
]
InferImg = Annotated[
    Path | None,
    typer.Option("--infer-img", "--infer_img", help="One more image.", metavar="FILE"),
]
InferDir = Annotated[
    Path | None,
    typer.Option("--infer-dir", "--infer_dir", help="One more folder of images.", metavar="FOLDER"),
]
Threshold = Annotated[
    float,
    typer.Option(
        "--draw-threshold",
        "--draw_threshold",
        help="Lowest score that is drawn and listed, between 0 and 1.",
        metavar="SCORE",
    ),
]


def command(
    images: Images = None,
    config: ConfigOfWeights = "",
    opt: Overrides = None,
    weights: Weights = "",
    infer_img: InferImg = None,
    infer_dir: InferDir = None,
    output_dir: OutputDir = Path("output"),
    threshold: Threshold = 0.5,
    runtime: Runtime = DEFAULT_RUNTIME,
    json: Json = False,
) -> None:
    """Draw and list predictions on images.

    The model is a checkpoint or an exported .onnx file. The file of a detector must end in
    detections.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--draw-threshold must lie in 0..1. Received {threshold}. Try 0.5.")
    require_installed(runtime)
    given = [*(images or []), *(path for path in (infer_img, infer_dir) if path is not None)]
    source = pipeline.ModelSource(config, tuple(opt or ()), weights)
    predict(source, given, output_dir, threshold=threshold, as_json=json, runtime=runtime)


def predict(
    source: "pipeline.ModelSource",
    images: Sequence[Path],
    output_dir: Path,
    *,
    threshold: float,
    as_json: bool,
    runtime: str = DEFAULT_RUNTIME,
) -> None:
    """Draw and list predictions of a model.

    Args:
        source: Names the checkpoint or the exported file.
        images: Files and folders of images.
        output_dir: Gets the drawn images.
        threshold: Lowest score that is drawn and listed, 0 to 1.
        as_json: Print JSON instead of lines.
        runtime: Runs an exported file.

    Raises:
        FlyweightError: The model or an image cannot be read, or they do not fit.
    """
    targets = targets_of(images_of(images), output_dir)
    _, path = source.find()
    onnx = path.suffix == ".onnx"
    predictor = (
        heavy.predictor_of_onnx(path, runtime)
        if onnx
        else heavy.predictor_of_checkpoint(source.open()[2])
    )
    found: dict[str, Any] = {}
    for image, target in targets.items():
        prediction = predictor.predict(heavy.read_pixels(image))
        if not found:
            say(f"weights: {path}")
        draw = partial(predictor.draw, prediction=prediction, threshold=threshold)
        heavy.draw_file(image, target, draw)
        found[str(image)] = predictor.listed(prediction, threshold=threshold)
        if not as_json:
            _show_found(image, target, found[str(image)])
    if as_json:
        show_json(found)


def _show_found(image: Path, target: Path, rows: Sequence[dict[str, Any]]) -> None:
    boxes = not rows or "box" in rows[0]
    count = counted(len(rows), "object") if boxes else _class_count(len(rows))
    show(f"{image}: {count} -> {target}")
    for row in rows:
        show(f"  {heavy.prediction_text(row)}")


def _class_count(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"
