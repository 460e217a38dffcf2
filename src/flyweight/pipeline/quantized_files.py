"""Files of a quantized network: all of them, or none, and only in place of the same network's."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flyweight.checkpoint import read
from flyweight.errors import CheckpointError, ExportError, FileError
from flyweight.exporting.model_card import read_metadata, sidecar_path
from flyweight.files import DRAFT
from flyweight.pipeline.precision_record import record_path
from flyweight.pipeline.stages.export import WEIGHTS

FLOAT = "float"
"""Role of the network that was quantized, among the parents of a checkpoint."""


@dataclass(frozen=True)
class QuantizedFiles:
    """The files of one quantized network.

    Attributes:
        checkpoint: A `.safetensors` file; the others have its name with other ends.
    """

    checkpoint: Path

    @property
    def networks(self) -> Mapping[str, Path]:
        """The ONNX files, of the float and of the quantized network."""
        return {
            "float": self.checkpoint.with_name(f"{self.checkpoint.stem}_float.onnx"),
            "int8": self.checkpoint.with_suffix(".onnx"),
        }

    @property
    def record(self) -> Path:
        """What was measured, as JSON."""
        return self.checkpoint.with_suffix(".json")

    @property
    def precisions(self) -> Path:
        """How precisions were chosen, as JSON; only where they were."""
        return record_path(self.checkpoint)

    def require_own(self, digests: Collection[str], source: Path) -> None:
        """Check that no file is there, or that the files are those of the same float network.

        Args:
            digests: Of the weights to quantize: of the file's, and of the network's.
            source: Where these are, for the message.

        Raises:
            FileError: There are files of another network, or of an unknown one.
        """
        taken = [path for path in self._all if path.exists()]
        if not taken:
            return
        recorded = self._recorded(taken[0])
        if recorded in digests:
            return
        state = (
            f"made of other weights (digest {recorded[:12]})" if recorded else "of unknown origin"
        )
        raise FileError(
            "A quantized network must not replace that of another checkpoint. Received "
            f"'{source}' for '{taken[0]}', which is {state}. Give another --output, or add "
            "--overwrite"
        )

    @property
    def _all(self) -> tuple[Path, ...]:
        return (self.checkpoint, *self.networks.values(), self.record)

    def _recorded(self, path: Path) -> str:
        """Return the digest of what a file says that it was made of; empty where it does not."""
        try:
            if path.suffix == ".onnx":
                return read_metadata(path).extra.get(WEIGHTS, "")
            parents = read(path).origin.parents
        except (CheckpointError, ExportError, FileError):
            return ""
        return next((one.digest for one in parents if one.role == FLOAT), "")

    @contextmanager
    def written(self) -> Iterator["QuantizedFiles"]:
        """Yield files of the same names in a hidden folder, which take their places at the end.

        A block that raises leaves nothing behind, and what was there before stays. What a killed
        process has left is removed. Nobody else may write the same files meanwhile.
        """
        hidden = self.checkpoint.with_name(f".{self.checkpoint.stem}{DRAFT}")
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        try:
            drafts = QuantizedFiles(hidden / self.checkpoint.name)
            yield drafts
            networks = zip(drafts.networks.values(), self.networks.values(), strict=True)
            pairs = [*networks, (drafts.record, self.record)]
            pairs += [(sidecar_path(one), sidecar_path(two)) for one, two in pairs[:2]]
            if drafts.precisions.exists():
                pairs.append((drafts.precisions, self.precisions))
            else:
                self.precisions.unlink(missing_ok=True)
            # The checkpoint last: it says that the others are whole.
            for draft, final in (*pairs, (drafts.checkpoint, self.checkpoint)):
                draft.replace(final)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
