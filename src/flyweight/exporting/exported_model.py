"""Running an exported file from its own description."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import ExportError, FileError
from flyweight.runtimes.model_card import ModelCard, from_properties
from flyweight.runtimes.onnxruntime_session import open_session


class OnnxModel:
    """An exported network on ONNX Runtime.

    Attributes:
        path: The file.
        card: What travelled with it: preprocessing, labels, task.

    Raises:
        FileError: There is no such file.
        ExportError: It is no ONNX file of flyweight's, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.path = Path(path)
        self._session = _open(self.path, threads)
        properties = self._session.get_modelmeta().custom_metadata_map
        self.card: ModelCard = from_properties(properties, path=self.path)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return tuple(item.name for item in self._session.get_outputs())

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name.

        Args:
            images: Prepared as `card.preprocessing` says, `(n, 3, height, width)`.

        Raises:
            ExportError: The shape does not fit the file.
        """
        wanted = self._session.get_inputs()[0]
        self._check_shape(images, wanted)
        answers = self._session.run(None, {wanted.name: images.detach().cpu().float().numpy()})
        return {
            name: torch.from_numpy(answer)
            for name, answer in zip(self.output_names, answers, strict=True)
        }

    def _check_shape(self, images: Tensor, wanted: Any) -> None:
        fits = len(wanted.shape) == images.ndim and all(
            not isinstance(size, int) or size == given
            for size, given in zip(wanted.shape, images.shape, strict=True)
        )
        if not fits:
            raise ExportError(
                f"'{self.path}' must be given '{wanted.name}' of shape {list(wanted.shape)}. "
                f"Received: {list(images.shape)}. Prepare the image as its description says."
            )


def _open(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise FileError(
            f"'{path}' must be an ONNX file. Received: nothing of that name. Correct the path."
        )
    try:
        return open_session(path, threads=threads)
    except ImportError as error:
        raise ExportError(
            f"ONNX Runtime must be installed to run '{path}'. Received: {error}. "
            "Install it with: pip install onnxruntime"
        ) from error
    except Exception as error:  # its exceptions have no common base
        reason = " ".join(str(error).split())
        raise ExportError(
            f"'{path}' must be an ONNX file that ONNX Runtime can load. Received: {reason}. "
            "Export it again."
        ) from error
