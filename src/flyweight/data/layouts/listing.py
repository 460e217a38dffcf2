"""Lists in text files, one entry per line, and folders of images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flyweight.errors import DataError, nearest
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import MOST_ANNOTATION_BYTES, read_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")
"""Endings of image files, in lower case. Among files of one name, the earliest ending is used."""
LABEL_FILES = ("labels.txt", "label_list.txt")
"""Files with the class names of a set, one per line in the order of their indices."""


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, without white space at their ends.

    Raises:
        DataError: The file is not readable UTF-8.
    """
    must = f"'{path}' must be readable UTF-8 text."
    with refusing(DataError, must, "a file", "Save it as UTF-8."):
        text = read_text(path, MOST_ANNOTATION_BYTES)
    return [line.strip() for line in text.splitlines()]


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names in `path`, one per line.

    Raises:
        DataError: The file is empty, or names a class twice.
    """
    names = tuple(line for line in lines_of(path) if line)
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"'{path}' must name every class once, one per line. Received {len(names)} lines with "
            f"{len(set(names))} different names. Correct it."
        )
    return names


def labels_in(root: Path) -> tuple[str, ...]:
    """Return the class names that the set in `root` lists.

    Raises:
        DataError: There is no such list, or it is invalid.
    """
    for name in LABEL_FILES:
        if (root / name).is_file():
            return read_labels(root / name)
    raise DataError(
        f"A set must name its classes. Received '{root}' without {' or '.join(LABEL_FILES)}. "
        "Write one class name per line there, or give `labels`."
    )


def find_list(root: Path, name: str) -> Path | None:
    """Return the list file for `name`, relative to `root`, or None if there is none."""
    candidates = (root / name, root / f"{name}.txt", root / f"{name}_list.txt")
    return next((path for path in candidates if path.is_file()), None)


def require_list(root: Path, name: str) -> Path:
    """Return the list file for `name`, relative to `root`.

    Raises:
        DataError: There is no such file. The error message names the nearest name.
    """
    found = find_list(root, name)
    if found is None:
        known = [path.name for path in root.glob("*.txt") if path.name not in LABEL_FILES]
        hint = nearest(name, known) if known else "There are no lists in this folder."
        raise DataError(
            f"A split must be a list file relative to '{root}'. Received '{name}'. {hint}"
        )
    return found


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the images in `folder` and its subfolders by name, without hidden ones.

    Raises:
        DataError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"'{folder}' must be a readable folder. Received: {error.strerror or error}. "
            "Correct the path."
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from images_below(folder / entry.name)
        elif entry.name.lower().endswith(SUFFIXES):
            yield folder / entry.name


def folders_in(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in `folder`, sorted, without hidden ones."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def require_folder(path: Path, what: str) -> None:
    """Check that `path` is a folder.

    Args:
        path: The given path.
        what: Subject of the error message, such as "A Cityscapes set".

    Raises:
        DataError: The path is not a folder.
    """
    if not path.is_dir():
        raise DataError(f"{what} must be a folder. Received '{path}', which is none. Check `root`.")


def index_of(labels: Sequence[str]) -> dict[str, int]:
    """Return the index of every label."""
    return {name: index for index, name in enumerate(labels)}
