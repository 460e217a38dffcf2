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

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from flyweight.graph.cost import AxisSize
from flyweight.graph.cutting import numbers_in
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.predictions import Place
from flyweight.graph.program import Run
from flyweight.graph.recording import Copies
from flyweight.graph.trial_runs import Divergence, Settling, TrialRuns
from flyweight.graph.width_numbers import WidthNumbers, attribute_of, width_numbers

_MOST_PAIRS = 4
"""How many pairs of widths are tied on trial at one place; each try costs a run."""
_MOST_IDLE = 8
"""How many modules that are never called are searched for numbers."""
_MOST_CALLS = 30_000
"""Bound of the operations in all trials together. Beyond it, all groups near a place are frozen
without a search for the smallest set, so that a trace always ends within seconds."""
_REACH = 200
"""How many operations before and after a place are searched for sizes that its code may know."""


def followable(
    copies: Copies, walk: Settling, runs: Sequence[Run], whole: Container[str]
) -> ModelGraph:
    """Return the graph of the groups that the model's code follows.

    Args:
        copies: Of what was traced.
        walk: The walk through its runs.
        runs: What was recorded.
        whole: Names of operations to record whole.
    """
    trial = _Trial(copies, walk, runs, whole)
    trial.settle()
    graph = replace(trial.graph, numbers=trial.sizes_of(trial.numbers))
    widths = width_numbers(copies.model, graph)
    numbers = {**graph.numbers, **trial.without_effect(widths)}
    return replace(graph, numbers=numbers, notes=widths.notes())


