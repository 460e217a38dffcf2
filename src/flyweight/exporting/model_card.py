"""Model card: the description of an exported network, in its file and in a readable file beside it.

The readable file (the sidecar) has the keys of PaddleDetection's `infer_cfg.yml` (mode, arch,
draw_threshold, Preprocess, label_list), so that its users find the same facts in the same place.
"""

import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import ExportError, FileError
from flyweight.on_demand import load
from flyweight.runtimes.protocol import FLOAT32
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes
from flyweight.untrusted.json_values import parse_json

FORMAT = 1
PRECISION = "inference_precision"
"""Key, among the further facts, of the precision of float operations that the file is best run in;
without it, float32."""
_KEY = "flyweight."
_LOAD_ONNX = "onnx:load_from_string"
_MOST_BYTES = 2**31  # Protobuf reads no larger message; weights beyond it lie beside the file.


class ModelCard(BaseModel):
    """Description that is needed to use an exported network.

    Attributes:
        name: Readable name of the model.
        architecture: Name of the network.
        task: Name of the task, such as "detect".
        labels: Class names in the order of their indices.
        preprocessing: From an image to the input; None where the model does not take images.
        draw_threshold: Lowest score of predictions that are drawn.
        outputs: The outputs of the graph: raw maps, decoded boxes and scores, or detections after
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


def precision_facts(precision: str) -> dict[str, str]:
    """Return the further facts of a file whose float operations are best run in a precision."""
    return {} if precision == FLOAT32 else {PRECISION: precision}


def to_properties(card: ModelCard) -> dict[str, str]:
    """Return the card as an ONNX file's `metadata_props`, each value JSON."""
    values = card.model_dump(mode="json")
    properties = {_KEY + name: json.dumps(value) for name, value in values.items()}
    return {_KEY + "format": json.dumps(FORMAT), **properties}


def from_properties(properties: Mapping[str, str], *, path: Path) -> ModelCard:
    """Return the card that `to_properties` wrote.

    Raises:
        ExportError: The properties contain no card, or one of another format.
    """
    found = {
        name.removeprefix(_KEY): text for name, text in properties.items() if name.startswith(_KEY)
    }
    if not found:
        raise ExportError(
            f"'{path}' must carry flyweight's description. Received: a file without it. "
            "Export the model with flyweight."
        )
    remedy = "Export the model again."
    with refusing(ExportError, "The description must be readable.", f"'{path}'", remedy):
        values = {name: parse_json(text) for name, text in found.items()}
        written = values.pop("format", None)
        if written != FORMAT:
            raise ExportError(
                f"The description in '{path}' must have format {FORMAT}. Received: {written}. "
                "Export the model again with this version."
            )
        return ModelCard.model_validate(values)


def read_metadata(path: str | os.PathLike[str]) -> ModelCard:
    """Return the card in an exported ONNX file, without opening it on a runtime.

    Raises:
        FileError: There is no such file.
        ExportError: It is no ONNX file, or contains no card.
    """
    source = Path(path)
    must = f"'{source}' must be a readable ONNX file."
    with refusing(FileError, must, "", "Correct the path."):
        data = read_bytes(source, _MOST_BYTES)
    must, remedy = f"'{source}' must be an ONNX file.", "Export it again."
    with refusing(ExportError, must, "other or damaged content", remedy):
        model = load(_LOAD_ONNX)(data)
        properties = {str(item.key): str(item.value) for item in model.metadata_props}
    return from_properties(properties, path=source)


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of the readable description of an exported file."""
    return Path(path).with_suffix(".yaml")


def to_sidecar(card: ModelCard, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    """Return the readable description: the keys of PaddleDetection first, then ours.

    Args:
        card: The description.
        inputs: Input name to shape; a string means a free size.
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
    # PaddleDetection normalises before it reorders, so its values are always in the order of RGB.
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
