"""Comparison of two measurements: faster, slower, or no difference that the machine can show."""

from dataclasses import dataclass
from typing import Literal

from flyweight.errors import MeasureError
from flyweight.measuring.bootstrap import Blocks, median_interval, ratio_interval
from flyweight.measuring.measure import Measurement

RESOLUTION = 0.02
"""Smallest difference from 1 that a ratio must have on a quiet machine.

The position of memory differs from process to process and changes the median for the lifetime of
the process: the same file in two processes differs by up to about 1 %, with intervals ten times
narrower."""

NOISY_RESOLUTION = 0.10
"""The same where a row is marked as noisy: there the scheduler treats processes unequally for
seconds, and the same file differed by up to 13 % at two threads on two busy cores."""

Verdict = Literal["faster", "slower", "no difference", "not comparable"]
Time = Literal["wall time", "processor time"]


@dataclass(frozen=True)
class Comparison:
    """How `subject` compares with `reference` at one thread count.

    Attributes:
        reference: Name of the file compared with.
        subject: Name of the file compared.
        threads: Threads of one inference.
        speedup: Median of the reference over median of the subject; above 1 is faster. Of processor
            time where a process had to wait for its core.
        interval: 95 % paired block-bootstrap interval of `speedup`.
        resolution: Smallest difference from 1 that a ratio must have here, as a fraction.
        verdict: "no difference" when `interval` comes within `resolution` of 1 or the intervals of
            the two medians overlap; "not comparable" where a process had to wait and there is no
            processor time to compare; else whether the subject is faster or slower.
        time: What was compared.
    """

    reference: str
    subject: str
    threads: int
    speedup: float
    interval: tuple[float, float]
    resolution: float
    verdict: Verdict
    time: Time = "wall time"


def compare(reference: Measurement, subject: Measurement, *, seed: int = 0) -> Comparison:
    """Compare two rows of one call of `measure`.

    Where a process with one thread had to wait for its core, processor time is compared: the two
    are equal where no other program uses the core. With several threads they are not, and nothing
    is compared.

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
    waited = reference.waited or subject.waited
    by_block = reference.blocks_cpu_ms and subject.blocks_cpu_ms
    by_processor = bool(waited and subject.threads == 1 and by_block)
    first, second = (_times(row, of_processor=by_processor) for row in (reference, subject))
    interval = ratio_interval(first.blocks, second.blocks, seed=seed)
    resolution = NOISY_RESOLUTION if noisy else RESOLUTION
    verdict = _verdict(first, second, interval, resolution)
    return Comparison(
        reference=reference.name,
        subject=subject.name,
        threads=subject.threads,
        speedup=first.median / second.median,
        interval=interval,
        resolution=resolution,
        verdict="not comparable" if waited and not by_processor else verdict,
        time="processor time" if by_processor else "wall time",
    )


@dataclass(frozen=True)
class _Times:
    """What is compared of a row, in milliseconds."""

    median: float
    interval: tuple[float, float]
    blocks: Blocks


def _times(row: Measurement, *, of_processor: bool) -> _Times:
    if of_processor:
        blocks = [(each,) for each in row.blocks_cpu_ms]
        return _Times(row.cpu_ms, median_interval(blocks), blocks)
    return _Times(row.median_ms, row.interval_ms, row.blocks_ms)


def _verdict(
    reference: _Times, subject: _Times, interval: tuple[float, float], resolution: float
) -> Verdict:
    overlap = (
        subject.interval[0] <= reference.interval[1]
        and reference.interval[0] <= subject.interval[1]
    )
    if overlap or (interval[0] <= 1 + resolution and interval[1] >= 1 / (1 + resolution)):
        return "no difference"
    return "faster" if interval[0] > 1 else "slower"
