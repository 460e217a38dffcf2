"""Latencies of a report, from measurements that were made together."""

from collections.abc import Iterable

from flyweight.measuring.bootstrap import median_interval
from flyweight.measuring.measure import Measurement
from flyweight.report import quantities
from flyweight.report.rows import Quantity
from flyweight.runtimes.runtime_table import RUNTIMES

_WALL_TIME = "median of single images of {size}, files interleaved, 95 % bootstrap interval"
_PROCESSOR_TIME = (
    "processor time of single images of {size}, because a process had to wait for its core; files "
    "interleaved, 95 % bootstrap interval"
)


def latency_quantities(
    rows: Iterable[Measurement], together: Iterable[Measurement], size: str
) -> dict[str, Quantity]:
    """Return the latencies of one network by the keys of a report.

    Where a process had to wait for its core, wall time is not that of the file. With one thread,
    processor time takes its place; with more, there is none, and the latency is left out.

    Args:
        rows: Of the network.
        together: Of all networks of the report; one that waited changes the latencies of all.
        size: Of the images, for the reader.
    """
    waited = {row.threads for row in together if row.waited}
    found = {}
    for row in rows:
        if row.threads in waited and (row.threads > 1 or not row.blocks_cpu_ms):
            continue
        found[f"latency_{row.threads}"] = _quantity(row, size, waited=row.threads in waited)
    return found


def _quantity(row: Measurement, size: str, *, waited: bool) -> Quantity:
    value, (low, high), method = row.median_ms, row.interval_ms, _WALL_TIME
    if waited:
        value, method = row.cpu_ms, _PROCESSOR_TIME
        low, high = median_interval([(each,) for each in row.blocks_cpu_ms])
    return quantities.latency(
        value,
        low_ms=min(low, value),
        high_ms=max(high, value),
        threads=row.threads,
        runtime=RUNTIMES[row.runtime].title,
        method=method.format(size=size),
    )
