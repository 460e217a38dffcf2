"""Writer of detection sets in the VOC layout."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

from flyweight.data.layouts.image_files import Transfer, place_images, size_of
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.errors import DataError
from flyweight.files import write_text
from flyweight.untrusted.file_bytes import read_text


def write_voc(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    image_files: Transfer = "copy",
) -> Path:
    """Write images, annotations, the list of the split and the class names.

    Several splits can go into one folder. VOC has no crowds, so they are written as difficult
    objects.

    Args:
        box_set: The set.
        folder: Target folder, which is created if needed.
        split: Name of the list; None means the last part of the name of the set.
        image_files: How image files get into the folder; see `place_images`.

    Returns:
        The list that names the images, the last file written.

    Raises:
        DataError: The folder holds a set with other classes, or an image is missing.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    part = split if split is not None else box_set.name.rpartition("/")[2]
    write_labels(box_set.labels, root / "label_list.txt")
    placed = place_images(box_set, root / "JPEGImages", part, image_files, by_stem=True)
    for index, (path, record) in enumerate(zip(placed, box_set.records, strict=True)):
        text = _annotation(path.name, size_of(box_set, index), record, box_set.labels)
        write_text(root / "Annotations" / f"{path.stem}.xml", text, durable=False)
    listing = root / "ImageSets" / "Main" / f"{part}.txt"
    write_text(listing, "".join(f"{path.stem}\n" for path in placed))
    return listing


def write_labels(labels: tuple[str, ...], path: Path) -> None:
    """Write class names, one per line.

    Raises:
        DataError: The file exists and names other classes.
        FileError: It cannot be written.
    """
    text = "".join(f"{label}\n" for label in labels)
    if path.is_file() and _text_of(path) != text:
        raise DataError(
            f"Splits in one folder must have the same classes. Received others than '{path}' has. "
            "Choose another folder."
        )
    write_text(path, text)


def _text_of(path: Path) -> str | None:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError):
        return None


def _annotation(
    filename: str, size: tuple[int, int], record: BoxRecord, labels: tuple[str, ...]
) -> str:
    height, width = size
    lines = [
        "<annotation>",
        f"  <folder>JPEGImages</folder><filename>{escape(filename)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    ignored = record.difficult | record.crowd
    for box, label, difficult in zip(record.boxes, record.labels, ignored, strict=True):
        corners = "".join(
            f"<{corner}>{float(value):.9g}</{corner}>"
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        name = escape(labels[int(label)])
        lines.append(
            f"  <object><name>{name}</name><difficult>{int(difficult)}</difficult>"
            f"<bndbox>{corners}</bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>", ""])
