"""Which cuts need more pictures, and which ratios are worth looking at: fast mode's decisions.

Every cut races against the dense network on the same pictures. Their difference has an interval
from a paired bootstrap over pictures (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapters 6 and 13): both metrics are computed on the same resampled pictures, so that what makes a
picture hard for both cancels. A cut leaves the race when its interval is narrow, or lies wholly on
one side of what the user allows a layer to cost (Hoeffding races: Maron and Moore, 1993).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.sensitivity.cuts import BASELINE, Cut
from flyweight.tasks.task import Metric

_TWO_SIDED_95 = 1.96
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Pace:
    """How sure fast mode has to be.

    Attributes:
        max_drop: What a layer may cost, as a share of the baseline: cuts that certainly cost less,
            or more, are looked at no further.
        precision: Half the width of a loss's 95 % interval, as a share of the baseline, at which it
            is known well enough.
        first: Pictures before intervals are computed for the first time.
        growth: How many times as many pictures there are at the next time.
        resamples: Of the bootstrap; the width of an interval is then known within a tenth.
        seed: Of the bootstrap.
    """

    max_drop: float = 0.05
    precision: float = 0.02
    first: int = 16
    growth: float = 1.5
    resamples: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a cut does to the metric.

    Attributes:
        change: Metric of the cut less that of the dense network on the same pictures.
        error: Half the width of its 95 % interval.
        pictures: How many they were.
    """

    change: float
    error: float
    pictures: int


@dataclass
class Race:
    """Cuts that are looked at, picture by picture, until each is known well enough.

    Attributes:
        primary: The number of the metric that counts.
        metric: Makes a fresh metric.
        pace: How sure to be.
        running: States of every picture, of the dense network and of the cuts that still run.
        settled: What is known of the others.
    """

    primary: str
    metric: Callable[[], Metric]
    pace: Pace
    running: dict[Cut, list[Any]]
    settled: dict[Cut, Estimate] = field(default_factory=dict)
    _next: float = 0.0

    @classmethod
    def of(
        cls, primary: str, metric: Callable[[], Metric], pace: Pace, cuts: Iterable[Cut]
    ) -> "Race":
        """Return a race that begins."""
        running: dict[Cut, list[Any]] = {cut: [] for cut in (BASELINE, *cuts)}
        return cls(primary, metric, pace, running, _next=float(pace.first))

    @property
    def open(self) -> list[Cut]:
        """The cuts that still run."""
        return [cut for cut in self.running if cut != BASELINE]

    def add(self, states: Mapping[Cut, Sequence[Any]]) -> None:
        """Add pictures, and let cuts leave when it is time to look."""
        for cut, found in self.running.items():
            found += states[cut]
        if len(self.running[BASELINE]) >= self._next:
            self._next = len(self.running[BASELINE]) * self.pace.growth
            self._look(last=False)

    def finish(self) -> dict[Cut, Estimate]:
        """Return what is known of all cuts; there are no more pictures."""
        self._look(last=True)
        return self.settled

    def _look(self, *, last: bool) -> None:
        count = len(self.running[BASELINE])
        draws = _draws(count, self.pace)
        whole, resampled = self._values(self.running[BASELINE], draws)
        for cut in self.open:
            value, values = self._values(self.running[cut], draws)
            error = _TWO_SIDED_95 * float(np.std(values - resampled, ddof=1))
            found = Estimate(value - whole, error, count)
            if last or self._is_known(found, whole):
                self.settled[cut] = found
                del self.running[cut]

    def _is_known(self, found: Estimate, whole: float) -> bool:
        if whole <= 0:
            return False
        loss, error = -found.change / whole, found.error / whole
        return error <= self.pace.precision or abs(loss - self.pace.max_drop) > error

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


def _draws(count: int, pace: Pace) -> Counts:
    """Return how often each resample holds each picture, `(resamples, count)`."""
    generator = np.random.default_rng([pace.seed, count])
    return generator.multinomial(count, np.full(count, 1 / count), size=pace.resamples)
