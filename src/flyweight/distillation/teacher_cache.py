"""Outputs of a teacher on disk, so that it need not run on the same images again.

An input is known by the digest of its pixels, so whatever makes it (image, augmentation, seed,
size) is part of its name. A file holds the results for the images of one batch that were missing;
it appears whole or not at all. What is damaged or of another teacher is computed again.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flyweight.digests import digest_of_value, digest_of_weights
from flyweight.files import replacing

Named = dict[str, Tensor]
_IMAGES, _SUMS = "images", "checksums"
_HEADER = 256
"""Bytes that a file's header takes per tensor, at most."""


@dataclass(frozen=True)
class _Row:
    """Where the results for one image are: row of a file, and the checksum of its bytes."""

    path: Path
    place: int
    checksum: int


class OutputCache:
    """Results of teachers in a folder, up to a number of bytes.

    Args:
        folder: Gets a folder per teacher.
        limit: Bytes that all files may take together. What does not fit is computed each time.
        inputs: Number of different images that a run will ask for, for messages; None if unknown.
        repeats: Whether a run asks for the same images again, as without random augmentation.
    """

    def __init__(
        self, folder: Path, limit: int, *, inputs: int | None = None, repeats: bool = False
    ) -> None:
        self.folder, self.limit = folder, limit
        self.inputs, self.repeats = inputs, repeats
        self._rows: dict[str, dict[str, list[_Row]]] = {}
        self._used: int | None = None

    def results(self, teacher: str, images: Tensor, run: Callable[[Tensor], Named]) -> Named:
        """Return what a teacher makes of images, from the disk where it is known.

        Args:
            teacher: From `identity_of`.
            images: `(n, 3, h, w)`, as the teacher takes them.
            run: Computes the results for some of them, each with a row per image.
        """
        names = [digest_of_image(image) for image in images]
        known = self._known(teacher)
        found = {at: _read(known[name]) for at, name in enumerate(names) if name in known}
        kept = {at: rows for at, rows in found.items() if rows is not None}
        missing = [at for at in range(len(names)) if at not in kept]
        if missing:
            fresh = run(images[missing] if kept else images)
            self._write(teacher, [names[at] for at in missing], fresh)
            for row, at in enumerate(missing):
                kept[at] = {name: value[row] for name, value in fresh.items()}
            if len(missing) == len(names):
                return fresh
        device = images.device
        return {
            name: torch.stack([kept[at][name].to(device) for at in range(len(names))])
            for name in kept[0]
        }

    def plan(self, bytes_per_image: int) -> str:
        """Return a sentence on how much will be written, before anything is."""
        limit = f"at most {_size(self.limit)} in '{self.folder}'"
        each = f"outputs of the teacher are kept: {_size(bytes_per_image)} per image"
        if self.inputs is None:
            return f"{each}, {limit}"
        total = (
            f"{each}, {_size(bytes_per_image * self.inputs)} for {self.inputs:,} inputs, {limit}"
        )
        if self.repeats:
            return total
        return f"{total}; random augmentation repeats them only in another run of the same seed"

    def _known(self, teacher: str) -> dict[str, list[_Row]]:
        """Return where each image is; in several files, where one was damaged."""
        if teacher not in self._rows:
            found: dict[str, list[_Row]] = {}
            for path in sorted((self.folder / teacher).glob("*.safetensors")):
                for name, row in _rows_of(path).items():
                    found.setdefault(name, []).append(row)
            self._rows[teacher] = found
        return self._rows[teacher]

    def _write(self, teacher: str, names: Sequence[str], fresh: Named) -> None:
        values = {name: value.detach().cpu().contiguous() for name, value in fresh.items()}
        sums = [
            _checksum({name: value[row] for name, value in values.items()})
            for row in range(len(names))
        ]
        about = {_IMAGES: " ".join(names), _SUMS: " ".join(map(str, sums))}
        size = sum(value.nbytes for value in values.values()) + sum(map(len, about.values()))
        size += _HEADER * (1 + len(values))
        if self._used is None:
            self._used = sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))
        if self._used + size > self.limit:
            return
        path = self.folder / teacher / f"{digest_of_value(list(names))[-32:]}.safetensors"
        with replacing(path, durable=False) as draft:
            save_file(values, draft, metadata=about)
        self._used += path.stat().st_size
        for place, (name, checksum) in enumerate(zip(names, sums, strict=True)):
            self._rows[teacher].setdefault(name, []).append(_Row(path, place, checksum))


def identity_of(model: nn.Module, results: Sequence[str]) -> str:
    """Return a short name for what a teacher computes: its weights, its structure, its results.

    Args:
        model: The teacher.
        results: Names of what is kept of it.
    """
    described = [digest_of_weights(model.state_dict()), str(model), sorted(results)]
    return digest_of_value(described)[-32:]


def digest_of_image(image: Tensor) -> str:
    """Return the digest of the pixels of one image, `(3, h, w)`."""
    digest = blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=16)
    digest.update(_bytes(image))
    return digest.hexdigest()


def _rows_of(path: Path) -> Mapping[str, _Row]:
    """Return the images of a file; none of a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        names = about[_IMAGES].split()
        sums = [int(one) for one in about[_SUMS].split()]
        rows = zip(names, sums, strict=True)
        return {name: _Row(path, place, one) for place, (name, one) in enumerate(rows)}
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}


def _read(rows: Sequence[_Row]) -> Named | None:
    """Return the results for one image; None where every file is damaged or gone."""
    for row in rows:
        try:
            with safe_open(row.path, framework="pt") as file:
                found = {name: file.get_slice(name)[row.place] for name in sorted(file.keys())}
        except (OSError, SafetensorError, IndexError):
            continue
        if found and _checksum(found) == row.checksum:
            return found
    return None


def _checksum(rows: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(rows):
        total = zlib.crc32(_bytes(rows[name]), total)
    return total


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def _size(count: int) -> str:
    """Return a number of bytes with its unit.

    Example:
        >>> _size(1_250_000), _size(300)
        ('1.2 MB', '300 bytes')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
