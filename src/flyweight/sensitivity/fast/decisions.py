"""Which cuts need more images, and which ratios are worth looking at: fast mode's decisions.

Every cut races against the dense network on the same images. Their difference has an interval
from a paired bootstrap over images (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapters 6 and 13): both metrics are computed on the same resampled images, so that what makes an
image hard for both cancels. A cut leaves the race when its interval is narrow, or lies wholly on
one side of what the user allows a layer to cost (Hoeffding races: Maron and Moore, 1993).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.sensitivity.scanned_cuts import BASELINE, Cut
from flyweight.tasks.task import Metric

_TWO_SIDED_95 = 1.96
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FastScanSettings:
    """How sure fast mode has to be.

    Attributes:
        max_drop: What a layer may cost, as a share of the baseline: cuts that certainly cost less,
            or more, are looked at no further.
        precision: Half the width of a loss's 95 % interval, as a share of the baseline, at which it
            is known well enough.
        first: Images before intervals are computed for the first time.
        growth: How many times as many images there are at the next time.
        resamples: Of the bootstrap; the width of an interval is then known within a tenth.
        seed: Of the bootstrap.
    """

    max_drop: float = 0.05
    precision: float = 0.03
    first: int = 12
    growth: float = 1.5
    resamples: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a cut does to the metric.

    Attributes:
        change: Metric of the cut less that of the dense network on the same images.
        error: Half the width of its 95 % interval.
        images: How many they were.
    """

    change: float
    error: float
    images: int


@dataclass
class Race:
    """Cuts that are looked at, batch by batch, until each is known well enough.

    Attributes:
        primary: The number of the metric that counts.
        metric: Makes a fresh metric.
        pace: How sure to be.
        running: What the dense network and the cuts that still run said: by the batch's place, the
            states of its images.
        known: What each cut does to the metric as far as was seen; of those that run on, too.
        baseline: The metric of the dense network on what was seen.
    """

    primary: str
    metric: Callable[[], Metric]
    fast_settings: FastScanSettings
    running: dict[Cut, dict[int, Sequence[Any]]] = field(default_factory=lambda: {BASELINE: {}})
    known: dict[Cut, Estimate] = field(default_factory=dict)
    baseline: float = 0.0

    @property
    def open(self) -> list[Cut]:
        """The cuts that still run."""
        return [cut for cut in self.running if cut != BASELINE]

    def join(self, cuts: Iterable[Cut]) -> None:
        """Let more cuts run; they have to catch up."""
        self.running |= {cut: {} for cut in cuts}

    def missing(self, place: int) -> list[Cut]:
        """Return the cuts that have not said yet what they say of batch number `place`."""
        return [cut for cut, seen in self.running.items() if place not in seen]

    def add(self, place: int, states: Mapping[Cut, Sequence[Any]]) -> None:
        """Add a batch."""
        for cut in self.missing(place):
            self.running[cut][place] = states[cut]

    def look(self, *, last: bool) -> None:
        """Compute intervals, and let cuts leave that are known well enough.

        Args:
            last: There are no more images: all leave.
        """
        whole = self._images(BASELINE)
        draws = _draws(len(whole), self.fast_settings)
        self.baseline, resampled = self._values(whole, draws)
        for cut in self.open:
            images = self._images(cut)
            if cut in self.known and self.known[cut].images == len(images) and not last:
                continue  # it was there at the last look, and others have caught up since
            value, values = self._values(images, draws)
            error = _TWO_SIDED_95 * float(np.std(values - resampled, ddof=1))
            found = self.known[cut] = Estimate(value - self.baseline, error, len(images))
            if last or self._is_known(found, self.baseline):
                del self.running[cut]

    def losses(self) -> dict[Cut, float]:
        """Return what cuts cost as far as was seen, as shares of the baseline."""
        whole = self.baseline
        return {cut: -e.change / whole if whole > 0 else 0.0 for cut, e in self.known.items()}

    def _images(self, cut: Cut) -> list[Any]:
        seen = self.running[cut]
        return [state for place in sorted(seen) for state in seen[place]]

    def _is_known(self, found: Estimate, whole: float) -> bool:
        if whole <= 0:
            return False
        loss, error = -found.change / whole, found.error / whole
        return (
            error <= self.fast_settings.precision or abs(loss - self.fast_settings.max_drop) > error
        )

    def _values(self, states: Sequence[Any], draws: Counts) -> tuple[float, NDArray[np.float64]]:
        ones = np.ones(len(states), dtype=np.int64)
        rows = [self._value(states, counts) for counts in (ones, *draws)]
        return rows[0], np.asarray(rows[1:])

    def _value(self, states: Sequence[Any], counts: Counts) -> float:
        metric = self.metric()
        for state, times in zip(states, counts.tolist(), strict=True):
            for _ in range(times):
                metric.merge(state)
        return float(metric.compute()[self.primary])


def _draws(count: int, fast_settings: FastScanSettings) -> Counts:
    """Return how often each resample holds each image, `(resamples, count)`."""
    generator = np.random.default_rng([fast_settings.seed, count])
    return generator.multinomial(count, np.full(count, 1 / count), size=fast_settings.resamples)
