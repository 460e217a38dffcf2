"""What travels with an exported network: inside the ONNX file and in a readable file beside it.

The sidecar keeps the keys of PaddleDetection's `infer_cfg.yml` (mode, arch, draw_threshold,
Preprocess, label_list), so that people who deployed with it recognise theirs.
"""

import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import ExportError, FileError

FORMAT = 1
_KEY = "flyweight."


class ModelCard(BaseModel):
    """What one must know to use an exported network.

    Attributes:
        name: Name of the model, for people.
        architecture: Name of the network.
        task: What it is for, such as "detect".
        labels: Class names in the order of their indices.
        preprocessing: From an image to the input; None where the model does not take images.
        draw_threshold: Score from which predictions are worth drawing.
        outputs: What the graph ends in: raw maps, decoded boxes and scores, or detections after
            non-maximum suppression (boxes, scores, labels; padding has label -1).
        extra: Further facts, such as measured accuracy.
        flyweight_version: Version that wrote the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: str = ""
    task: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    draw_threshold: float = Field(default=0.5, ge=0, le=1)
    outputs: Literal["raw", "decoded", "detections"] = "raw"
    extra: Mapping[str, str] = Field(default_factory=dict)
    flyweight_version: str = Field(default_factory=lambda: _version())


def to_properties(card: ModelCard) -> dict[str, str]:
    """Return the card as an ONNX file's `metadata_props`, each value JSON."""
    values = card.model_dump(mode="json")
    properties = {_KEY + name: json.dumps(value) for name, value in values.items()}
    return {_KEY + "format": json.dumps(FORMAT), **properties}


def from_properties(properties: Mapping[str, str], *, path: Path) -> ModelCard:
    """Read what `to_properties` wrote.

    Raises:
        ExportError: The file does not carry a card, or one of another format.
    """
    found = {
        name.removeprefix(_KEY): text for name, text in properties.items() if name.startswith(_KEY)
    }
    if not found:
        raise ExportError(
            f"'{path}' must carry flyweight's description. Received: an ONNX file without it. "
            "Export the model with flyweight."
        )
    try:
        values = {name: json.loads(text) for name, text in found.items()}
        written = values.pop("format", None)
        if written != FORMAT:
            raise ExportError(
                f"The description in '{path}' must have format {FORMAT}. Received: {written}. "
                "Export the model again with this version."
            )
        return ModelCard.model_validate(values)
    except (json.JSONDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"The description in '{path}' must be readable. Received: {reason}. "
            "Export the model again."
        ) from error


def read_metadata(path: str | os.PathLike[str]) -> ModelCard:
    """Return the card inside an exported ONNX file, without loading its weights into a runtime.

    Raises:
        FileError: There is no such file.
        ExportError: It is no ONNX file, or carries no card.
    """
    import onnx
    from google.protobuf.message import DecodeError

    source = Path(path)
    try:
        model = onnx.load(str(source), load_external_data=False)
    except OSError as error:
        raise FileError(
            f"'{source}' must be a readable ONNX file. Received: {error.strerror or error}. "
            "Correct the path."
        ) from error
    except DecodeError as error:
        raise ExportError(
            f"'{source}' must be an ONNX file. Received: other or damaged content. Export it again."
        ) from error
    return from_properties({item.key: item.value for item in model.metadata_props}, path=source)


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """Return where the readable description of an exported file lies."""
    return Path(path).with_suffix(".yaml")


def to_sidecar(card: ModelCard, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    """Return the readable description: the originals' keys first, then ours.

    Args:
        card: The description.
        inputs: Input name to shape; a string stands for a size that is free.
        outputs: Output name to shape.
    """
    values = {
        "mode": "onnx",
        "arch": card.architecture,
        "draw_threshold": card.draw_threshold,
        "Preprocess": _preprocess_list(card.preprocessing),
        "label_list": list(card.labels),
        "name": card.name,
        "task": card.task,
        "outputs_are": card.outputs,
        "inputs": {name: list(shape) for name, shape in inputs.items()},
        "outputs": {name: list(shape) for name, shape in outputs.items()},
        **({"extra": dict(card.extra)} if card.extra else {}),
        "flyweight_version": card.flyweight_version,
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _preprocess_list(preprocessing: Preprocessing | None) -> list[dict[str, Any]]:
    if preprocessing is None:
        return []
    # The originals normalise before they reorder, so theirs are always in the order of RGB.
    order = -1 if preprocessing.channels == "bgr" else 1
    crop = {"crop_share": preprocessing.crop_share} if preprocessing.fit == "crop" else {}
    return [
        {
            "type": "Resize",
            "target_size": [preprocessing.height, preprocessing.width],
            "keep_ratio": preprocessing.fit != "stretch",
            "fit": preprocessing.fit,
            **crop,
            "interp": preprocessing.interpolation,
            "antialias": preprocessing.antialias,
        },
        {
            "type": "Normalize",
            "is_scale": preprocessing.value_range == 1,
            "mean": list(preprocessing.mean[::order]),
            "std": list(preprocessing.std[::order]),
        },
        {"type": "Permute", "to_bgr": order < 0, "channel_first": True},
    ]


def _version() -> str:
    try:
        return metadata.version("flyweight")
    except metadata.PackageNotFoundError:
        return "unknown"
