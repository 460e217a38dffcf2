"""A scan that stops looking where it has seen enough: fewer pictures, fewer ratios, intervals.

It goes in waves. A wave looks at some cuts over a beginning of the data that grows until each of
them is known well enough (`race`); what the curves look like then says which cuts the next wave
looks at (`probes`). The pictures must come in an order in which every beginning is like the whole.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.errors import DataError
from flyweight.sensitivity.curves import Point
from flyweight.sensitivity.cuts import BASELINE, Cut
from flyweight.sensitivity.digests import digest_of_batch
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.judge import states_by_picture
from flyweight.sensitivity.prior import prior_of
from flyweight.sensitivity.probes import by_layer, first_probes, next_probes
from flyweight.sensitivity.race import Estimate, Pace, Race
from flyweight.sensitivity.variants import Variants

Watch = Callable[[Iterable[Any], str], Iterable[Any]]
"""Draws a bar over batches, under a label."""


@dataclass
class FastScan:
    """One fast scan.

    Attributes:
        work: Runs the cuts.
        journal: Keeps what is known of every picture.
        pace: How sure to be.
        known: What is known of the cuts.
        longest: States of the dense network on the pictures that were looked at.
    """

    work: Variants
    journal: Journal
    pace: Pace
    known: dict[Cut, Estimate]
    longest: list[Any]

    @classmethod
    def of(cls, work: Variants, journal: Journal, pace: Pace) -> "FastScan":
        """Return one that begins."""
        return cls(work, journal, pace, {}, [])

    def run(self, batches: Iterable[Any], watch: Watch) -> None:
        """Look at cuts until every curve is known well enough.

        Args:
            batches: Are gone over once in every wave.
            watch: Shows how far a wave is.

        Raises:
            DataError: There are no batches, or they can be gone over only once.
        """
        if iter(batches) is batches:
            raise DataError(
                "A fast scan must be able to go over its batches again. Received an iterator, "
                "which is used up after once. Give a list or a data loader."
            )
        cuts = tuple(self.work.plans)
        wanted, wave = first_probes(cuts, self._prior(batches)), 1
        while wanted:
            label = f"wave {wave}: {len(wanted)} cuts"
            self.known |= self._wave(watch(batches, label), wanted)
            baseline = self.baseline
            losses = {
                cut: -found.change / baseline if baseline > 0 else 0.0
                for cut, found in self.known.items()
            }
            wanted, wave = next_probes(cuts, losses, self.pace.max_drop), wave + 1

    @property
    def baseline(self) -> float:
        """The metric of the dense network on all pictures that were looked at."""
        metric = self.work.judge.metric()
        for state in self.longest:
            metric.merge(state)
        return float(metric.compute()[self.work.judge.primary])

    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Return the points that were looked at, as if all had seen the same pictures."""
        whole, curves = self.baseline, dict[str, tuple[Point, ...]]()
        for layer, ratios in by_layer(tuple(self.work.plans)).items():
            points = []
            for ratio in ratios:
                found = self.known.get((layer, ratio))
                if found is not None:
                    value = whole + found.change
                    ends = (value - found.error, value + found.error)
                    points.append(Point(ratio, value, ends))
            curves[layer] = tuple(points)
        return curves

    def _prior(self, batches: Iterable[Any]) -> dict[str, float] | None:
        work = self.work
        for batch in batches:
            return prior_of(work.graph, work.model, work.judge, work.plans, batch)
        return None

    def _wave(self, batches: Iterable[Any], wanted: Sequence[Cut]) -> dict[Cut, Estimate]:
        judge = self.work.judge
        race = Race.of(judge.primary, judge.metric, self.pace, wanted)
        for place, batch in enumerate(batches):
            race.add(self._states(place, batch, race.open))
            if not race.open:
                break
        if not race.running[BASELINE]:
            raise DataError("A scan must have pictures. Received no batch. Check the data.")
        if len(race.running[BASELINE]) > len(self.longest):
            self.longest = race.running[BASELINE]
        return race.finish()

    def _states(self, place: int, batch: Any, cuts: Sequence[Cut]) -> States:
        """Return what each cut says of each picture of a batch, from the journal if it knows."""
        digest = digest_of_batch(batch)
        held = self.journal.held(place, digest)
        missing = [cut for cut in cuts if cut not in held]
        if not missing:
            return held
        found: States = {}

        def take(cut: Cut, outputs: Any) -> None:
            if cut not in held:
                found[cut] = states_by_picture(self.work.judge, outputs, batch)

        self.work.outputs(batch, missing, take)
        self.journal.add(place, digest, found)
        return {**held, **found}
