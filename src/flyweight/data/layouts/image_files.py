"""Transfer of the images of a set into another folder."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from torchvision.transforms.v2.functional import to_pil_image

from flyweight.data.images import DECODER_ERRORS, image_of, image_size
from flyweight.data.records import ImageSet
from flyweight.errors import DataError, FileError
from flyweight.files import DRAFT, replacing
from flyweight.untrusted.file_bytes import is_file

Transfer = Literal["copy", "link", "png"]
"""How image files get into a folder: copied, linked, or decoded and written as PNG."""


def place_images(
    images: ImageSet,
    folder: str | os.PathLike[str],
    split: str,
    transfer: Transfer = "copy",
    *,
    by_stem: bool = False,
) -> tuple[Path, ...]:
    """Bring every image of a set into `folder` and return the new paths in the same order.

    Files keep their names. If a name is taken by another image, the name of the split is put before
    it. Generated images are written as PNG.

    Args:
        images: The set.
        folder: Target folder, which is created if needed.
        split: Name of the split, for file names.
        transfer: "copy" copies the bytes, "link" makes symbolic links, "png" decodes the images and
            writes them without loss.
        by_stem: Whether file names must differ without their endings, because annotations are named
            after them.

    Raises:
        DataError: An image is missing or does not decode.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    taken: set[str] = set()
    placed: list[Path] = []
    for index, record in enumerate(images.records):
        made = record.path is None or transfer == "png"
        name = f"{split}_{index:05d}.png" if record.path is None else record.path.name
        for candidate in _candidates(root, split, Path(name), png=made):
            key = candidate.stem if by_stem else candidate.name
            if key not in taken and (made or _free(candidate, record.path)):
                break
        taken.add(key)
        placed.append(candidate)
        if made:
            image = to_pil_image(image_of(images, index))
            _remove_link(candidate)
            with replacing(candidate, durable=False) as draft:
                image.save(draft, format="PNG")
        else:
            _bring(record.path, candidate, transfer)
    return tuple(placed)


def size_of(images: ImageSet, index: int) -> tuple[int, int]:
    """Return height and width of the upright image with index `index`; of a file by its header.

    Raises:
        DataError: Its file is missing or is no image.
    """
    path = images.records[index].path
    if path is None:
        height, width = image_of(images, index).shape[-2:]
        return int(height), int(width)
    try:
        return image_size(path)
    except DECODER_ERRORS as error:
        raise DataError(
            f"An image must be a readable file. Received '{path}': {error}. "
            "Restore it or take it out of the list."
        ) from error


def _candidates(folder: Path, split: str, name: Path, *, png: bool) -> Iterator[Path]:
    ending = ".png" if png else name.suffix
    yield folder / f"{name.stem}{ending}"
    yield folder / f"{split}_{name.stem}{ending}"
    number = 2
    while True:
        yield folder / f"{split}_{name.stem}_{number}{ending}"
        number += 1


def _free(target: Path, source: Path) -> bool:
    if not target.exists():
        return True
    try:
        return target.samefile(source) or filecmp.cmp(target, source, shallow=False)
    except OSError:
        return True  # The source is missing, which `_bring` reports.


def _remove_link(target: Path) -> None:
    """Remove a link of an earlier conversion: writing through it would change the original."""
    if target.is_symlink():
        target.unlink()


def _bring(source: Path, target: Path, transfer: Transfer) -> None:
    if not is_file(source):
        raise DataError(
            f"An image must be a readable file. Received '{source}', which is none. "
            "Restore it or take it out of the list."
        )
    copied_from_link = transfer == "copy" and target.is_symlink()
    if target.exists() and target.samefile(source) and not copied_from_link:
        return
    if transfer == "copy":
        _remove_link(target)
        with replacing(target, durable=False) as draft:
            shutil.copyfile(source, draft)
        return
    draft = target.with_name(f".{target.name}{DRAFT}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        draft.symlink_to(source.resolve())
        draft.replace(target)
    except OSError as error:
        raise FileError(
            f"'{target}' must be free for a link. Received: {error.strerror or error}. "
            "Choose another folder, or copy the images."
        ) from error
