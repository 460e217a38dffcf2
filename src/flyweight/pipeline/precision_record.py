"""Record of a choice of precisions: the latency of what was chosen beside that of float."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.errors import FileError
from flyweight.files import write_text
from flyweight.measuring.bootstrap import ratio_interval
from flyweight.measuring.comparison import NOISY_RESOLUTION, RESOLUTION
from flyweight.measuring.measure import Measurement
from flyweight.runtimes.protocol import FLOAT32
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

FORMAT = 1
_PROCESSOR_TIME = "processor time, because the machine is noisy"


@dataclass(frozen=True)
class PrecisionLatency:
    """Latency of a file beside that of the float file, measured in turns on one thread.

    Attributes:
        runtime: Name of the runtime.
        precision: `float`, `int8`, or `mixed` where some layers stay float, by choice or because no
            kernel computes them with integers.
        inference: Precision of float operations: `float32` or `bfloat16`.
        float_ms: Milliseconds of one inference of the float file, in float32.
        chosen_ms: Milliseconds of this file.
        ratio: The first divided by the second; above 1 is faster.
        interval: 95 % interval of the ratio.
        resolution: Smallest difference of a ratio from 1 that this measurement can show.
        cpu: Name of the processor.
        note: What the reader must know, such as a noisy machine.
    """

    runtime: str
    precision: str
    inference: str
    float_ms: float
    chosen_ms: float
    ratio: float
    interval: tuple[float, float]
    resolution: float
    cpu: str
    note: str = ""

    def faster_than(self, other: "PrecisionLatency") -> bool:
        """Return whether this is faster than the other by more than the measurement's error."""
        return self.interval[0] > other.ratio * (1 + self.resolution)

    @property
    def is_reference(self) -> bool:
        """Whether this is the float file itself."""
        return self.precision == "float" and self.inference == FLOAT32


def latency_of(
    dense: Measurement, found: Measurement, *, some_float: bool, some_integer: bool
) -> PrecisionLatency:
    """Return the latency of a file that was measured together with the float file.

    On a noisy machine processor time replaces wall time: the two are equal where no other program
    uses the core, because both files have one thread.

    Args:
        dense: Of the float file.
        found: Of the file.
        some_float: Whether layers stay float.
        some_integer: Whether layers run on integers.
    """
    noisy = dense.is_noisy or found.is_noisy
    rows = (dense, found)
    blocks: list[Sequence[Sequence[float]]]
    if noisy:
        times = dense.cpu_ms, found.cpu_ms
        blocks = [[(one,) for one in row.blocks_cpu_ms] for row in rows]
    else:
        times = dense.median_ms, found.median_ms
        blocks = [row.blocks_ms for row in rows]
    precision = ("mixed" if some_float else "int8") if some_integer else "float"
    return PrecisionLatency(
        found.runtime,
        precision,
        found.precision,
        *times,
        times[0] / times[1],
        ratio_interval(*blocks) if dense is not found else (1.0, 1.0),
        NOISY_RESOLUTION if noisy else RESOLUTION,
        found.environment.cpu,
        _PROCESSOR_TIME if noisy else "",
    )


@dataclass(frozen=True)
class PrecisionRecord:
    """What a quantization with chosen precisions leaves beside its checkpoint.

    Attributes:
        plan: The choice, as `PrecisionPlan.to_json` writes it.
        latency: The proof.
    """

    plan: Mapping[str, Any]
    latency: PrecisionLatency

    @property
    def floats(self) -> Mapping[str, str]:
        """Every layer that stays float to the reason."""
        return {str(name): str(why) for name, why in self.plan["float"].items()}

    def save(self, path: Path) -> None:
        """Write the record, complete or not at all."""
        values = {"format": FORMAT, "plan": dict(self.plan), "latency": asdict(self.latency)}
        write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def record_path(checkpoint: Path) -> Path:
    """Return the path of the record beside a quantized checkpoint."""
    return checkpoint.with_suffix(".precision.json")


def read_record(path: Path) -> PrecisionRecord:
    """Return what `PrecisionRecord.save` wrote.

    Raises:
        FileError: There is no such record, or it is damaged.
    """
    must, remedy = "A record of precisions must be what flyweight wrote.", "Quantize again."
    with refusing(FileError, must, f"'{path}'", remedy):
        data = parse_json(read_text(path))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, where {FORMAT} is read")
        latency = dict(data["latency"])
        low, high = latency.pop("interval")
        record = PrecisionRecord(
            dict(data["plan"]),
            PrecisionLatency(**latency, interval=(float(low), float(high))),
        )
        _ = record.floats  # Refused here if it has none.
        return record
