"""`predict`: what a model says of images, drawn and listed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flyweight.cli.console import say, show, show_json
from flyweight.cli.deploy import Source
from flyweight.errors import ConfigError, DataError, counted

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def predict(
    source: Source, given: Sequence[Path], output_dir: Path, *, threshold: float, as_json: bool
) -> None:
    """Find what there is on every image, draw it, and list it."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--draw-threshold must lie in 0..1. Received {threshold}. Try 0.5.")
    targets = targets_of(images_of(given), output_dir)
    _, weights = source.find()

    from flyweight.data.images import read_image
    from flyweight.pipeline.prediction import from_checkpoint, from_onnx, in_words

    onnx = weights.suffix == ".onnx"
    predictor = from_onnx(weights) if onnx else from_checkpoint(source.open()[2])
    found: dict[str, Any] = {}
    for path, target in targets.items():
        prediction = predictor.predict(read_image(path), path)
        if not found:
            say(f"weights: {weights}")
        predictor.draw(path, prediction, target, threshold=threshold)
        rows = predictor.listed(prediction, threshold=threshold)
        found[str(path)] = rows
        if not as_json:
            things = "class" if rows and "box" not in rows[0] else "object"
            show(f"{path}: {_number_of(len(rows), things)} -> {target}")
            for row in rows:
                show(f"  {in_words(row)}")
    if as_json:
        show_json(found)


def _number_of(count: int, thing: str) -> str:
    return f"{count} classes" if thing == "class" and count != 1 else counted(count, thing)


def images_of(given: Sequence[Path]) -> list[Path]:
    """Return the images among files and folders, in order, each once.

    Raises:
        DataError: There is none, or a path does not exist.
    """
    pictures: list[Path] = []
    for path in given:
        if not path.exists():
            raise DataError(f"An image must exist. Received '{path}'. Check the path.")
        if not path.is_dir():
            pictures.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
        if not inside:
            raise DataError(
                f"A folder of images must hold some. Received '{path}' without any. "
                f"Known endings: {', '.join(sorted(ENDINGS))}."
            )
        pictures += inside
    if not pictures:
        raise DataError(
            "Prediction must be given images. Received none. Name files or a folder: "
            f"{', '.join(sorted(ENDINGS))}."
        )
    return list(dict.fromkeys(pictures))


def targets_of(pictures: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return where each image is drawn: `folder/NAME.png`, numbered where names are the same.

    Raises:
        ConfigError: That would replace one of the images.
    """
    targets: dict[Path, Path] = {}
    originals = {path.resolve() for path in pictures}
    seen: dict[str, int] = {}
    for path in pictures:
        count = seen[path.stem] = seen.get(path.stem, 0) + 1
        target = folder / f"{path.stem}{f'_{count}' if count > 1 else ''}.png"
        if target.resolve() in originals:
            raise ConfigError(
                f"What is drawn must not replace an image. Received '{target}' for both. "
                "Give another --output-dir."
            )
        targets[path] = target
    return targets
