"""Bootstrap intervals for medians of interleaved blocks.

Consecutive inferences share the momentary state of the machine, so single runs are not independent
and a plain bootstrap gives intervals that are far too narrow. Whole blocks are resampled instead
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8). Rows that were measured
together have the same rounds; their ratio resamples the same rounds for both, which cancels drift.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

Blocks = Sequence[Sequence[float]]
Interval = tuple[float, float]


def median_interval(blocks: Blocks, *, seed: int = 0) -> Interval:
    """Return the 95 % block-bootstrap interval of the pooled median, in the unit of `blocks`."""
    return _percentiles(_resampled_medians(blocks, _draws(len(blocks), seed)))


def ratio_interval(numerator: Blocks, denominator: Blocks, *, seed: int = 0) -> Interval:
    """Return the 95 % interval of the ratio of pooled medians, resampling rounds jointly.

    Raises:
        ValueError: The two have different numbers of rounds.
    """
    if len(numerator) != len(denominator):
        raise ValueError(
            "Both must have the same number of blocks. "
            f"Received: {len(numerator)} and {len(denominator)}."
        )
    draws = _draws(len(numerator), seed)
    return _percentiles(
        _resampled_medians(numerator, draws) / _resampled_medians(denominator, draws)
    )


def _draws(num_blocks: int, seed: int) -> NDArray[np.int64]:
    """Return how often each resample contains each block, `(RESAMPLES, num_blocks)`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_blocks, [1 / num_blocks] * num_blocks, size=RESAMPLES)


def _resampled_medians(blocks: Blocks, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    owners = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(values, kind="stable")
    values, owners = values[order], owners[order]
    medians = np.empty(len(draws))
    for index, counts in enumerate(draws):
        # A resample is the sorted sample with multiplicities, so it need not be sorted again.
        ranks = np.cumsum(counts[owners])
        lower = values[np.searchsorted(ranks, (ranks[-1] - 1) // 2, side="right")]
        upper = values[np.searchsorted(ranks, ranks[-1] // 2, side="right")]
        medians[index] = (lower + upper) / 2
    return medians


def _percentiles(statistics: NDArray[np.float64]) -> Interval:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(statistics, [tail, 100 - tail])
    return float(low), float(high)
