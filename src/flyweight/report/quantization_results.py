"""Values of a report about a quantized network: what each step cost, and which layers are integer.

The file that `flyweight quantize` leaves beside its checkpoint holds the same values.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight.errors import FileError
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

FORMAT = 1
RECORD_NAME = "quantized.json"
"""The file in a run folder."""

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_Text = Annotated[str, Field(min_length=1)]
_Number = Annotated[float, Field(ge=-1e100, le=1e100)]
KINDS = ("float", "int8")
Pair = dict[str, _Number]
"""Of the float network, and of the quantized one: the keys are `KINDS`."""


class QuantizationStep(BaseModel):
    """One step of a quantization.

    Attributes:
        name: What was done: "calibration", "block reconstruction", "training".
        before: The metric before, from 0 to 1.
        after: The metric after.
    """

    model_config = _STRICT

    name: _Text
    before: _Number
    after: _Number


class QuantizedLayer(BaseModel):
    """One layer: an operation with a weight, or a product of matrices.

    Attributes:
        name: Of the operation.
        precision: As the runtime computes it: "int8", "float32".
        reason: Why it is not integer; empty where it is.
        loss: What its quantization alone costs: the squared error of the network's outputs, divided
            by their squared size; None where that was not measured.
    """

    model_config = _STRICT

    name: _Text
    precision: _Text
    reason: str = ""
    loss: Annotated[float, Field(ge=0, le=1e100)] | None = None


class QuantizationResult(BaseModel):
    """A quantized network.

    Attributes:
        metric: Name of the metric: "map_50".
        measured_on: Images that the metric was measured on.
        runtime: Name of the one that executed both files: "onnxruntime".
        metrics: Name of each metric to those of both files, as the runtime executes them.
        steps: In order, with metrics of PyTorch; without steps that were not measured.
        layers: In the order of the network.
        file_bytes: Of both files.
    """

    model_config = _STRICT

    metric: _Text
    measured_on: str = ""
    runtime: _Text
    metrics: dict[str, Pair]
    steps: tuple[QuantizationStep, ...] = ()
    layers: tuple[QuantizedLayer, ...]
    file_bytes: Pair

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        if any(set(pair) != set(KINDS) for pair in (*self.metrics.values(), self.file_bytes)):
            raise ValueError(f"pairs must have the keys {', '.join(KINDS)}")
        return self

    @property
    def integer_count(self) -> int:
        """Number of layers that the runtime computes with integers."""
        return sum(layer.precision == "int8" for layer in self.layers)

    def to_json(self) -> str:
        """Return the values as text."""
        return json.dumps({"format": FORMAT, **self.model_dump(mode="json")}, indent=1) + "\n"


def finite(value: float | None) -> float | None:
    """Return a number, or None where it is none: such a value has no place in a report."""
    return value if value is not None and math.isfinite(value) else None


def read_quantization(path: Path) -> QuantizationResult | None:
    """Return what a quantization has left; None where it has left nothing.

    Raises:
        FileError: The file is no such record.
    """
    if not path.is_file():
        return None
    must = "The record of a quantization must be as flyweight quantize wrote it."
    with refusing(FileError, must, f"'{path}'", "Quantize again, or remove the file."):
        data = parse_json(read_text(path))
        if data.pop("format", None) != FORMAT:
            raise ValueError("it has another format")
        try:
            return QuantizationResult.model_validate(data)
        except ValidationError as error:
            raise ValueError(str(error.errors(include_url=False)[0]["msg"])) from error
