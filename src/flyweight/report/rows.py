"""Values of a report: measured numbers with unit, method and environment.

All classes are frozen and convert to JSON and back without change. Text and drawings are made of
these values elsewhere (`markdown`, `html`).
"""

import json
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from flyweight.errors import FileError
from flyweight.report.class_results import ClassResults, Confusion
from flyweight.report.explorer import Explorer
from flyweight.report.quantization_results import QuantizationResult
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.json_values import parse_json

FORMAT = 1

Text = Annotated[str, Field(min_length=1)]
# Charts compute with numbers: their squares and differences must be numbers, too.
Number = Annotated[float, Field(ge=-1e100, le=1e100)]
Numbers = tuple[Number, ...]


class _Value(BaseModel):
    """Base of all values: frozen, without unknown keys, and without NaN and infinity (not JSON)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantity(_Value):
    """One number with everything that is needed to interpret and compare it.

    Attributes:
        label: Name for the reader: "Latency".
        detail: Difference from quantities of the same label: "1 thread"; may be empty.
        value: The number, in `unit`, unscaled (bytes, not MiB; a fraction, not a percentage).
        unit: A key of `units.UNITS`, or any other text, which is shown unchanged.
        method: How the number was computed. Only numbers of equal method are compared.
        environment: Conditions that the number depends on: threads, runtime, machine. Only numbers
            of equal environment are compared. Empty for counted numbers, such as MACs.
        low: Lower end of the interval around `value`, in `unit`; None for exact numbers.
        high: Upper end of that interval.
        difference: Interval of the difference from the first row's number, in `unit`, where both
            were resampled together, which is narrower than what the two intervals allow. None if
            that was not done.
        better: Which direction is an improvement; None takes the unit's own.
    """

    label: Text
    detail: str = ""
    value: Number
    unit: Text
    method: Text
    environment: dict[str, str] = {}
    low: Number | None = None
    high: Number | None = None
    difference: tuple[Number, Number] | None = None
    better: Literal["lower", "higher"] | None = None

    @model_validator(mode="after")
    def _interval_holds_the_value(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends, low and high, or none")
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"{self.value} must lie in [{low}, {high}]")
        if self.difference is not None and self.difference[0] > self.difference[1]:
            raise ValueError("the interval of a difference must rise")
        return self

    @property
    def name(self) -> str:
        """Label and detail together: "Latency, 1 thread"."""
        return f"{self.label}, {self.detail}" if self.detail else self.label


class Row(_Value):
    """One stage of the model and its quantities.

    Attributes:
        stage: "dense", "pruned", "quantized", ...: unique within a report.
        quantities: Key to number; the same key means the same quantity in every row. The order of
            the first row is the order of the table.
    """

    stage: Text
    quantities: dict[str, Quantity]


_MOST_CHANNELS = 2**31


class Width(_Value):
    """Channels of one layer before and after.

    Attributes:
        name: Qualified name, as in the graph: "yolo_block.0.0.0.conv.weight".
        before: Channels of the first stage.
        after: Channels of the last stage.
    """

    name: Text
    before: int = Field(gt=0, le=_MOST_CHANNELS)
    after: int = Field(ge=0, le=_MOST_CHANNELS)


class Curve(_Value):
    """One line of a chart. Lines with the same `name` share a chart.

    Attributes:
        name: Title of the chart: "Training loss".
        series: Name of the line: a stage, or any other text.
        x: Ascending positions.
        y: Values, as many as `x`.
        unit: Unit of `y`, as in `Quantity.unit`.
        x_unit: Unit of `x`: "step", "epoch".
    """

    name: Text
    series: Text
    x: Numbers
    y: Numbers
    unit: Text
    x_unit: Text = "step"

    @model_validator(mode="after")
    def _is_a_line(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"x and y must be equally long, not {len(self.x)} and {len(self.y)}")
        if any(left > right for left, right in pairwise(self.x)):
            raise ValueError("x must ascend")
        return self


class ReportImage(_Value):
    """An image with drawn predictions. Images with the same `title` are shown side by side.

    Attributes:
        title: Name of the image, usually its file name.
        stage: Stage of the model that made the predictions.
        path: PNG or JPEG file, relative to the run folder, with forward slashes.
        caption: Description of the predictions; may be empty.
    """

    title: Text
    stage: Text
    path: Text
    caption: str = ""


class Report(_Value):
    """The whole report of a run.

    Attributes:
        title: Network, data and method: "YOLOv3-MobileNetV1 on BCCD, pruned r578".
        subject: Name of the network in the headline: "YOLOv3-MobileNetV1".
        created: Date and time, with time zone.
        command: Command line that made the report.
        environment: Machine and versions, common to all rows.
        rows: The stages. The other rows are compared with the first one.
        widths: Channels of each layer, in the order of the network.
        curves: Lines of the charts.
        images: Images with drawn predictions. The JSON key is "pictures", as in version 0.1.0.
        class_results: The metric of every class; None if it was not evaluated.
        precision_recall: Detection: precision by recall of every stage, over all classes.
        confusions: Classification and segmentation: a confusion matrix per stage.
        notes: Remarks on the method, each shown as one paragraph.
        quantization: Of the folder's network; None where it was not quantized.
        explorer: Data of the plan explorer; None without a scan.
    """

    title: Text
    subject: Text
    created: AwareDatetime
    command: str
    environment: dict[str, str]
    rows: tuple[Row, ...] = Field(min_length=1)
    widths: tuple[Width, ...] = ()
    curves: tuple[Curve, ...] = ()
    images: tuple[ReportImage, ...] = Field(
        default=(),
        validation_alias=AliasChoices("images", "pictures"),
        serialization_alias="pictures",
    )
    class_results: ClassResults | None = None
    precision_recall: tuple[Curve, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    notes: tuple[str, ...] = ()
    quantization: QuantizationResult | None = None
    explorer: Explorer | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _require_unique("stage", [row.stage for row in self.rows])
        _require_unique("layer", [width.name for width in self.widths])
        for key in self.keys:
            units = {row.quantities[key].unit for row in self.rows if key in row.quantities}
            if len(units) > 1:
                raise ValueError(f"'{key}' must have one unit in all rows, not {sorted(units)}")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all quantities, in the order of their first occurrence in the rows."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.quantities))

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(row.stage for row in self.rows)

    def quantities(self, key: str) -> tuple[Quantity | None, ...]:
        """Return the quantity `key` of every row, None for a row without it."""
        return tuple(row.quantities.get(key) for row in self.rows)

    def to_json(self) -> str:
        """Return the report as JSON text. Equal reports give equal text."""
        values = {
            "format": FORMAT,
            **self.model_dump(mode="json", by_alias=True, exclude={"explorer"}),
        }
        text = json.dumps(values, indent=2)
        if self.explorer is not None:
            # On one line, because it is long and only read by the script of the page.
            dense = json.dumps(self.explorer.model_dump(mode="json"), separators=(",", ":"))
            text = f'{text[:-2]},\n  "explorer": {dense}\n}}'
        return text + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "report.json") -> "Report":
        """Return the report that `to_json` wrote; `source` is the file named in error messages.

        Raises:
            FileError: The text is not JSON, has another format, or a value is missing or invalid.
        """
        remedy = "Run the pipeline again, or restore the file."
        with refusing(FileError, "A report must be JSON.", f"'{source}'", remedy):
            data = parse_json(text)
        found = data.pop("format", None) if isinstance(data, dict) else None
        if found != FORMAT:
            raise FileError(
                f"A report must be of format {FORMAT}. Received: format {found!r}. "
                f"Where: {source}. Open it with the version of flyweight that wrote it."
            )
        remedy = "Run the pipeline again, or correct the file."
        with refusing(FileError, "A report must have valid values.", f"'{source}'", remedy):
            try:
                return cls.model_validate(data)
            except ValidationError as error:
                raise FileError(_error_message(error, source)) from error


def _require_unique(what: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"every {what} must be named once; '{twice}' appears twice")


def _error_message(error: ValidationError, source: str) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the report as a whole"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    received = " ".join(repr(first["input"]).split())
    received = received if len(received) <= 60 else received[:57] + "..."
    return (
        f"A report must have valid values; {where}: {first['msg']}{more}. "
        f"Received: {received}. Where: {source}. Run the pipeline again, or correct the file."
    )
