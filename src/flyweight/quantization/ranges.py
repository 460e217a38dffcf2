"""Ranges of tensors, found in one pass over calibration data in bounded memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RangeMethod = Literal["percentile", "mse", "minmax", "moving_average", "kl"]
RANGE_METHODS: tuple[str, ...] = get_args(RangeMethod)
BINS = 2048
"""Bins of a histogram; the memory of calibration is 16 KiB for each quantized tensor."""
LEVELS = 256
_FOLDED_LEVELS = 255
_DECAY = 0.9
"""Share that a moving average keeps of what it was."""
_SHRINKS = np.linspace(0.3, 1.0, 141)
"""Shares of the whole range that a search for the least squared error tries."""
_KL_FROM = 0.7
"""Smallest share of the range that the search for the least divergence tries."""


@dataclass(frozen=True)
class Range:
    """From where to where the values of a tensor are kept; what lies beyond is clipped."""

    low: float
    high: float


class RangeObserver:
    """Collects the values of one tensor, batch by batch.

    The histogram covers what was seen so far. A value beyond it makes the histogram at least twice
    as wide; every old bin is counted where its middle lies then.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.average: Range | None = None
        self.counts: NDArray[np.float64] = np.zeros(BINS)
        self._start, self._width = 0.0, 0.0

    def observe(self, values: Tensor) -> None:
        """Count the values of a batch.

        Args:
            values: Of any shape and float type; empty tensors count nothing.

        Raises:
            ValueError: A value is not finite.
        """
        if not values.numel():
            return
        flat = values.detach().reshape(-1).float()
        low, high = (float(end) for end in torch.aminmax(flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("a value is not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        last = self.average or Range(low, high)
        self.average = Range(
            _DECAY * last.low + (1 - _DECAY) * low, _DECAY * last.high + (1 - _DECAY) * high
        )
        self._cover(low, high)
        places = ((flat - self._start) / self._width * BINS).long().clamp_(0, BINS - 1)
        self.counts += torch.bincount(places, minlength=BINS).cpu().numpy()

    def values(self) -> NDArray[np.float64]:
        """Return what was observed, shape (BINS + 6,), for `restore`."""
        average = self.average or Range(math.nan, math.nan)
        ends = [self.low, self.high, average.low, average.high, self._start, self._width]
        return np.concatenate([self.counts, ends])

    def restore(self, values: NDArray[np.float64]) -> None:
        """Continue from what `values` returned."""
        self.counts = values[:BINS].copy()
        self.low, self.high, low, high, self._start, self._width = map(float, values[BINS:])
        self.average = None if math.isnan(low) else Range(low, high)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the bins begin and end, shape (BINS + 1,)."""
        return self._start + self._width * np.arange(BINS + 1) / BINS

    def _cover(self, low: float, high: float) -> None:
        if not self._width:
            self._start, self._width = low, max(high - low, 1e-12, abs(low) * 1e-6)
        end = self._start + self._width
        if low >= self._start and high <= end:
            return
        start = min(low, self._start)
        width = (max(high, end) - start) * (1 + 1e-9)
        # Twice as wide at least, so that a slowly growing range is not moved at every batch.
        width = max(width, 2 * self._width)
        middles = self._start + self._width * (np.arange(BINS) + 0.5) / BINS
        places = np.clip((middles - start) / width * BINS, 0, BINS - 1).astype(np.int64)
        self.counts = np.bincount(places, self.counts, BINS).astype(np.float64)
        self._start, self._width = start, width


def range_of(observer: RangeObserver, method: RangeMethod, percentile: float = 99.99) -> Range:
    """Return the range of what was observed.

    Args:
        observer: It has seen values.
        method: `minmax` keeps all; `moving_average` averages the ends of batches; `percentile`
            keeps that share of the values on each side; `mse` has the least squared error of 256
            levels; `kl` has the least divergence between the distributions of absolute values.
        percentile: Share kept by the method `percentile`, in percent.

    Raises:
        ValueError: Nothing was observed.
    """
    if observer.average is None:
        raise ValueError("no value was observed")
    return _METHODS[method](observer, percentile)


def _minmax(observer: RangeObserver, _: float) -> Range:
    return Range(observer.low, observer.high)


def _moving_average(observer: RangeObserver, _: float) -> Range:
    return observer.average or _minmax(observer, _)


def _percentile(observer: RangeObserver, percentile: float) -> Range:
    """Cut what lies beyond the percentile on each side, but zero, which every range contains."""
    share = np.cumsum(observer.counts) / observer.counts.sum()
    beyond = (100 - percentile) / 100
    edges = observer.edges
    low = edges[np.searchsorted(share, beyond, side="right")]
    high = edges[np.searchsorted(share, 1 - beyond) + 1]
    return Range(max(float(low), observer.low), min(float(high), observer.high))


def _least_squares(observer: RangeObserver, _: float) -> Range:
    """Return the shrunken range whose levels have the least squared error over the histogram."""
    middles = (observer.edges[:-1] + observer.edges[1:]) / 2
    whole = Range(min(observer.low, 0.0), max(observer.high, 0.0))

    def error(share: float) -> float:
        scale = share * (whole.high - whole.low) / (LEVELS - 1) or 1.0
        zero = round(-share * whole.low / scale)
        levels = np.clip(np.round(middles / scale) + zero, 0, LEVELS - 1) - zero
        return float(np.sum(observer.counts * (middles - levels * scale) ** 2))

    best = min(_SHRINKS, key=error)
    return Range(best * whole.low, best * whole.high)


def _least_divergence(observer: RangeObserver, _: float) -> Range:
    """Return the range of the least Kullback-Leibler divergence, as PaddleSlim's `KL` finds it.

    Of the histogram of absolute values in 2048 bins, what lies beyond a threshold is added to the
    last bin before it (P), the bins are merged to 255 levels and spread again over those that are
    not empty (Q); the threshold with the least divergence of P from Q wins. Source: the function
    `get_kl_threshold` of PaddleSlim 1.1, and S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    most = max(abs(observer.low), abs(observer.high))
    middles = np.abs(observer.edges[:-1] + observer.edges[1:]) / 2
    counts, _edges = np.histogram(middles, BINS, (0.0, most or 1.0), weights=observer.counts)
    ends = range(int((BINS - 1) * _KL_FROM), BINS)
    divergences = {end: _divergence(counts, end) for end in ends}
    best = min(ends, key=divergences.__getitem__)
    # Nothing below the last bin, as of a constant tensor, has no distribution to compare.
    found = math.isfinite(divergences[best])
    threshold = (best + 0.5) * (most or 1.0) / BINS if found else most
    return Range(max(observer.low, -threshold), min(observer.high, threshold))


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    reference = counts[:end].copy()
    reference[-1] += counts[end:].sum()
    level = np.arange(end) * _FOLDED_LEVELS // end
    filled = counts[:end] > 0
    merged = np.bincount(level, counts[:end], _FOLDED_LEVELS)
    share = np.bincount(level, filled, _FOLDED_LEVELS)
    spread = np.where(filled, merged[level] / np.maximum(share[level], 1), 0.0)
    if not spread.sum():
        return math.inf
    p, q = reference / reference.sum(), spread / spread.sum()
    both = (p > 0) & (q > 0)
    missing = p[(p > 0) & (q == 0)].sum()
    return float(np.sum(p[both] * np.log(p[both] / q[both])) + missing)


_METHODS: Mapping[RangeMethod, Callable[[RangeObserver, float], Range]] = {
    "percentile": _percentile,
    "mse": _least_squares,
    "minmax": _minmax,
    "moving_average": _moving_average,
    "kl": _least_divergence,
}
