"""A scan that stops looking where it has seen enough: fewer images, fewer ratios, intervals.

It looks at a few cuts on a few images first. What the curves look like then says which cuts are
worth looking at, too (`probes`); these catch up. Then more images come, for the cuts that are not
known well enough yet (`race`), and so on. The images must come in an order in which every
beginning is like the whole.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.digests import digest_of_batch
from flyweight.errors import DataError
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.evaluator import states_by_image
from flyweight.sensitivity.fast.decisions import FastScanSettings, Race
from flyweight.sensitivity.fast.prior import prior_of
from flyweight.sensitivity.fast.probes import by_layer, first_probes, next_probes
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.measured_curves import Point
from flyweight.sensitivity.scanned_cuts import BASELINE, Cut

Watch = Callable[[Iterable[Any], str], Iterable[Any]]
"""Draws a bar over batches, under a label."""


@dataclass
class FastScan:
    """One fast scan.

    Attributes:
        work: Runs the cuts.
        journal: Keeps what is known of every image.
        pace: How sure to be.
        race: What is known.
    """

    work: CutRunner
    journal: Journal
    fast_settings: FastScanSettings
    race: Race

    @classmethod
    def of(cls, work: CutRunner, journal: Journal, fast_settings: FastScanSettings) -> "FastScan":
        """Return one that begins."""
        return cls(
            work,
            journal,
            fast_settings,
            Race(work.evaluator.primary, work.evaluator.metric, fast_settings),
        )

    def run(self, batches: Iterable[Any], watch: Watch) -> None:
        """Look at cuts until every curve is known well enough.

        Args:
            batches: Are gone over once for every look.
            watch: Shows how far that is.

        Raises:
            DataError: There are no batches, or they can be gone over only once.
        """
        if iter(batches) is batches:
            raise DataError(
                "A fast scan must be able to go over its batches again. Received an iterator, "
                "which is used up after once. Give a list or a data loader."
            )
        cuts, race = tuple(self.work.plans), self.race
        race.join(first_probes(cuts, self._prior(batches)))
        images = self.fast_settings.first
        while race.open:
            seen = self._go_over(watch(batches, f"{len(race.open)} cuts"), images)
            if not seen:
                raise DataError("A scan must have images. Received no batch. Check the data.")
            race.look(last=seen < images)
            more = next_probes(cuts, race.losses(), self.fast_settings.max_drop)
            race.join(more)
            if not more:
                images = math.ceil(max(seen, images) * self.fast_settings.growth)

    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Return the points that were looked at, as if all had seen the same images."""
        whole, curves = self.race.baseline, dict[str, tuple[Point, ...]]()
        for layer, ratios in by_layer(tuple(self.work.plans)).items():
            points = []
            for ratio in ratios:
                found = self.race.known.get((layer, ratio))
                if found is not None:
                    value = whole + found.change
                    ends = (value - found.error, value + found.error)
                    points.append(Point(ratio, value, ends))
            curves[layer] = tuple(points)
        return curves

    def _prior(self, batches: Iterable[Any]) -> dict[str, float] | None:
        work = self.work
        for batch in batches:
            return prior_of(work.graph, work.model, work.evaluator, work.plans, batch)
        return None

    def _go_over(self, batches: Iterable[Any], images: int) -> int:
        """Bring all open cuts to at least so many images, if there are as many.

        Returns:
            How many there were.
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

    def _states(self, place: int, batch: Any, cuts: Sequence[Cut]) -> States:
        """Return what each cut says of each image of a batch, from the journal if it knows."""
        digest = digest_of_batch(batch)
        held = self.journal.held(place, digest)
        missing = [cut for cut in cuts if cut not in held and cut != BASELINE]
        if not missing and BASELINE in held:
            return held
        found: States = {}

        def take(cut: Cut, outputs: Any) -> None:
            if cut not in held:
                found[cut] = states_by_image(self.work.evaluator, outputs, batch)

        self.work.outputs(batch, missing, take)
        self.journal.add(place, digest, found)
        return {**held, **found}
