"""Fast scan: fewer images and fewer ratios than an exact scan, with intervals.

It measures a few cuts on a few images first. The shape of the curves then determines which further
cuts to measure (`probes`), and those are measured on the same images. Then it adds images for the
cuts that are not known precisely enough (`decisions.Race`), and so on. The images must be in an
order in which every first part represents the whole, for example a random one.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.digests import digest_of_batch
from flyweight.errors import DataError
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.evaluator import Mean, states_by_image
from flyweight.sensitivity.fast.decisions import Estimate, FastScanSettings, Race
from flyweight.sensitivity.fast.prior import prior_of
from flyweight.sensitivity.fast.probes import by_layer, first_probes, next_probes
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.measured_curves import Point
from flyweight.sensitivity.scanned_cuts import BASELINE, LayerCut

Watch = Callable[[Iterable[Any], str], Iterable[Any]]
"""Returns batches and reports each one as progress, under a label."""


@dataclass
class FastScan:
    """One fast scan.

    Attributes:
        work: Runs the cuts.
        journal: Stores the states of every image.
        fast_settings: The precision to reach.
        race: Decides which cuts need more images.
        total: Number of all images; 0 until they were all needed.
    """

    work: CutRunner
    journal: Journal
    fast_settings: FastScanSettings
    race: Race
    total: int = 0

    @classmethod
    def of(cls, work: CutRunner, journal: Journal, fast_settings: FastScanSettings) -> "FastScan":
        """Return a new fast scan."""
        return cls(
            work,
            journal,
            fast_settings,
            Race(work.evaluator.primary, work.evaluator.metric, fast_settings),
        )

    def run(self, batches: Iterable[Any], watch: Watch) -> None:
        """Measure cuts until every curve is known precisely enough.

        Args:
            batches: They are iterated once for every number of images, from the first batch on.
            watch: Reports progress.

        Raises:
            DataError: There are no batches, or they can be iterated only once.
        """
        if iter(batches) is batches:
            raise DataError(
                "A fast scan iterates over its batches several times. Received an iterator, which "
                "can be used only once. Use a list or a data loader."
            )
        cuts, race = tuple(self.work.plans), self.race
        race.join(first_probes(cuts, self._prior(batches)))
        images = self.fast_settings.first
        while race.open:
            seen = self._measure(watch(batches, f"{len(race.open)} cuts"), images)
            if not seen:
                raise DataError("A scan must have images. Received no batch. Check the data.")
            if seen < images:
                self.total = seen
            race.estimate(last=seen < images)
            more = next_probes(cuts, race.losses(), self.fast_settings.max_drop)
            race.join(more)
            if not more:
                images = math.ceil(max(seen, images) * self.fast_settings.growth)

    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Return the measured points: the baseline less the loss on the images of each point.

        No value and no end of an interval is one that the metric cannot have.
        """
        curves = dict[str, tuple[Point, ...]]()
        for layer, ratios in by_layer(tuple(self.work.plans)).items():
            points = []
            for ratio in ratios:
                found = self.race.known.get((layer, ratio))
                if found is not None:
                    points.append(self._point(ratio, found))
            curves[layer] = tuple(points)
        return curves

    def share_of_exact(self) -> float:
        """Return the evaluations (cuts times images) as a share of those of an exact scan."""
        done = sum(found.images for found in self.race.known.values())
        return done / (len(self.work.plans) * self.total) if self.total else 0.0

    def _point(self, ratio: float, found: Estimate) -> Point:
        dense, (low, high) = self.race.baseline, self._bounds()
        losses = (found.loss, found.loss + found.error, found.loss - found.error)
        value, *ends = (min(max(dense * (1 - loss), low), high) for loss in losses)
        return Point(ratio, value, (ends[0], ends[1]))

    def _bounds(self) -> tuple[float, float]:
        """Return the least and the greatest value of the metric.

        Metrics of tasks are shares; a function of the user's own may return any numbers.
        """
        known = not isinstance(self.work.evaluator, Mean) and 0 <= self.race.baseline <= 1
        return (0.0, 1.0) if known else (-math.inf, math.inf)

    def _prior(self, batches: Iterable[Any]) -> dict[str, float] | None:
        work = self.work
        for batch in batches:
            return prior_of(work.graph, work.model, work.evaluator, work.plans, batch)
        return None

    def _measure(self, batches: Iterable[Any], images: int) -> int:
        """Measure all open cuts on at least `images` images, or on all if there are fewer.

        Returns:
            The number of images.
        """
        race, seen = self.race, 0
        for place, batch in enumerate(batches):
            missing = race.missing(place)
            if missing:
                race.add(place, self._states(place, batch, missing))
            seen += len(race.running[BASELINE][place])
            if seen >= images:
                break
        return seen

    def _states(self, place: int, batch: Any, cuts: Sequence[LayerCut]) -> States:
        """Return the states of each image of a batch by cut, from the journal where it has them."""
        digest = digest_of_batch(batch)
        held = self.journal.held(place, digest)
        missing = [cut for cut in cuts if cut not in held and cut != BASELINE]
        if not missing and BASELINE in held:
            return held
        found: States = {}

        def take(cut: LayerCut, outputs: Any) -> None:
            if cut not in held:
                found[cut] = states_by_image(self.work.evaluator, outputs, batch)

        self.work.outputs(batch, missing, take)
        self.journal.add(place, digest, found)
        return {**held, **found}
