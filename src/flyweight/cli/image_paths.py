"""Paths of images on the command line: the files among the arguments, and where each is drawn."""

from collections.abc import Sequence
from pathlib import Path

from flyweight.errors import ConfigError, DataError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def images_of(given: Sequence[Path]) -> list[Path]:
    """Return the images among files and folders, in order, each once.

    Raises:
        DataError: There is no image, or a path does not exist.
    """
    images: list[Path] = []
    for path in given:
        if not path.exists():
            raise DataError(f"An image must exist. Received '{path}'. Check the path.")
        if not path.is_dir():
            images.append(path)
            continue
        found = (p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
        inside = sorted(p for p in found if not p.name.startswith("."))
        if not inside:
            raise DataError(
                f"A folder of images must hold some. Received '{path}' without any. "
                f"Known endings: {', '.join(sorted(ENDINGS))}."
            )
        images += inside
    if not images:
        raise DataError(
            "Prediction must be given images. Received none. Name files or a folder: "
            f"{', '.join(sorted(ENDINGS))}."
        )
    return list(dict.fromkeys(images))


def targets_of(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return where each image is drawn: `folder/NAME.png`, numbered where names are the same.

    Raises:
        ConfigError: A drawing would replace one of the images.
    """
    targets: dict[Path, Path] = {}
    originals = {path.resolve() for path in images}
    seen: dict[str, int] = {}
    for path in images:
        count = seen[path.stem] = seen.get(path.stem, 0) + 1
        target = folder / f"{path.stem}{f'_{count}' if count > 1 else ''}.png"
        if target.resolve() in originals:
            raise ConfigError(
                f"A drawing must not replace an image. Received '{target}' for both. "
                "Give another --output-dir."
            )
        targets[path] = target
    return targets
