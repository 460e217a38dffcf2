"""`predict`: boxes with labels and scores, drawn and listed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.cli.console import say, show, show_json
from flyweight.cli.deploy import Source
from flyweight.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from flyweight.data.batch import BoxPrediction

    Detector = Callable[[Tensor, Path], BoxPrediction]

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def predict(
    source: Source, given: Sequence[Path], output_dir: Path, *, threshold: float, as_json: bool
) -> None:
    """Find objects on every picture, draw them, and list them."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--draw-threshold must lie in 0..1. Received {threshold}. Try 0.5.")
    targets = targets_of(pictures_of(given), output_dir)
    _, weights = source.find()

    from flyweight.data.pictures import read_picture
    from flyweight.tasks.boxes import listed_boxes
    from flyweight.tasks.draw import draw_file

    onnx = weights.suffix == ".onnx"
    detector, labels = _onnx_detector(weights) if onnx else _checkpoint_detector(source)
    found: dict[str, Any] = {}
    for path, target in targets.items():
        prediction = detector(read_picture(path), path)
        if not found:
            say(f"weights: {weights}")
        draw_file(path, prediction, labels, target, threshold=threshold)
        items = listed_boxes(prediction, labels, threshold=threshold)
        found[str(path)] = items
        if not as_json:
            show(f"{path}: {counted(len(items), 'object')} -> {target}")
            for item in items:
                box = ", ".join(f"{value:.0f}" for value in item["box"])
                show(f"  {item['label']}  {item['score']:.2f}  [{box}]")
    if as_json:
        show_json(found)


def pictures_of(given: Sequence[Path]) -> list[Path]:
    """Return the pictures among files and folders, in order, each once.

    Raises:
        DataError: There is none, or a path does not exist.
    """
    pictures: list[Path] = []
    for path in given:
        if not path.exists():
            raise DataError(f"A picture must exist. Received '{path}'. Check the path.")
        if not path.is_dir():
            pictures.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
        if not inside:
            raise DataError(
                f"A folder of pictures must hold some. Received '{path}' without any. "
                f"Known endings: {', '.join(sorted(ENDINGS))}."
            )
        pictures += inside
    if not pictures:
        raise DataError(
            "Prediction must be given pictures. Received none. Name files or a folder: "
            f"{', '.join(sorted(ENDINGS))}."
        )
    return list(dict.fromkeys(pictures))


def targets_of(pictures: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return where each picture is drawn: `folder/NAME.png`, numbered where names are the same.

    Raises:
        ConfigError: That would replace one of the pictures.
    """
    targets: dict[Path, Path] = {}
    originals = {path.resolve() for path in pictures}
    seen: dict[str, int] = {}
    for path in pictures:
        count = seen[path.stem] = seen.get(path.stem, 0) + 1
        target = folder / f"{path.stem}{f'_{count}' if count > 1 else ''}.png"
        if target.resolve() in originals:
            raise ConfigError(
                f"What is drawn must not replace a picture. Received '{target}' for both. "
                "Give another --output-dir."
            )
        targets[path] = target
    return targets


def _checkpoint_detector(source: Source) -> "tuple[Detector, tuple[str, ...]]":
    import torch

    from flyweight.recipe.predict import one_picture_batch

    _, _, loaded = source.open()

    def detect(picture: "Tensor", name: Path) -> "BoxPrediction":
        batch = one_picture_batch(picture, loaded.preprocessing, name)
        with torch.inference_mode():
            predictions = loaded.task.decode(loaded.task.forward(loaded.model, batch), batch)
        prediction: BoxPrediction = predictions[0]
        return prediction

    return detect, loaded.task.labels


def _onnx_detector(path: Path) -> "tuple[Detector, tuple[str, ...]]":
    from flyweight.data.pictures import prepare
    from flyweight.exporting.runtime import OnnxModel
    from flyweight.recipe.predict import place_detections

    model = OnnxModel(path)
    preprocessing = model.card.preprocessing
    if model.card.outputs != "detections" or preprocessing is None:
        raise ConfigError(
            f"Prediction must have a model that ends in detections. Received '{path}', which ends "
            f"in '{model.card.outputs}'. Export it with: --end detections"
        )

    def detect(picture: "Tensor", name: Path) -> "BoxPrediction":
        outputs = model.run(prepare(picture, preprocessing)[None])
        return place_detections(outputs, preprocessing, picture)

    return detect, model.card.labels
