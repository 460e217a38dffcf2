"""Comparison of two measurements: faster, slower, or no difference that the machine can show."""

from dataclasses import dataclass
from typing import Literal

from flyweight.errors import MeasureError
from flyweight.measuring.bootstrap import ratio_interval
from flyweight.measuring.measure import Measurement

RESOLUTION = 0.02
"""Smallest difference from 1 that a ratio must have on a quiet machine.

The position of memory differs from process to process and changes the median for the lifetime of
the process: the same file in two processes differs by up to about 1 %, with intervals ten times
narrower."""

NOISY_RESOLUTION = 0.10
"""The same where a row is marked as noisy: there the scheduler treats processes unequally for
seconds, and the same file differed by up to 13 % at two threads on two busy cores."""

Verdict = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True)
class Comparison:
    """How `subject` compares with `reference` at one thread count.

    Attributes:
        reference: Name of the file compared with.
        subject: Name of the file compared.
        threads: Threads of one inference.
        speedup: Median of the reference over median of the subject; above 1 is faster.
        interval: 95 % paired block-bootstrap interval of `speedup`.
        resolution: Smallest difference from 1 that a ratio must have here, as a fraction.
        verdict: "no difference" when `interval` comes within `resolution` of 1 or the intervals of
            the two medians overlap; else whether the subject is faster or slower.
    """

    reference: str
    subject: str
    threads: int
    speedup: float
    interval: tuple[float, float]
    resolution: float
    verdict: Verdict


def compare(reference: Measurement, subject: Measurement, *, seed: int = 0) -> Comparison:
    """Compare two rows of one call of `measure`.

    Raises:
        MeasureError: The two were not measured together, so that their ratio would contain drift,
            or their numbers of threads differ.
    """
    if reference.session != subject.session:
        raise MeasureError(
            f"'{reference.name}' and '{subject.name}' must be measured together to be compared. "
            "Received: two separate measurements. Give both files to one measurement."
        )
    if reference.threads != subject.threads:
        raise MeasureError(
            f"Compared rows must use the same number of threads. Received: {reference.threads} "
            f"and {subject.threads}. Compare rows of one thread count."
        )
    noisy = reference.is_noisy or subject.is_noisy
    resolution = NOISY_RESOLUTION if noisy else RESOLUTION
    interval = ratio_interval(reference.blocks_ms, subject.blocks_ms, seed=seed)
    return Comparison(
        reference=reference.name,
        subject=subject.name,
        threads=subject.threads,
        speedup=reference.median_ms / subject.median_ms,
        interval=interval,
        resolution=resolution,
        verdict=_verdict(reference, subject, interval, resolution),
    )


def _verdict(
    reference: Measurement,
    subject: Measurement,
    interval: tuple[float, float],
    resolution: float,
) -> Verdict:
    overlap = (
        subject.interval_ms[0] <= reference.interval_ms[1]
        and reference.interval_ms[0] <= subject.interval_ms[1]
    )
    if overlap or (interval[0] <= 1 + resolution and interval[1] >= 1 / (1 + resolution)):
        return "no difference"
    return "faster" if interval[0] > 1 else "slower"
