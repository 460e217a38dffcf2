"""Trial cuts: runs of narrowed networks that show which cuts the code of a model follows.

The rules of a trace say which channels can leave together. They do not say whether the model's own
code still runs then: code that counts channels by hand (`view(n, self.num_heads, -1)`) runs after a
cut only if the number that it counts with is changed too. No analysis of the code finds that out
in general, so the cut network is run, on shapes alone, and compared with its prediction.

Where a run leaves its prediction, three things are tried in turn (design note 0010): give the whole
numbers of the module their predicted values; tie two widths that the code takes for one; freeze the
groups there. Each of them only takes freedom away or changes a number, so that none can make a cut
wrong that was right.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import nn

from flyweight.graph.cost import AxisSize
from flyweight.graph.cutting import cut_tensors, numbers_in, set_numbers
from flyweight.graph.example_inputs import Example
from flyweight.graph.groups import orders_among, removed_positions
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.predictions import Place, Prediction, PredictionCheck
from flyweight.graph.recording import private_copy, run
from flyweight.graph.stored import clone_structure

_MOST_PAIRS = 4
"""How many pairs of widths are tied on trial at one place; each try costs a run."""
_MOST_IDLE = 8
"""How many modules that are never called are searched for numbers."""
_MOST_CALLS = 30_000
"""Bound of the operations in all trials together. Beyond it, all groups near a place are frozen
without a search for the smallest set, so that a trace always ends within seconds."""
_REACH = 200
"""How many operations before and after a place are searched for sizes that its code may know."""
_SHARES = (2, 3, 5, 7, 4)
"""One of so many channels leaves, group by group. The shares differ so that two cut widths rarely
agree by chance: code that takes one width for another must not pass a trial."""
_PATTERNS = ((0, True), (1, False), (3, True))
"""What the trials differ in: where the shares begin, so that every group is cut to several widths,
and whether groups whose cut is not exact are cut too. One trial leaves them whole, because a plan
may: code may follow when both of two groups are cut and not when one is."""
_COUNTING = """
    view reshape unflatten expand repeat split split_with_sizes tensor_split slice unfold arange
    zeros ones full empty new_zeros new_ones new_full new_empty broadcast_to
