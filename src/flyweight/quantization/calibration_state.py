"""State of a calibration on disk, from which one that was killed continues.

Every pass over the images has one file, whose name is a digest of what the pass depends on. It is
replaced whole, so that a kill leaves the last state or the one before.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flyweight.digests import digest_of_tensors
from flyweight.files import replacing
from flyweight.graph.example_inputs import Example

_SUFFIX = ".calibration"
_SECONDS = 10.0
_KEY_LENGTH = 16


@dataclass(frozen=True)
class PassState:
    """What a pass has counted so far.

    Attributes:
        done: Number of batches.
        images: Digest of these batches.
        values: The counts, by name.
    """

    done: int
    images: str
    values: Mapping[str, Tensor]


class CalibrationState:
    """The files of a calibration.

    Args:
        folder: Gets the files; they are small, 16 KiB for each quantized tensor.
        seconds: At least so much time lies between two states that are written.
    """

    def __init__(self, folder: Path, seconds: float = _SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self._last = time.monotonic()

    def saved(self, key: str) -> PassState | None:
        """Return the state of the pass with a digest; None where there is none that can be read."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["state"])
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return PassState(int(facts["done"]), str(facts["images"]), values)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def save(self, key: str, state: PassState) -> None:
        """Write the state of a pass.

        Raises:
            FileError: The folder cannot be written.
        """
        facts = json.dumps({"done": state.done, "images": state.images})
        with replacing(self._path(key)) as draft:
            save_file(dict(state.values), draft, {"state": facts})
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last state is old enough for another one."""
        return time.monotonic() - self._last >= self.seconds

    def clear(self) -> None:
        """Remove the files of all passes, and the folder if nothing else is in it."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:_KEY_LENGTH]}{_SUFFIX}"


def digest_after(digest: str, batch: Example) -> str:
    """Return the digest of batches and one more, where `digest` is that of the former."""
    own = digest_of_tensors(tensor for _, tensor in batch.tensors())
    return hashlib.sha256(f"{digest}{own}".encode()).hexdigest()


def digest_of_batches(batches: Iterable[Example]) -> str:
    """Return the digest of batches."""
    digest = ""
    for batch in batches:
        digest = digest_after(digest, batch)
    return digest
