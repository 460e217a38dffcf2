"""The report as plain values: what was measured, in which unit, how and where.

Everything here is frozen and survives JSON unchanged. How numbers are worded and drawn is decided
by the readers of these values, never here.
"""

import json
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight.errors import FileError
from flyweight.report.explorer import Explorer

FORMAT = 1

Text = Annotated[str, Field(min_length=1)]
Numbers = tuple[float, ...]


class _Value(BaseModel):
    """Frozen, strict about unknown keys, without NaN or infinity: they have no place in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantity(_Value):
    """One number that can be judged without asking its author.

    Attributes:
        label: What it is, for people: "Latency".
        detail: What tells it from its siblings: "1 thread", "VOC 11-point"; may be empty.
        value: The number, in `unit`, unscaled (bytes, not MiB; a fraction, not a percentage).
        unit: A key of `units.UNITS`, or any other word, which is then shown as it is.
        method: How the number came about. Two numbers are compared only if it is the same.
        environment: Where, as far as the number depends on it: threads, runtime, machine. Two
            numbers are compared only if it is the same. Empty for what is counted, not measured.
        low: Lower end of the interval around `value`, in `unit`; None for exact numbers.
        high: Upper end of that interval.
        better: Which direction is an improvement; None takes the unit's own.
    """

    label: Text
    detail: str = ""
    value: float
    unit: Text
    method: Text
    environment: dict[str, str] = {}
    low: float | None = None
    high: float | None = None
    better: Literal["lower", "higher"] | None = None

    @model_validator(mode="after")
    def _interval_holds_the_value(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends, low and high, or none")
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"{self.value} must lie in [{low}, {high}]")
        return self

    @property
    def name(self) -> str:
        """Label and detail together: "Latency, 1 thread"."""
        return f"{self.label}, {self.detail}" if self.detail else self.label


class Row(_Value):
    """One stage of the model's life and what was found there.

    Attributes:
        stage: "dense", "pruned", "quantized", ...: unique within a report.
        quantities: Key to number; the same key means the same quantity in every row. The order of
            the first row is the order of the table.
    """

    stage: Text
    quantities: dict[str, Quantity]


class Width(_Value):
    """Channels of one layer before and after.

    Attributes:
        name: Qualified name, as in the graph: "yolo_block.0.0.0.conv.weight".
        before: Channels of the first stage.
        after: Channels of the last stage.
    """

    name: Text
    before: int = Field(gt=0)
    after: int = Field(ge=0)


class Curve(_Value):
    """One line of one chart; lines with the same `name` share a chart.

    Attributes:
        name: Title of the chart: "Training loss".
        series: Which line of the chart: a stage name, or any other.
        x: Ascending positions.
        y: Heights, as many as `x`.
        unit: Of `y`, as in `Quantity.unit`.
        x_unit: Of `x`: "step", "epoch".
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


class Picture(_Value):
    """A picture with predictions; pictures with the same `title` are shown side by side.

    Attributes:
        title: Which picture it is: a file name, usually.
        stage: Whose predictions are drawn on it.
        path: The PNG or JPEG, relative to the run folder, with forward slashes.
        caption: What to see in it; may be empty.
    """

    title: Text
    stage: Text
    path: Text
    caption: str = ""


class Report(_Value):
    """All that a person needs to decide whether the smaller model will do.

    Attributes:
        title: What was done: "YOLOv3-MobileNetV1 on BCCD, pruned r578".
        subject: The model alone, as the headline names it: "YOLOv3-MobileNetV1".
        created: When, with its time zone.
        command: What to type to get it again.
        environment: Machine and versions that all rows share.
        rows: The stages; the first one is what the others are compared with.
        widths: Layers in the order of the network.
        curves: Lines of the charts.
        pictures: Pictures with predictions.
        notes: Further sentences on method, each shown as one paragraph.
        explorer: Curves of a scan, and what the page needs to make plans of them.
    """

    title: Text
    subject: Text
    created: AwareDatetime
    command: str
    environment: dict[str, str]
    rows: tuple[Row, ...] = Field(min_length=1)
    widths: tuple[Width, ...] = ()
    curves: tuple[Curve, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    explorer: Explorer | None = None

    @model_validator(mode="after")
    def _names_mean_one_thing(self) -> Self:
        _require_unique("stage", [row.stage for row in self.rows])
        _require_unique("layer", [width.name for width in self.widths])
        for key in self.keys:
            units = {row.quantities[key].unit for row in self.rows if key in row.quantities}
            if len(units) > 1:
                raise ValueError(f"'{key}' must have one unit in all rows, not {sorted(units)}")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all quantities, in the order in which the rows first name them."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.quantities))

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(row.stage for row in self.rows)

    def quantities(self, key: str) -> tuple[Quantity | None, ...]:
        """Return the quantity `key` of every row, None where a row lacks it."""
        return tuple(row.quantities.get(key) for row in self.rows)

    def to_json(self) -> str:
        """Return the report as text; equal reports give equal text."""
        values = {"format": FORMAT, **self.model_dump(mode="json", exclude={"explorer"})}
        text = json.dumps(values, indent=2)
        if self.explorer is not None:
            # On one line: it is for the page's script, and long.
            dense = json.dumps(self.explorer.model_dump(mode="json"), separators=(",", ":"))
            text = f'{text[:-2]},\n  "explorer": {dense}\n}}'
        return text + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "report.json") -> "Report":
        """Read what `to_json` wrote; `source` is the file that an error names.

        Raises:
            FileError: It is no JSON, of another format, or a value is missing or misplaced.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise FileError(
                f"A report must be JSON. Received: {error}. Where: {source}. "
                "Run the pipeline again, or restore the file."
            ) from error
        found = data.pop("format", None) if isinstance(data, dict) else None
        if found != FORMAT:
            raise FileError(
                f"A report must be of format {FORMAT}. Received: format {found!r}. "
                f"Where: {source}. Open it with the flyweight that wrote it."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise FileError(_letter(error, source)) from error


def _require_unique(what: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"every {what} must be named once; '{twice}' comes twice")


def _letter(error: ValidationError, source: str) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the report as a whole"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    received = " ".join(repr(first["input"]).split())
    received = received if len(received) <= 60 else received[:57] + "..."
    return (
        f"A report must hold what its format says; {where}: {first['msg']}{more}. "
        f"Received: {received}. Where: {source}. Run the pipeline again, or correct the file."
    )
