"""Names of all files below a folder, read once and within limits."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from flyweight.data.layouts.listing import SUFFIXES, require_folder
from flyweight.errors import DataError

_DEEPEST, _MOST_FILES = 6, 1_000_000
_TEXT_BYTES = 65_536


@dataclass(frozen=True)
class Folder:
    """The files below a folder, as paths relative to it.

    Attributes:
        root: The folder.
        files: Every file that is not hidden, at most six folders deep, sorted.
    """

    root: Path
    files: tuple[PurePosixPath, ...] = field(repr=False)

    @cached_property
    def images(self) -> tuple[PurePosixPath, ...]:
        """The image files."""
        return tuple(path for path in self.files if path.suffix.lower() in SUFFIXES)

    @cached_property
    def image_folders(self) -> frozenset[str]:
        """The folders that hold images, and the folders above them; "." is the root."""
        return frozenset(str(parent) for path in self.images for parent in path.parents)

    @cached_property
    def folders(self) -> frozenset[str]:
        """The folders that hold files, and the folders above them; "." is the root."""
        return frozenset(str(parent) for path in self.files for parent in path.parents)

    @cached_property
    def names(self) -> frozenset[str]:
        """The relative paths of all files."""
        return frozenset(map(str, self.files))

    def ending(self, *suffixes: str) -> tuple[PurePosixPath, ...]:
        """Return the files with one of the suffixes, which are in lower case."""
        return tuple(path for path in self.files if path.suffix.lower() in suffixes)

    def start_of(self, path: PurePosixPath | str) -> str:
        """Return the first 64 KB of a file as text; empty if it is not readable as UTF-8."""
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(_TEXT_BYTES)
        except OSError:
            return ""
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # The limit may divide the last character.
            return data[: error.start].decode("utf-8-sig") if error.start > len(data) - 4 else ""

    def lines_of(self, path: PurePosixPath | str) -> list[str]:
        """Return the lines of the first 64 KB of a text that are not blank, without a torn last."""
        lines = self.start_of(path).splitlines()
        if lines and (self.root / path).stat().st_size > _TEXT_BYTES:
            lines = lines[:-1]
        return [line.strip() for line in lines if line.strip()]


def read_folder(root: str | os.PathLike[str]) -> Folder:
    """List a folder.

    Raises:
        DataError: The path is not a folder, cannot be listed, or has over a million files.
    """
    path = Path(root)
    require_folder(path, "A data set")
    files: list[PurePosixPath] = []
    for name in _below(path, "", 0, set()):
        files.append(PurePosixPath(name))
        if len(files) > _MOST_FILES:
            raise DataError(
                f"A data set must have at most {_MOST_FILES:,} files to be recognised. "
                f"Received more in '{path}'. Write a config by hand."
            )
    return Folder(path, tuple(sorted(files)))


def _below(root: Path, inside: str, depth: int, above: set[tuple[int, int]]) -> Iterator[str]:
    folder = root / inside
    try:
        status = folder.stat()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"'{folder}' must be a readable folder. Received: {error.strerror or error}. "
            "Correct its permissions."
        ) from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:  # A link to a folder above.
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        name = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_file():
            yield name
        elif entry.is_dir() and depth < _DEEPEST:
            yield from _below(root, name, depth + 1, {*above, identity})
