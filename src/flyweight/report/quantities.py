"""Standard quantities of a report, with the same names and units in every pipeline."""

from collections.abc import Mapping

from flyweight.errors import counted
from flyweight.report.rows import Quantity


def metric(label: str, value: float, *, method: str, detail: str = "") -> Quantity:
    """Return a metric of the model as a fraction from 0 to 1, higher is better: mAP, mIoU."""
    return Quantity(label=label, detail=detail, value=value, unit="fraction", method=method)


def macs(count: int, *, method: str) -> Quantity:
    """Return the multiply-adds of one image; `method` names the input size and the convention."""
    return Quantity(label="MACs", value=count, unit="MACs", method=method)


def parameters(count: int, *, method: str) -> Quantity:
    """Return the number of parameters of the model."""
    return Quantity(label="Parameters", value=count, unit="parameters", method=method)


def file_size(size_bytes: int, *, method: str) -> Quantity:
    """Return the size of the exported file."""
    return Quantity(label="File size", value=size_bytes, unit="bytes", method=method)


def latency(
    median_ms: float,
    *,
    low_ms: float,
    high_ms: float,
    threads: int,
    runtime: str,
    method: str,
    environment: Mapping[str, str] | None = None,
) -> Quantity:
    """Return the median time of one image in ms, with the interval of the median."""
    return Quantity(
        label="Latency",
        detail=counted(threads, "thread"),
        value=median_ms,
        unit="ms",
        method=method,
        environment={"runtime": runtime, "threads": str(threads), **(environment or {})},
        low=low_ms,
        high=high_ms,
    )


def peak_memory(
    size_bytes: int, *, method: str, environment: Mapping[str, str] | None = None
) -> Quantity:
    """Return the highest resident memory of the process, in bytes."""
    return Quantity(
        label="Peak memory",
        value=size_bytes,
        unit="bytes",
        method=method,
        environment=dict(environment or {}),
    )
