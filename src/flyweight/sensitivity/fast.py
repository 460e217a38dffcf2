"""A scan that stops looking where it has seen enough: fewer pictures, fewer ratios, intervals.

It looks at a few cuts on a few pictures first. What the curves look like then says which cuts are
worth looking at, too (`probes`); these catch up. Then more pictures come, for the cuts that are not
known well enough yet (`race`), and so on. The pictures must come in an order in which every
beginning is like the whole.
"""

import math
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
from flyweight.sensitivity.race import Pace, Race
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
        race: What is known.
    """

    work: Variants
    journal: Journal
    pace: Pace
    race: Race

    @classmethod
    def of(cls, work: Variants, journal: Journal, pace: Pace) -> "FastScan":
        """Return one that begins."""
        return cls(work, journal, pace, Race(work.judge.primary, work.judge.metric, pace))

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
        pictures = self.pace.first
        while race.open:
            seen = self._go_over(watch(batches, f"{len(race.open)} cuts"), pictures)
            if not seen:
                raise DataError("A scan must have pictures. Received no batch. Check the data.")
            race.look(last=seen < pictures)
            more = next_probes(cuts, race.losses(), self.pace.max_drop)
            race.join(more)
            if not more:
                pictures = math.ceil(max(seen, pictures) * self.pace.growth)

    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Return the points that were looked at, as if all had seen the same pictures."""
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
            return prior_of(work.graph, work.model, work.judge, work.plans, batch)
        return None

    def _go_over(self, batches: Iterable[Any], pictures: int) -> int:
        """Bring all open cuts to at least so many pictures, if there are as many.

        Returns:
            How many there were.
        """
        race, seen = self.race, 0
        for place, batch in enumerate(batches):
            missing = race.missing(place)
            if missing:
                race.add(place, self._states(place, batch, missing))
            seen += len(race.running[BASELINE][place])
            if seen >= pictures:
                break
        return seen

    def _states(self, place: int, batch: Any, cuts: Sequence[Cut]) -> States:
        """Return what each cut says of each picture of a batch, from the journal if it knows."""
        digest = digest_of_batch(batch)
        held = self.journal.held(place, digest)
        missing = [cut for cut in cuts if cut not in held and cut != BASELINE]
        if not missing and BASELINE in held:
            return held
        found: States = {}

        def take(cut: Cut, outputs: Any) -> None:
            if cut not in held:
                found[cut] = states_by_picture(self.work.judge, outputs, batch)

        self.work.outputs(batch, missing, take)
        self.journal.add(place, digest, found)
        return {**held, **found}
