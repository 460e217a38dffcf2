"""Runs of trial cuts: narrowed networks that run on shapes and are compared with their prediction.

`trial_cuts` decides what to do where a run differs.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from flyweight.graph.cost import AxisSize
from flyweight.graph.cutting import cut_tensors, set_numbers, zero_reads
from flyweight.graph.groups import ChannelGroup, orders_among, removed_positions
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.predictions import OtherValueError, Place, Prediction, PredictionCheck
from flyweight.graph.program import Mode, Run
from flyweight.graph.recording import Copies, run
from flyweight.graph.stored import clone_structure

_SHARES = (2, 3, 5, 7, 4)
"""One of so many channels leaves, group by group. The shares differ so that two cut widths rarely
agree by chance: code that takes one width for another must not pass a trial."""
_COUNTING_NAMES = """
    view reshape unflatten expand repeat split split_with_sizes tensor_split slice unfold arange
    zeros ones full empty new_zeros new_ones new_full new_empty broadcast_to unsafe_split
    unsafe_split_with_sizes linspace
"""
_COUNTING = frozenset(_COUNTING_NAMES.split())
"""Operations that take sizes. Code without any of them writes no size by hand, and one trial is
enough to show it."""

_Kind = tuple[Mode, bool]
"""Mode of a run, and whether it was on values."""
Numbers = Mapping[str, Place]
"""Whole numbers of modules by path, each with the place in the run of the size that it repeats."""


@dataclass(frozen=True)
class _Pattern:
    """What trials differ in.

    Attributes:
        start: Where the shares begin, so that every group is cut to several widths.
        inexact: Whether groups whose cut is not exact are cut too. One trial leaves them whole,
            because a plan may: code may follow when both of two groups are cut and not when one is.
            The code may compute other values of their width only where they are cut.
        part: Of the groups that share an axis, every second one is cut, from this one on; None cuts
            all. Code that takes a fraction of a width follows only if all parts are cut alike.
    """

    start: int
    inexact: bool
    part: int | None = None


_PATTERNS = (_Pattern(0, True), _Pattern(1, False), _Pattern(3, True))
_PART_PATTERNS = (_Pattern(0, False, 0), _Pattern(2, False, 1))


class Settling(Protocol):
    """The walk of a trace, as far as the trials change it."""

    def settled(self) -> tuple[ModelGraph, tuple[tuple[Prediction, ...], ...]]:
        """Return the graph and, for every run, the prediction of every step, as things stand."""

    def tie(self, one: Place, other: Place) -> None:
        """Declare that equal positions of two axes leave together."""

    def untie(self) -> None:
        """Take the last `tie` back."""

    def freeze(self, group: str, reason: str) -> None:
        """Declare that a group of the last `settled` graph cannot be cut."""


@dataclass(frozen=True)
class Divergence:
    """The first call that does not run as predicted.

    Attributes:
        run: Which run.
        index: The step of it.
        where: The module it happened in.
        value: Whether the sizes are as predicted and another number is computed with.
    """

    run: int
    index: int
    where: str
    value: bool = False

    @property
    def at(self) -> tuple[int, bool]:
        """How far the run came."""
        return self.index, self.value


class TrialRuns:
    """Runs a trial cut of one pattern in one of the recorded runs."""

    def __init__(
        self, copies: Copies, walk: Settling, runs: Sequence[Run], whole: Container[str]
    ) -> None:
        self.walk, self.runs_recorded, self.whole = walk, runs, whole
        self.modules = dict(copies.model.named_modules())
        self.copies = copies
        self.dense: dict[_Kind, nn.Module] = {}
        self.numbers: Numbers = {}
        self.count = 0
        self.pattern, self.current = _PATTERNS[0], 0
        self._settle_walk()

    def _settle_walk(self) -> None:
        self.graph, self.predicted = self.walk.settled()
        self.full = {name: group.size for name, group in self.graph.groups.items()}
        self._choose_kept()

    def _choose_kept(self) -> None:
        self.kept = {}
        self.narrow: dict[_Kind, nn.Module] = {}
        whole = self._whole_parts()
        for place, (name, group) in enumerate(self.graph.groups.items(), self.pattern.start):
            free = group.reason is None and (group.exact or self.pattern.inexact)
            share = _SHARES[place % len(_SHARES)] if self.pattern.part is None else 2
            leaving = max(group.size // share, 1) if free and name not in whole else 0
            self.kept[name] = max(group.size - leaving, 1)

    def _whole_parts(self) -> set[str]:
        """Return the groups that the pattern leaves whole because others on their axis are cut."""
        if self.pattern.part is None:
            return set()
        return {
            group.name
            for parts in _groups_on_one_axis(self.graph)
            for place, group in enumerate(parts)
            if place % 2 != self.pattern.part
        }

    def _checks(self) -> list[tuple[_Pattern, int]]:
        """Return the trials that must pass: patterns of cuts, each with the run that is tried."""
        groups = self.graph.groups.values()
        counts = [any(p.op in _COUNTING for p in steps) for steps in self.predicted]
        patterns = [_PATTERNS[0]]
        if counts[0]:
            patterns = [*_PATTERNS, *(_PART_PATTERNS if _groups_on_one_axis(self.graph) else ())]
        elif any(not group.exact and group.reason is None for group in groups):
            # Values are compared only where all cuts are exact.
            patterns = list(_PATTERNS[:2])
        others = [run for run, steps in enumerate(self.predicted) if run and steps]
        return [
            *((pattern, 0) for pattern in patterns),
            *((patterns[0], run) for run in others),
        ]

    def sizes_of(self, numbers: Numbers) -> dict[str, AxisSize]:
        """Return what the numbers stand for."""
        found = {path: self._size(place) for path, place in numbers.items()}
        return {path: size for path, size in found.items() if size is not None}

    def _size(self, place: Place) -> AxisSize | None:
        return self.predicted[place[0]][place[1]].size(*place[2:])

    def _changes(self, size: AxisSize) -> bool:
        return size.under(self.kept) != size.under(self.full)

    def _run(
        self, numbers: Numbers | None = None, whole: frozenset[str] = frozenset()
    ) -> Divergence | None:
        """Run a trial cut that leaves the groups `whole` uncut; return where it diverges."""
        self.count += 1
        kept = {name: self.full[name] if name in whole else n for name, n in self.kept.items()}
        if kept == self.full:
            return None
        recorded = self.runs_recorded[self.current]
        predictions = self.predicted[self.current]
        twin = self._twin(kept, (recorded.mode, recorded.on_values), whole)
        sizes = self.sizes_of(self.numbers if numbers is None else numbers)
        set_numbers(twin, {path: size.under(kept) for path, size in sizes.items()})
        values, exact = recorded.on_values, self._cuts_exactly(kept)
        check = PredictionCheck(predictions, kept, values=values, exact=exact)
        try:
            run(twin, recorded.example, self.whole, values=values, mode=recorded.mode, watch=check)
        except Exception as error:  # noqa: BLE001 - any error of the code means that it does not follow the cut
            at = min(check.place_of_failure(), len(predictions) - 1)
            value = isinstance(error, OtherValueError)
            if check.comparable or self._runs_zeroed(kept, recorded):
                return Divergence(self.current, at, predictions[at].where, value)
        return None

    def _recorded(self, further: Mapping[str, AxisSize]) -> Run | None:
        """Return what the trial cut does with further numbers set; None where it fails."""
        self.count += 1
        recorded = self.runs_recorded[self.current]
        values, mode = recorded.on_values, recorded.mode
        twin = self._twin(self.kept, (mode, values), frozenset())
        sizes = {**further, **self.sizes_of(self.numbers)}
        set_numbers(twin, {path: size.under(self.kept) for path, size in sizes.items()})
        try:
            return run(twin, recorded.example, self.whole, values=values, mode=mode)
        except Exception:  # noqa: BLE001 - any error of the code means that it does not run so
            return None

    def _runs_zeroed(self, kept: Mapping[str, int], recorded: Run) -> bool:
        """Whether the dense network runs with the values that the cut leaves.

        The other values that a cut leads to may be what the code fails on, not the other sizes.
        """
        twin = clone_structure(self._dense((recorded.mode, recorded.on_values)))
        groups = self.graph.groups
        leaving = {name: range(n, self.full[name]) for name, n in kept.items()}
        zero_reads(twin, ((groups[name].members, self.full[name], leaving[name]) for name in kept))
        try:
            run(twin, recorded.example, self.whole, values=True, mode=recorded.mode)
        except Exception:  # noqa: BLE001 - any error means that values alone make the code fail
            return False
        return True

    def _cuts_exactly(self, kept: Mapping[str, int]) -> bool:
        groups = self.graph.groups
        return all(groups[name].exact for name, n in kept.items() if n < self.full[name])

    def _dense(self, kind: _Kind) -> nn.Module:
        # Not the copies that were traced: their forward may have written into itself.
        if kind not in self.dense:
            self.dense[kind] = self.copies.make(values=kind[1], mode=kind[0])
        return self.dense[kind]

    def _twin(self, kept: Mapping[str, int], kind: _Kind, whole: frozenset[str]) -> nn.Module:
        if whole:
            return self._cut(kept, kind)
        # Most trials of a pattern differ in their numbers alone: tensors are cut once for all.
        if kind not in self.narrow:
            self.narrow[kind] = self._cut(kept, kind)
        return clone_structure(self.narrow[kind])

    def _cut(self, kept: Mapping[str, int], kind: _Kind) -> nn.Module:
        twin = clone_structure(self._dense(kind))
        # Which channels leave does not matter to shapes, so the last ones do.
        groups = self.graph.groups
        cuts = ((groups[name].members, self.full[name], range(n)) for name, n in kept.items())
        orders = orders_among(groups[name].members for name in kept)
        cut_tensors(twin, removed_positions(cuts), orders)
        return twin


def _groups_on_one_axis(graph: ModelGraph) -> list[list[ChannelGroup]]:
    """Return the groups that can be cut and share an axis of a stored tensor, axis by axis."""
    found: dict[tuple[str, int], list[ChannelGroup]] = {}
    for group in graph.groups.values():
        if group.prunable:
            for member in group.producers():
                on_axis = found.setdefault((member.tensor, member.axis), [])
                if group not in on_axis:
                    on_axis.append(group)
    return [parts for parts in found.values() if len(parts) > 1]
