"""Decisions of a fast scan: which cuts need more images.

Every cut is compared with the dense network on the same images: its loss is a share of the dense
metric there, because few images have another level of the metric than many. The loss has an
interval from a paired bootstrap over images (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 6 and 13): both metrics are computed on the same resampled images, so that
the difficulty of an image, which affects both, cancels. A cut leaves the race when its interval is
narrow, or lies entirely on one side of the loss that the user allows for a layer (Hoeffding races:
Maron and Moore, 1993).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyweight.sensitivity.scanned_cuts import BASELINE, LayerCut

if TYPE_CHECKING:  # Tasks import PIL, which a dry run does not need.
    from flyweight.tasks.task import Metric

_TWO_SIDED_95 = 1.96
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FastScanSettings:
    """The precision that a fast scan has to reach.

    Attributes:
        max_drop: The loss that is allowed for a layer, as a share of the baseline. A cut whose
            loss is certainly smaller, or certainly larger, gets no more images.
        precision: Half the width of a loss's 95 % interval, as a share of the baseline. A cut
            whose interval is this narrow gets no more images.
        first: Number of images at which intervals are computed for the first time.
        growth: Factor from one number of images to the next.
        resamples: Number of bootstrap samples; 60 determine the width of an interval within 10 %.
        seed: Seed of the bootstrap.
    """

    max_drop: float = 0.05
    precision: float = 0.03
    first: int = 12
    growth: float = 1.5
    resamples: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """The estimated effect of a cut on the metric.

    Attributes:
        loss: Share of the dense metric on the same images that the cut costs; negative is a gain.
        error: Half the width of the 95 % interval of the loss; infinite where the dense network
            scores nothing on these images.
        images: Number of images.
    """

    loss: float
    error: float
    images: int


@dataclass
class Race:
    """Cuts that are measured, batch by batch, until each is known precisely enough.

    Attributes:
        primary: Name of the metric's number that counts.
        metric: Returns a fresh metric.
        fast_settings: The precision to reach.
        running: For the dense network and every cut that still needs images: the states of its
            images, by the place of their batch.
        known: The estimate of every cut so far, those that are still running included.
        baseline: The metric of the dense network on the images so far.
    """

    primary: str
    metric: "Callable[[], Metric]"
    fast_settings: FastScanSettings
    running: dict[LayerCut, dict[int, Sequence[Any]]] = field(
        default_factory=lambda: {BASELINE: {}}
    )
    known: dict[LayerCut, Estimate] = field(default_factory=dict)
    baseline: float = 0.0

    @property
    def open(self) -> list[LayerCut]:
        """The cuts that still need images."""
        return [cut for cut in self.running if cut != BASELINE]

    def join(self, cuts: Iterable[LayerCut]) -> None:
        """Add cuts; they still have to be measured on the images of the others."""
        self.running |= {cut: {} for cut in cuts}

    def missing(self, place: int) -> list[LayerCut]:
        """Return the cuts that were not measured yet on batch number `place`."""
        return [cut for cut, seen in self.running.items() if place not in seen]

    def add(self, place: int, states: Mapping[LayerCut, Sequence[Any]]) -> None:
        """Add the states of a batch's images, by cut."""
        for cut in self.missing(place):
            self.running[cut][place] = states[cut]

    def estimate(self, *, last: bool) -> None:
        """Compute intervals, and end the measurement of cuts that are known precisely enough.

        Args:
            last: Whether there are no more images, so that the measurement of all cuts ends.
        """
        dense = self._images(BASELINE)
        draws = _draws(len(dense), self.fast_settings)
        self.baseline, resampled = self._values(dense, draws)
        for cut in self.open:
            images = self._images(cut)
            if cut in self.known and self.known[cut].images == len(images) and not last:
                continue  # Nothing is new: meanwhile only other cuts were measured.
            value, values = self._values(images, draws)
            found = self.known[cut] = self._estimated(value, values, resampled, len(images))
            if last or self._is_known(found):
                del self.running[cut]

    def losses(self) -> dict[LayerCut, float]:
        """Return the estimated losses of the cuts so far, as shares of the baseline."""
        return {cut: found.loss for cut, found in self.known.items()}

    def _estimated(
        self,
        value: float,
        values: NDArray[np.float64],
        resampled: NDArray[np.float64],
        images: int,
    ) -> Estimate:
        if not self.baseline > 0:
            return Estimate(0.0, math.inf, images)
        kept = value / self.baseline
        # The error of a ratio of paired means (Cochran, Sampling Techniques, 1977, chapter 6).
        error = _TWO_SIDED_95 * float(np.std(values - kept * resampled, ddof=1)) / self.baseline
        return Estimate(1 - kept, error, images)

    def _images(self, cut: LayerCut) -> list[Any]:
        seen = self.running[cut]
        return [state for place in sorted(seen) for state in seen[place]]

    def _is_known(self, found: Estimate) -> bool:
        far = abs(found.loss - self.fast_settings.max_drop) > found.error
        return far or found.error <= self.fast_settings.precision

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
    """Return how often each bootstrap sample holds each image, `(resamples, count)`."""
    generator = np.random.default_rng([fast_settings.seed, count])
    return generator.multinomial(count, np.full(count, 1 / count), size=fast_settings.resamples)
