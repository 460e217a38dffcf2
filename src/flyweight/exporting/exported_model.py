"""Exported model: a file with its description, run on a runtime."""

import os
from pathlib import Path

import torch
from torch import Tensor

from flyweight.errors import ConfigError, ExportError, FileError
from flyweight.exporting.model_card import PRECISION, ModelCard, from_properties
from flyweight.runtimes.protocol import FLOAT32, OpenModel, OpenSettings, TensorInfo
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed, runtime_by_name


class ExportedModel:
    """A network that flyweight exported, on a runtime.

    Args:
        path: The file.
        threads: Threads of one inference.
        runtime: Name of the runtime, see `flyweight.runtimes.runtime_table`.
        precision: Precision of float operations; empty for the one that the description names, if
            the runtime supports it on this machine, or else float32.

    Attributes:
        path: The file.
        card: The description in the file: preprocessing, labels, task.

    Raises:
        ConfigError: There is no such runtime, it is not installed, or it does not support the
            precision on this machine.
        FileError: There is no such file.
        ExportError: The runtime cannot load the file, or flyweight did not export it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 1,
        runtime: str = DEFAULT_RUNTIME,
        precision: str = "",
    ) -> None:
        self.path = Path(path)
        self._model = _open(self.path, OpenSettings(threads, precision or FLOAT32), runtime)
        self.card: ModelCard = from_properties(self._model.properties, path=self.path)
        named = self.card.extra.get(PRECISION, FLOAT32)
        if not precision and named != FLOAT32 and named in runtime_by_name(runtime).precisions():
            self._model = _open(self.path, OpenSettings(threads, named), runtime)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the graph."""
        return tuple(item.name for item in self._model.outputs)

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name.

        Args:
            images: Prepared by `card.preprocessing`, `(n, 3, height, width)`.

        Raises:
            ExportError: The file requires another shape.
        """
        wanted = self._model.inputs[0]
        self._check_shape(images, wanted)
        found = self._model.run({wanted.name: images.detach().cpu().float().numpy()})
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def _check_shape(self, images: Tensor, wanted: TensorInfo) -> None:
        fits = len(wanted.shape) == images.ndim and all(
            not isinstance(size, int) or size == given
            for size, given in zip(wanted.shape, images.shape, strict=True)
        )
        if not fits:
            raise ExportError(
                f"'{self.path}' must be given '{wanted.name}' of shape {list(wanted.shape)}. "
                f"Received: {list(images.shape)}. Prepare the image as its description says."
            )


def _open(path: Path, settings: OpenSettings, runtime: str) -> OpenModel:
    title = require_installed(runtime).title
    if not path.is_file():
        raise FileError(
            f"'{path}' must be an ONNX file. Received: nothing of that name. Correct the path."
        )
    try:
        return runtime_by_name(runtime).open(path, settings)
    except ConfigError:
        raise
    except Exception as error:  # exceptions of runtimes have no common base
        reason = " ".join(str(error).split())
        raise ExportError(
            f"'{path}' must be an ONNX file that {title} can load. Received: {reason}. "
            "Export it again."
        ) from error