"""
"""Operations that take sizes. Code without any of them writes no size by hand, and one trial is
enough to show it."""

Numbers = Mapping[str, Place]
"""Whole numbers of modules by path, each with the place in the run of the size that it repeats."""


class Settling(Protocol):
    """The walk of a trace, as far as the trials change it."""

    def settled(self) -> tuple[ModelGraph, tuple[Prediction, ...]]:
        """Return the graph and the prediction of every call, as things stand."""

    def tie(self, one: Place, other: Place) -> None:
        """Declare that equal positions of two axes leave together."""

    def untie(self) -> None:
        """Take the last `tie` back."""

    def freeze(self, group: str, reason: str) -> None:
        """Declare that a group of the last `settled` graph cannot be cut."""


def followable(
    model: nn.Module,
    example: Example,
    walk: Settling,
    whole: Container[str],
    *,
    values: bool,
) -> ModelGraph:
    """Return the graph of the groups that the model's code follows.

    Args:
        model: What was traced; it is not changed.
        example: The inputs it was traced with.
        walk: The walk through its calls.
        whole: Names of operations to record whole.
        values: Whether the trace ran on the values of the example.
    """
    trial = _Trial(model, example, walk, whole, values)
    trial.settle()
    return replace(trial.graph, numbers=trial.sizes_of(trial.numbers))


@dataclass(frozen=True)
class _Divergence:
    """The first call that does not run as predicted, and the module it happened in."""

    index: int
    where: str


class _Trial:
    """Runs trial cuts until one runs as predicted."""

    def __init__(
        self,
        model: nn.Module,
        example: Example,
        walk: Settling,
        whole: Container[str],
        values: bool,
    ) -> None:
        self.example, self.walk = example, walk
        self.whole, self.values = whole, values
        self.modules = dict(model.named_modules())
        # Not the copy that was traced: its forward may have written into itself.
        self.dense = private_copy(model, values=values)
        self.numbers: Numbers = {}
        self.runs = 0
        self.pattern = _PATTERNS[0]
        self.first_call: dict[str, int] = {}
        self._settle_walk()
        for index, prediction in enumerate(self.predictions):
            self.first_call.setdefault(prediction.where, index)
        # A module that is never called may be used by its methods, in the forward of another
        # module. The few nearest to the root are searched for numbers too.
        idle = [path for path in self.modules if path not in self.first_call]
        idle = [path for path in idle if numbers_in(self.modules[path])]
        self.idle = sorted(idle, key=lambda path: path.count("."))[:_MOST_IDLE]
        self.most_runs = _MOST_CALLS // (len(self.predictions) + 1)

    def _settle_walk(self) -> None:
        self.graph, self.predictions = self.walk.settled()
        self.full = {name: group.size for name, group in self.graph.groups.items()}
        self._choose_kept()

    def _choose_kept(self) -> None:
        start, inexact = self.pattern
        self.kept = {}
        self.narrow: nn.Module | None = None
        for place, (name, group) in enumerate(self.graph.groups.items(), start):
            free = group.reason is None and (group.exact or inexact)
            leaving = max(group.size // _SHARES[place % len(_SHARES)], 1) if free else 0
            self.kept[name] = max(group.size - leaving, 1)

    def settle(self) -> None:
        """Repair, tie or freeze until every trial runs as predicted."""
        counts = any(prediction.op in _COUNTING.split() for prediction in self.predictions)
        patterns = _PATTERNS if counts else _PATTERNS[:1]
        passed = 0
        while passed < len(patterns):
            self.pattern = patterns[passed]
            self._choose_kept()
            divergence = self._run()
            # A remedy for one pattern may change the run of another: all must pass once more.
            passed = passed + 1 if divergence is None else 0
            while divergence is not None:
                divergence = self._remedy(divergence)

    def _remedy(self, divergence: _Divergence) -> _Divergence | None:
        # In this order, because a repair keeps all freedom, a tie some and a freeze none.
        for remedy in (self._repair, self._tie, self._freeze):
            after = remedy(divergence)
            if after is not divergence:
                return after
        return divergence

    def sizes_of(self, numbers: Numbers) -> dict[str, AxisSize]:
        """Return what the numbers stand for."""
        found = {path: self._size(place) for path, place in numbers.items()}
        return {path: size for path, size in found.items() if size is not None}

    def _size(self, place: Place) -> AxisSize | None:
        return self.predictions[place[0]].size(*place[1:])

    def _changes(self, size: AxisSize) -> bool:
        return size.under(self.kept) != size.under(self.full)

    def _run(
        self, numbers: Numbers | None = None, whole: frozenset[str] = frozenset()
    ) -> _Divergence | None:
        """Run a trial cut that leaves the groups `whole` uncut; return where it diverges."""
        self.runs += 1
        kept = {name: self.full[name] if name in whole else n for name, n in self.kept.items()}
        if kept == self.full:
            return None
        if whole:
            twin = self._cut(kept)
        else:
            # Most trials of a pattern differ in their numbers alone: tensors are cut once for all.
            self.narrow = self.narrow or self._cut(kept)
            twin = clone_structure(self.narrow)
        sizes = self.sizes_of(self.numbers if numbers is None else numbers)
        set_numbers(twin, {path: size.under(kept) for path, size in sizes.items()})
        check = PredictionCheck(self.predictions, kept, values=self.values)
        try:
            run(twin, self.example, self.whole, values=self.values, watch=check)
        except Exception:  # noqa: BLE001 - any error of the code means that it does not follow the cut
            at = min(check.count, len(self.predictions) - 1)
            return _Divergence(at, self.predictions[at].where)
        return None

    def _cut(self, kept: Mapping[str, int]) -> nn.Module:
        twin = clone_structure(self.dense)
        # Which channels leave does not matter to shapes, so the last ones do.
        groups = self.graph.groups
        cuts = ((groups[name].members, self.full[name], range(n)) for name, n in kept.items())
        orders = orders_among(groups[name].members for name in kept)
        cut_tensors(twin, removed_positions(cuts), orders)
        return twin

    def _better(self, after: _Divergence | None, before: _Divergence) -> bool:
        # A remedy is kept only if the run gets further. A number that merely equals a width by
        # chance makes no run get further, so it keeps its value.
        return after is None or after.index > before.index

    def _repair(self, divergence: _Divergence) -> _Divergence | None:
        """Try numbers of the module, and of those around it, with the sizes they stand for.

        One number at a time, then all together: code that uses two of them in one operation runs
        only when both are right.
        """
        for path in (*_inside_out(divergence.where), *self.idle):
            candidates = self._candidates(path, divergence)
            singles = [{key: place} for key, place in candidates.items()]
            for tried in singles if len(singles) < 2 else [*singles, candidates]:
                if self.runs > self.most_runs:
                    return divergence
                numbers = dict(self.numbers)
                for key, place in tried.items():
                    numbers[_join(path, key)] = place
                    numbers |= self._numbers_alike(path, key, place)
                after = self._run(numbers)
                if self._better(after, divergence):
                    self.numbers = numbers
                    return after
        return divergence

    def _candidates(self, path: str, divergence: _Divergence) -> dict[str, Place]:
        """Return numbers of the module that equal a size which changes, and where it is met."""
        held = numbers_in(self.modules[path])
        found: dict[str, Place] = {}
        for place, size in self._near(divergence) if held else ():
            for key, value in held.items():
                if value == size.under(self.full):
                    found.setdefault(key, place)
        return found

    def _near(self, divergence: _Divergence) -> Iterator[tuple[Place, AxisSize]]:
        """Yield sizes that change and may be written in the code there, the likeliest first.

        The order is: the operation itself, those of the same module, those of its parts, then the
        few operations before it, whose result shapes its code may have read.
        """
        at, where = divergence.index, divergence.where
        around = range(max(at - _REACH, 0), min(at + _REACH, len(self.predictions)))
        nearest = sorted(around, key=lambda index: abs(index - at))
        paths = {index: self.predictions[index].where for index in around}
        own = [index for index in nearest if paths[index] == where]
        parts = [index for index in nearest if where and paths[index].startswith(f"{where}.")]
        before = range(at - 1, max(at - 12, 0) - 1, -1)
        for index in dict.fromkeys([at, *own, *parts, *before]):
            for (tensor, axis), size in self.predictions[index].sizes():
                if self._changes(size):
                    yield (index, tensor, axis), size

    def _numbers_alike(self, path: str, key: str, place: Place) -> dict[str, Place]:
        """Return the same number of other modules of the same class.

        Networks repeat their blocks. Without this, each of a hundred blocks would cost trials of
        its own.
        """
        found = {}
        where = self.predictions[place[0]].where
        for other, there in self._alike(place):
            module = _counterpart(path, where, other)
            held = numbers_in(self.modules[module]) if module in self.modules else {}
            size = self._size(there)
            if size is not None and held.get(key) == size.under(self.full):
                found[_join(module, key)] = there
        return {name: there for name, there in found.items() if name not in self.numbers}

    def _alike(self, place: Place) -> Iterator[tuple[str, Place]]:
        """Yield the same place in the same call of other modules of the same class."""
        index, tensor, axis = place
        op, where = self.predictions[index].op, self.predictions[index].where
        offset = index - self.first_call[where]
        kind = type(self.modules.get(where))
        for other, first in self.first_call.items():
            there = first + offset
            if other == where or type(self.modules.get(other)) is not kind:
                continue
            if there < len(self.predictions) and self.predictions[there].op == op:
                yield other, (there, tensor, axis)

    def _tie(self, divergence: _Divergence) -> _Divergence | None:
        """Tie two widths of one size, of which the code knows one: `C // self.num_heads`."""
        for one, other in self._pairs(divergence):
            if self.runs > self.most_runs:
                return divergence
            numbers, ties = self.numbers, [(one, other), *self._ties_alike(one, other)]
            for tie in ties:
                self.walk.tie(*tie)
            self._settle_walk()
            after = self._run()
            if not self._better(after, divergence):
                # Tied widths often need a number as well: heads that leave with the width.
                repaired = self._repair(after) if after is not None else None
                after = repaired if self._better(repaired, divergence) else after
            if self._better(after, divergence):
                return after
            self.numbers = numbers
            for _ in ties:
                self.walk.untie()
            self._settle_walk()
        return divergence

    def _pairs(self, divergence: _Divergence) -> list[tuple[Place, Place]]:
        """Return places of equal size that different groups make, the nearest first."""
        met: dict[tuple[str, int], tuple[Place, int]] = {}
        for place, size in self._near(divergence):
            if len(size.shares) == 1 and size.fixed == 0:
                met.setdefault(size.shares[0], (place, size.under(self.full)))
        found = list(met.values())
        pairs = [
            (one, other)
            for index, (other, second) in enumerate(found)
            for one, first in found[:index]
            if first == second
        ]
        return pairs[:_MOST_PAIRS]

    def _ties_alike(self, one: Place, other: Place) -> list[tuple[Place, Place]]:
        """Return the same two places, equally far apart, around other modules of the class."""
        found = []
        for _, first in self._alike(one):
            index = first[0] + other[0] - one[0]
            if not 0 <= index < len(self.predictions):
                continue
            second = (index, *other[1:])
            left, right = self._size(first), self._size(second)
            if left is None or right is None or not (left.shares and right.shares):
                continue
            same_op = self.predictions[index].op == self.predictions[other[0]].op
            if same_op and left.under(self.full) == right.under(self.full):
                found.append((first, second))
        return found

    def _freeze(self, divergence: _Divergence) -> _Divergence | None:
        """Freeze the groups at the place; a single one of them where that is enough."""
        suspects = self._suspects(divergence)
        if self.runs <= self.most_runs and len(suspects) > 1:
            for suspect, place in suspects.items():
                if self._better(self._run(whole=frozenset([suspect])), divergence):
                    suspects = {suspect: place}
                    break
        index = divergence.index
        reasons = dict.fromkeys(suspects, _why(self.predictions[index].op, divergence.where))
        for place in suspects.values():
            for other, there in self._alike(place):
                size = self._size(there)
                for group, _ in size.shares if size is not None else ():
                    reasons.setdefault(group, _why(self.predictions[index].op, other))
        for group, reason in reasons.items():
            if self.graph.groups[group].reason is None:
                self.walk.freeze(group, reason)
        self._settle_walk()
        return self._run()

    def _suspects(self, divergence: _Divergence) -> dict[str, Place]:
        """Return the cut groups met nearest to the place, each with where it is met."""
        near: dict[str, Place] = {}
        nearest: int | None = None
        for place, size in self._near(divergence):
            if nearest not in {None, place[0]}:
                break
            nearest = place[0]
            for group, _ in size.shares:
                if self.kept[group] < self.full[group]:
                    near.setdefault(group, place)
        return near or {
            group: (0, 0, 0) for group, stays in self.kept.items() if stays < self.full[group]
        }


def _why(op: str, where: str) -> str:
    place = f"{op} at '{where}'" if where else f"{op} in the model's forward"
    return f"has a size that the model's code writes by hand: {place}"


def _inside_out(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _counterpart(path: str, where: str, other: str) -> str:
    """Return the module that is to `other` what `path`, the same or around it, is to `where`."""
    inner = where[len(path) :].lstrip(".")
    if not inner:
        return other
    return other[: -len(inner) - 1] if path and other.endswith(f".{inner}") else "\0"
