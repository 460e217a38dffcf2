"""`predict`: boxes with labels and scores, drawn and listed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flyweight.cli.console import say, show, show_json
from flyweight.cli.deploy import Source
from flyweight.data.batch import BoxPrediction
from flyweight.errors import ConfigError, DataError

__all__ = ["Source", "predict"]

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
Detector = Callable[[Tensor, Path], BoxPrediction]


def predict(
    source: Source, given: Sequence[Path], output_dir: Path, *, threshold: float, as_json: bool
) -> None:
    """Find objects on every picture, draw them, and list them."""
    from flyweight.data.loading import read_picture
    from flyweight.tasks.draw import draw_file

    if not 0 <= threshold <= 1:
        raise ConfigError(f"--draw-threshold must lie in 0..1. Received {threshold}. Try 0.5.")
    pictures = pictures_of(given)
    detector, labels = _detector(source)
    found: dict[str, Any] = {}
    for path in pictures:
        prediction = detector(read_picture(path), path)
        target = output_dir / f"{path.stem}.png"
        draw_file(path, prediction, labels, target, threshold=threshold)
        strong = prediction.scores >= threshold
        found[str(path)] = _listed(prediction, labels, threshold)
        if not as_json:
            show(f"{path}: {int(strong.sum())} objects -> {target}")
            for item in found[str(path)]:
                box = ", ".join(f"{value:.0f}" for value in item["box"])
                show(f"  {item['label']}  {item['score']:.2f}  [{box}]")
    if as_json:
        show_json(found)


def pictures_of(given: Sequence[Path]) -> list[Path]:
    """Return the pictures among files and folders, in order.

    Raises:
        DataError: There is none, or a path does not exist.
    """
    pictures: list[Path] = []
    for path in given:
        if not path.exists():
            raise DataError(f"A picture must exist. Received '{path}'. Check the path.")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        pictures += [p for p in inside if p.suffix.lower() in ENDINGS or p == path]
    if not pictures:
        raise DataError(
            "Prediction must be given pictures. Received none. Name files or a folder: "
            f"{', '.join(sorted(ENDINGS))}."
        )
    return pictures


def _listed(
    prediction: BoxPrediction, labels: Sequence[str], threshold: float
) -> list[dict[str, Any]]:
    rows = zip(
        prediction.boxes.tolist(),
        prediction.scores.tolist(),
        prediction.labels.tolist(),
        strict=True,
    )
    return [
        {"label": labels[label], "score": round(score, 4), "box": [round(v, 1) for v in box]}
        for box, score, label in rows
        if score >= threshold
    ]


def _detector(source: Source) -> tuple[Detector, tuple[str, ...]]:
    _, path = source.find()
    say(f"weights: {path}")
    return _onnx_detector(path) if path.suffix == ".onnx" else _checkpoint_detector(path)


def _checkpoint_detector(path: Path) -> tuple[Detector, tuple[str, ...]]:
    import torch

    from flyweight.data.pictures import prepare
    from flyweight.recipe.predict import one_picture_batch
    from flyweight.recipe.session import open_checkpoint

    loaded = open_checkpoint(path)

    def detect(picture: Tensor, name: Path) -> BoxPrediction:
        batch = one_picture_batch(prepare(picture, loaded.preprocessing), picture, name)
        with torch.inference_mode():
            predictions = loaded.task.decode(loaded.model(batch.images), batch)
        prediction: BoxPrediction = predictions[0]
        return prediction

    return detect, loaded.task.labels


def _onnx_detector(path: Path) -> tuple[Detector, tuple[str, ...]]:
    from flyweight.data.pictures import prepare
    from flyweight.exporting.runtime import OnnxModel
    from flyweight.recipe.predict import place_detections

    model = OnnxModel(path)
    preprocessing = model.card.preprocessing
    if model.card.outputs != "detections" or preprocessing is None:
        raise ConfigError(
            f"Prediction must have a model that ends in detections. Received '{path}', which ends "
            "in "
            f"'{model.card.outputs}'. Export it with: --end detections"
        )

    def detect(picture: Tensor, name: Path) -> BoxPrediction:
        outputs = model.run(prepare(picture, preprocessing)[None])
        return place_detections(outputs, preprocessing, picture)

    return detect, model.card.labels
