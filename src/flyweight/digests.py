"""Digests of what results depend on: JSON values, files, weights, batches and data sets.

A digest is of contents, never of places: equal data in another folder has the same digest, and so
have equal weights in another file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from flyweight.data.records import BoxRecord, ClassRecord, ImageSet, MapSet
from flyweight.errors import FileError
from flyweight.file_digests import FileDigests, digest_file
from flyweight.progress import SILENT, Progress

Hash = Any
"""An object of `hashlib`."""


def digest_of_value(value: Any) -> str:
    """Return a digest of a JSON value; the order of keys does not count.

    Example:
        >>> digest_of_value({"a": 1, "b": 2}) == digest_of_value({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return a digest of a file's contents.

    Raises:
        FileError: The file cannot be read.
    """
    try:
        return digest_file(path)
    except OSError as error:
        raise FileError(
            f"'{path}' must be readable. Received: {error.strerror or error}. Correct the path."
        ) from error


def digest_of_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a digest of types, shapes and values, in order.

    Scans record it: version 0.1.0 computed the same digest of the same tensors.
    """
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(str((plain.dtype, tuple(plain.shape))).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_of_batch(batch: Any) -> str:
    """Return a digest of a batch's images; of an unknown batch, of all its tensors."""
    images = getattr(batch, "images", batch)
    return digest_of_tensors(leaf for leaf in tree_leaves(images) if isinstance(leaf, Tensor))


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a digest of names, types, shapes and values; the order of names does not count."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(json.dumps([name, digest_of_tensors([weights[name]])]).encode())
    return digest.hexdigest()


def digest_of_images(
    images: ImageSet, *, cache: FileDigests | None = None, progress: Progress = SILENT
) -> str:
    """Return a digest of one split: its classes, annotations and the contents of its images.

    Names and places of files do not count, the order of images does. Images that are made when
    they are requested are digested by the parameters of what makes them.

    Args:
        images: The split.
        cache: Knows the digests of files that have not changed since an earlier run; by default
            the user's cache.
        progress: Receives the number of files whose digest is known.

    Raises:
        FileError: A file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(images.labels).encode())
    if isinstance(images, MapSet):
        digest.update(json.dumps(sorted((images.values or {}).items())).encode())
    for record in images.records:
        _add_annotation(digest, record)
    for maker in (images.image, getattr(images, "label_map", None)):
        _add_maker(digest, maker, len(images))
    paths = [path for record in images.records for path in _files_of(record)]
    for found in (cache or FileDigests()).of(paths, progress):
        digest.update(found.encode())
    return digest.hexdigest()


def _files_of(record: Any) -> list[Path]:
    paths = (record.path, getattr(record, "map_path", None))
    return [path for path in paths if path is not None]


def _add_annotation(digest: Hash, record: Any) -> None:
    """Add the annotation of an image; a label map is digested as a file."""
    if isinstance(record, BoxRecord):
        for rows in (record.boxes, record.labels, record.difficult, record.crowd):
            _add_array(digest, rows)
        for outline in record.outlines or ():
            parts = [outline] if isinstance(outline, dict) else [part.tolist() for part in outline]
            digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    elif isinstance(record, ClassRecord):
        digest.update(f"class {record.label}".encode())


def _add_array(digest: Hash, array: Any) -> None:
    rows = np.ascontiguousarray(array)
    digest.update(json.dumps([rows.dtype.str, rows.shape]).encode())
    digest.update(rows.tobytes())


def _add_maker(digest: Hash, maker: Any, count: int) -> None:
    """Add the parameters of what makes images; a maker without visible parameters is asked."""
    if maker is None:
        return
    if not dataclasses.is_dataclass(maker):
        for index in range(count):
            _add_array(digest, maker(index))
        return
    digest.update(type(maker).__name__.encode())
    for field in dataclasses.fields(maker):
        value = getattr(maker, field.name)
        digest.update(field.name.encode())
        if isinstance(value, np.ndarray):
            _add_array(digest, value)
        elif dataclasses.is_dataclass(value):
            _add_maker(digest, value, count)
        else:
            digest.update(json.dumps(value, default=str).encode())