class _Trial(TrialRuns):
    """Runs trial cuts until all run as predicted."""

    def __init__(
        self, copies: Copies, walk: Settling, runs: Sequence[Run], whole: Container[str]
    ) -> None:
        super().__init__(copies, walk, runs, whole)
        self.first_call: list[dict[str, int]] = [{} for _ in runs]
        for first, predictions in zip(self.first_call, self.predicted, strict=True):
            for index, prediction in enumerate(predictions):
                first.setdefault(prediction.where, index)
        # A module that is never called may be used by its methods, in the forward of another
        # module. The few nearest to the root are searched for numbers too.
        idle = [path for path in self.modules if path not in self.first_call[0]]
        idle = [path for path in idle if numbers_in(self.modules[path])]
        self.idle = sorted(idle, key=lambda path: path.count("."))[:_MOST_IDLE]
        self.most_runs = _MOST_CALLS // (len(self.predicted[0]) + 1)

    def settle(self) -> None:
        """Repair, tie or freeze until every trial runs as predicted."""
        passed = 0
        while passed < len(checks := self._checks()):
            self.pattern, self.current = checks[passed]
            self._choose_kept()
            divergence = self._run()
            # A remedy for one check may change the run of another: all must pass once more.
            passed = passed + 1 if divergence is None else 0
            while divergence is not None:
                divergence = self._remedy(divergence)

    def without_effect(self, widths: WidthNumbers) -> Mapping[str, AxisSize]:
        """Return the numbers that no run reads: with them, trials do exactly as without them.

        A number that a run reads and that equals a width by chance (a shift, a count of layers)
        changes an argument or the operations, though perhaps no shape.
        """
        if not widths.doubtful or self._runs_with(widths.sizes):
            return widths.sizes
        found = {path: size for path, size in widths.sizes.items() if path not in widths.doubtful}
        for name in sorted(set(map(attribute_of, widths.doubtful))):
            same = {path for path in widths.doubtful if attribute_of(path) == name}
            tried = {path: size for path, size in widths.sizes.items() if path in same}
            if self.count <= self.most_runs and self._runs_with({**found, **tried}):
                found |= tried
        return found

    def _runs_with(self, sizes: Mapping[str, AxisSize]) -> bool:
        first = {self.runs_recorded[at].mode: (pattern, at) for pattern, at in self._checks()[::-1]}
        for self.pattern, self.current in first.values():
            self._choose_kept()
            without, with_sizes = self._recorded({}), self._recorded(sizes)
            if without is None or with_sizes is None:
                return False
            if not with_sizes.same_as(without, constants=True):
                return False
        return True

    def _remedy(self, divergence: Divergence) -> Divergence | None:
        # In this order, because a repair keeps all freedom, a tie some and a freeze none.
        for remedy in (self._repair, self._tie, self._freeze):
            after = remedy(divergence)
            if after is not divergence:
                return after
        return divergence

    def _better(self, after: Divergence | None, before: Divergence) -> bool:
        # A remedy is kept only if the run gets further. A number that merely equals a width by
        # chance makes no run get further, so it keeps its value.
        return after is None or after.at > before.at

    def _repair(self, divergence: Divergence) -> Divergence | None:
        """Try numbers of the module, and of those around it, with the sizes they stand for.

        One number at a time, then all together: code that uses two of them in one operation runs
        only when both are right.
        """
        for path in (*_inside_out(divergence.where), *self.idle):
            candidates = self._candidates(path, divergence)
            singles = [{key: place} for key, place in candidates.items()]
            for tried in singles if len(singles) < 2 else [*singles, candidates]:
                if self.count > self.most_runs:
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

    def _candidates(self, path: str, divergence: Divergence) -> dict[str, Place]:
        """Return numbers of the module that equal a size which changes, and where it is met."""
        held = numbers_in(self.modules[path])
        found: dict[str, Place] = {}
        for place, size in self._near(divergence) if held else ():
            for key, value in held.items():
                if value == size.under(self.full):
                    found.setdefault(key, place)
        return found

    def _near(self, divergence: Divergence) -> Iterator[tuple[Place, AxisSize]]:
        """Yield sizes that change and may be written in the code there, the likeliest first.

        The order is: the operation itself, those of the same module, those of its parts, then the
        few operations before it, whose result shapes its code may have read.
        """
        at, where, run = divergence.index, divergence.where, divergence.run
        predictions = self.predicted[run]
        around = range(max(at - _REACH, 0), min(at + _REACH, len(predictions)))
        nearest = sorted(around, key=lambda index: abs(index - at))
        paths = {index: predictions[index].where for index in around}
        own = [index for index in nearest if paths[index] == where]
        parts = [index for index in nearest if where and paths[index].startswith(f"{where}.")]
        before = range(at - 1, max(at - 12, 0) - 1, -1)
        for index in dict.fromkeys([at, *own, *parts, *before]):
            for (tensor, axis), size in predictions[index].sizes():
                if self._changes(size):
                    yield (run, index, tensor, axis), size

    def _numbers_alike(self, path: str, key: str, place: Place) -> dict[str, Place]:
        """Return the same number of other modules of the same class.

        Networks repeat their blocks. Without this, each of a hundred blocks would cost trials of
        its own.
        """
        found = {}
        where = self.predicted[place[0]][place[1]].where
        for other, there in self._alike(place):
            module = _counterpart(path, where, other)
            held = numbers_in(self.modules[module]) if module in self.modules else {}
            size = self._size(there)
            if size is not None and held.get(key) == size.under(self.full):
                found[_join(module, key)] = there
        return {name: there for name, there in found.items() if name not in self.numbers}

    def _alike(self, place: Place) -> Iterator[tuple[str, Place]]:
        """Yield the same place in the same call of other modules of the same class."""
        run, index, tensor, axis = place
        predictions, firsts = self.predicted[run], self.first_call[run]
        op, where = predictions[index].op, predictions[index].where
        offset = index - firsts[where]
        kind = type(self.modules.get(where))
        for other, first in firsts.items():
            there = first + offset
            if other == where or type(self.modules.get(other)) is not kind:
                continue
            if there < len(predictions) and predictions[there].op == op:
                yield other, (run, there, tensor, axis)

    def _tie(self, divergence: Divergence) -> Divergence | None:
        """Tie two widths of one size, of which the code knows one: `C // self.num_heads`."""
        for one, other in self._pairs(divergence):
            if self.count > self.most_runs:
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

    def _pairs(self, divergence: Divergence) -> list[tuple[Place, Place]]:
        """Return places of equal size that different groups make, the nearest first."""
        met: dict[tuple[str, int], tuple[Place, int]] = {}
        for place, size in self._near(divergence):
            # The ends of a slice are sizes, too, but no axis that could be tied.
            ends = self.predicted[place[0]][place[1]].is_window(place[2])
            if len(size.shares) == 1 and size.fixed == 0 and not ends:
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
        found: list[tuple[Place, Place]] = []
        predictions = self.predicted[one[0]]
        for _, first in self._alike(one):
            index = first[1] + other[1] - one[1]
            if not 0 <= index < len(predictions):
                continue
            second = (one[0], index, *other[2:])
            left, right = self._size(first), self._size(second)
            if left is None or right is None or not (left.shares and right.shares):
                continue
            same_op = predictions[index].op == predictions[other[1]].op
            if same_op and left.under(self.full) == right.under(self.full):
                found.append((first, second))
        return found

    def _freeze(self, divergence: Divergence) -> Divergence | None:
        """Freeze the groups at the place; a single one of them where that is enough."""
        suspects = self._suspects(divergence)
        if self.count <= self.most_runs and len(suspects) > 1:
            for suspect, place in suspects.items():
                if self._better(self._run(whole=frozenset([suspect])), divergence):
                    suspects = {suspect: place}
                    break
        reasons = dict.fromkeys(suspects, self._why(divergence, divergence.where))
        for place in suspects.values():
            for other, there in self._alike_blocks(divergence, place):
                size = self._size(there)
                for group, _ in size.shares if size is not None else ():
                    reasons.setdefault(group, self._why(divergence, other))
        for group, reason in reasons.items():
            if self.graph.groups[group].reason is None:
                self.walk.freeze(group, reason)
        self._settle_walk()
        return self._run()

    def _why(self, divergence: Divergence, where: str) -> str:
        op = self.predicted[divergence.run][divergence.index].op
        place = f"{op} at '{where}'" if where else f"{op} in the model's forward"
        if divergence.value:
            return f"has a width that the model's code computes a value of: {place}"
        return f"has a size that the model's code writes by hand: {place}"

    def _alike_blocks(
        self, divergence: Divergence, place: Place | None
    ) -> Iterator[tuple[str, Place]]:
        """Yield the same place around the same step of other modules of the same class.

        The class is that of the module whose code diverges: networks repeat their blocks.
        """
        firsts, predictions = self.first_call[divergence.run], self.predicted[divergence.run]
        kind = type(self.modules.get(divergence.where))
        if place is None or not divergence.where or not _is_block(self.modules[divergence.where]):
            return
        step = predictions[divergence.index]
        for other, first in firsts.items():
            shift = first - firsts[divergence.where]
            there, near = divergence.index + shift, place[1] + shift
            if other == divergence.where or type(self.modules.get(other)) is not kind:
                continue
            if not (0 <= near < len(predictions) and there < len(predictions)):
                continue
            same = (predictions[there].op, predictions[there].where) == (step.op, other)
            if same and predictions[near].op == predictions[place[1]].op:
                yield other, (divergence.run, near, *place[2:])

    def _suspects(self, divergence: Divergence) -> Mapping[str, Place | None]:
        """Return the cut groups met nearest to the place, each with where it is met."""
        near: dict[str, Place | None] = {}
        nearest: int | None = None
        for place, size in self._near(divergence):
            if nearest not in {None, place[1]}:
                break
            nearest = place[1]
            for group, _ in size.shares:
                if self.kept[group] < self.full[group]:
                    near.setdefault(group, place)
        return near or dict.fromkeys(
            group for group, stays in self.kept.items() if stays < self.full[group]
        )


def _is_block(module: nn.Module) -> bool:
    """Whether a module has code that computes with widths.

    Layers and containers of PyTorch have none; they stand in unrelated places. Its blocks, such as
    attention, hold layers and parameters.
    """
    if type(module).__module__.split(".")[0] != "torch":
        return True
    return bool(module._modules) and bool(module._parameters)


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
