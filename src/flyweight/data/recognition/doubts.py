"""Doubts about the layout of a split that a reader has read without an error.

A reader that is given files of another layout may find nothing in them to object to: lines of any
text can be names of images, and images without boxes are allowed.
"""

from typing import Any

from flyweight.data.layouts.listing import SUFFIXES
from flyweight.data.recognition.other_layouts import is_of_layout
from flyweight.data.records import BoxSet, ClassSet, ImageSet, MapRecord
from flyweight.untrusted.file_bytes import is_file


def is_doubtful(images: ImageSet) -> bool:
    """Return whether a split may have been read by the reader of another layout.

    That is a split in which no image exists, no image has a box, or the name of a class is that of
    a folder of images, labels or a split. Such a split may still be of its layout, and incomplete.
    """
    if not any(_exists(record) for record in images.records):
        return True
    if isinstance(images, BoxSet):
        return not any(len(record.boxes) for record in images.records)
    by_folder = (
        isinstance(images, ClassSet) and images.source is not None and images.source.is_dir()
    )
    return by_folder and any(map(is_of_layout, images.labels))


def _exists(record: Any) -> bool:
    """Return whether the files of a record are there, and images by their names."""
    paths = [record.path, record.map_path] if isinstance(record, MapRecord) else [record.path]
    return all(
        path is not None and path.suffix.lower() in SUFFIXES and is_file(path) for path in paths
    )
