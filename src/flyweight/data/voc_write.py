"""Writing a detection set to disk in the VOC layout."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

from torchvision.transforms.v2.functional import to_pil_image

from flyweight.data.pictures import picture_of
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.errors import DataError
from flyweight.files import replacing, write_text


def write_voc(box_set: BoxSet, folder: str | os.PathLike[str], *, split: str | None = None) -> Path:
    """Write pictures (PNG, without loss), annotations, the list of the split and the class names.

    Several splits can go into one folder; the name of the split begins their file names.

    Args:
        box_set: What to write.
        folder: Made where it does not exist.
        split: Name of the list; None takes the last part of the set's name.

    Returns:
        The list that names the pictures, the last file written.

    Raises:
        DataError: The folder holds a set with other classes.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    part = split if split is not None else box_set.name.rpartition("/")[2]
    _write_labels(box_set.labels, root / "label_list.txt")
    names = [f"{part}_{index:05d}" for index in range(len(box_set))]
    for index, (name, record) in enumerate(zip(names, box_set.records, strict=True)):
        picture = picture_of(box_set, index)
        with replacing(root / "JPEGImages" / f"{name}.png") as draft:
            to_pil_image(picture).save(draft)
        height, width = picture.shape[-2:]
        text = _annotation(f"{name}.png", (height, width), record, box_set.labels)
        write_text(root / "Annotations" / f"{name}.xml", text)
    listing = root / "ImageSets" / "Main" / f"{part}.txt"
    write_text(listing, "".join(f"{name}\n" for name in names))
    return listing


def _write_labels(labels: tuple[str, ...], path: Path) -> None:
    text = "".join(f"{label}\n" for label in labels)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise DataError(
            f"Splits in one folder must have the same classes. Received others than '{path}' has. "
            "Choose another folder."
        )
    write_text(path, text)


def _annotation(
    filename: str, size: tuple[int, int], record: BoxRecord, labels: tuple[str, ...]
) -> str:
    height, width = size
    lines = [
        "<annotation>",
        f"  <folder>JPEGImages</folder><filename>{escape(filename)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for box, label, difficult in zip(record.boxes, record.labels, record.difficult, strict=True):
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
