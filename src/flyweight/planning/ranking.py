"""Ranking of the channels of all groups: those that cost much and matter little leave first."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from flyweight.config.budget import Budget
from flyweight.config.cuts import require_counted, require_multiple
from flyweight.errors import PlanError, nearest
from flyweight.graph.cost import AxisSize, CostModel
from flyweight.graph.groups import ChannelGroup
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning.criteria import Criterion, Scores, makers
from flyweight.pruning.make_plan import free_groups, groups_of, layers_in
from flyweight.pruning.mixed import mixed_groups, note_on_limits
from flyweight.pruning.names import resolve_group
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.scoring import criterion_name, find_criterion, scores_of

Normalise = Literal["mean", "max", "lamp", "none"]
Quantity = Literal["macs", "params", "size_bytes"]


class Shares(TypedDict, total=False):
    """The keywords of version 0.1.0: the share of one quantity that stays, below 1."""

    macs: float | None
    params: float | None


@dataclass(frozen=True)
class Limits:
    """The groups that a ranking may cut, and how far.

    Attributes:
        groups: Names of groups, or of any layer of them; None for all that can be cut.
        max_ratio: Largest share of a group's channels that leaves, rounded; never all of them.
        inexact: Allow groups whose channels pass an operation that mixes them.
    """

    groups: tuple[str, ...] | None = None
    max_ratio: float = 0.9
    inexact: bool = False


def plan_globally(
    graph: ModelGraph,
    criterion: str | Criterion = "l1_norm",
    *,
    budget: Budget | None = None,
    normalise: Normalise | None = None,
    round_to: int = 1,
    limits: Limits = Limits(),
    **shares: Unpack[Shares],
) -> PruningPlan:
    """Choose how many channels of which group leave, until the network is within a budget.

    Channels of all groups compete. The one whose score is smallest for what its removal saves goes
    first; savings are those of the network as it is by then, for all layers that shrink with the
    channel together (a layer's outputs and its readers' inputs). A smaller budget continues the
    same sequence, so it removes a superset.

    Args:
        graph: From `trace`.
        criterion: As in `plan`; scores must not be negative.
        budget: What the network may cost: `Budget(macs=0.3)` keeps at most 30 % of the
            multiply-adds, `Budget(params=2_000_000)` at most so many learnable values. (A ratio of
            `plan` is a share of channels to remove.)
        normalise: How scores of different groups become comparable. `none` leaves them as they are;
            it is the default for a criterion with an attribute `comparable` that is true, such as
            `taylor`, whose scores have one unit. `lamp`, the default for the others, squares scores
            and divides each by the sum of those not smaller (Lee et al. 2021, arXiv 2010.07611), so
            that the last channels of a group are expensive, however little all of them differ.
            `mean` and `max` divide by the group's mean or largest score. With each of these three,
            a channel counts once for every layer that makes it, because each of them loses one.
        round_to: Widths that change become multiples; a whole block leaves at a time.
        limits: Which groups may be cut and how far.
        shares: `macs` or `params` in place of `budget`: the share that stays, below 1. Version
            0.1.0 had these; `budget` is preferred.

    Raises:
        PlanError: A value is invalid, or the budget cannot be met within the limits.
    """
    limit = _limit(budget, dict(shares))
    require_multiple(round_to)
    scorer = find_criterion(criterion)
    how = normalise or ("none" if getattr(scorer, "comparable", False) else "lamp")
    _check_choice(how)
    groups = _candidates(graph, limits)
    queues = []
    for group in groups:
        scores = _comparable(group, scores_of(scorer, group, graph), how)
        queues.append(_Queue(scores, _floor(group.size, limits.max_ratio, round_to), round_to))
    quantity: Any = limit.quantity
    prices = _Prices(graph, quantity, groups)
    target = limit.value * prices.total if limit.value < 1 else limit.value
    _remove_cheapest(queues, prices, target)
    notes = _notes_on_mixed(graph, limits, round_to, quantity)
    if prices.total > target:
        raise _missed(limit, prices.share, notes)
    keep = {group.name: queue.kept() for group, queue in zip(groups, queues, strict=True)}
    made_by = f"{criterion_name(criterion)}, all groups ranked, {limit}"
    return PruningPlan.of(graph, keep, made_by, notes)


def _missed(limit: Budget, share: float, notes: Sequence[str]) -> PlanError:
    text = (
        f"A budget must be one that the limits allow. Received {limit}; what may be cut leaves "
        f"{share:.3g}. Give a larger budget, a larger max_ratio or more groups."
    )
    return PlanError(" ".join([text, *notes]))


def _notes_on_mixed(
    graph: ModelGraph, limits: Limits, round_to: int, quantity: Quantity
) -> tuple[str, ...]:
    """Return a note on the mixed groups that a ranking of every group leaves whole."""
    if limits.inexact or limits.groups is not None:
        return ()
    exact, others = (
        {group.name: _floor(group.size, limits.max_ratio, round_to) for group in groups}
        for groups in (graph.prunable().values(), mixed_groups(graph))
    )
    note = note_on_limits(graph, exact, {**exact, **others}, quantity)
    return () if note is None else (note,)


def _limit(budget: Budget | None, shares: dict[str, Any]) -> Budget:
    """Return the one limit that was given, by `budget` or by the keywords of version 0.1.0."""
    unknown = next((name for name in shares if name not in Shares.__annotations__), None)
    if unknown is not None:
        raise TypeError(f"plan_globally() got an unexpected keyword argument '{unknown}'")
    given = {name: value for name, value in shares.items() if value is not None}
    if budget is not None and not given:
        require_counted(budget)
        return budget
    valid = [
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
        for value in given.values()
    ]
    if budget is not None or valid != [True]:
        received = ", ".join(f"{name}={shares.get(name)!r}" for name in Shares.__annotations__)
        received += "" if budget is None else f" and budget={budget}"
        raise PlanError(
            "A ranking must have one budget: budget=Budget(...), or a share that stays, strictly "
            f"between 0 and 1, as macs or params. Received {received}. Give "
            "budget=Budget(macs=0.5) to keep half."
        )
    return Budget(**given)


def _check_choice(normalise: str) -> None:
    if normalise not in _NORMALISE:
        raise PlanError(
            f"Scores are made comparable by one of {', '.join(_NORMALISE)}. Received "
            f"'{normalise}'. {nearest(normalise, _NORMALISE)}"
        )


def _candidates(graph: ModelGraph, limits: Limits) -> list[ChannelGroup]:
    """Return the groups that may be cut, in the graph's order."""
    ratio = limits.max_ratio
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if not number or not 0 < float(ratio) <= 1:
        raise PlanError(
            "max_ratio must be above 0 and at most 1 (the largest share of a group's channels to "
            f"remove). Received {ratio!r}. Leave a group out to keep it whole."
        )
    if limits.groups is None:
        every = graph.groups.values()
        return [g for g in every if g.reason is None and (g.exact or limits.inexact)]
    layers = layers_in(graph)
    chosen: set[str] = set()
    for name in limits.groups:
        known = resolve_group(name, graph.groups, graph.tensors)
        free, _ = free_groups(name, groups_of(known, graph, layers), inexact=limits.inexact)
        chosen.update(group.name for group in free)
    return [group for name, group in graph.groups.items() if name in chosen]


def _floor(size: int, max_ratio: float, round_to: int) -> int:
    """Return how many channels stay at least."""
    least = max(size - round(size * max_ratio), 1)
    return min(-(-least // round_to) * round_to, size)


def _comparable(group: ChannelGroup, scores: Scores, normalise: str) -> Scores:
    if scores.min() < 0:
        raise PlanError(
            "Scores that are ranked over all groups must not be negative. Received "
            f"{scores.min():g} for group '{group.name}'. Use a criterion whose zero means useless."
        )
    layers = 1 if normalise == "none" else len(makers(group))
    return layers * _NORMALISE[normalise](scores)


def _by_mean(scores: Scores) -> Scores:
    return scores / (scores.mean() or 1.0)


def _by_max(scores: Scores) -> Scores:
    return scores / (scores.max() or 1.0)


def _by_larger_ones(scores: Scores) -> Scores:
    order = np.argsort(scores, kind="stable")
    squares = np.square(scores[order] / (scores.max() or 1.0))
    shares = np.empty_like(scores)
    shares[order] = squares / np.maximum(np.cumsum(squares[::-1])[::-1], np.finfo(float).tiny)
    return shares


def _as_they_are(scores: Scores) -> Scores:
    return scores


_NORMALISE: dict[str, Callable[[Scores], Scores]] = {
    "mean": _by_mean,
    "max": _by_max,
    "lamp": _by_larger_ones,
    "none": _as_they_are,
}


class _Queue:
    """The channels of one group in the order in which they leave; of equals, the first ones."""

    def __init__(self, scores: Scores, floor: int, round_to: int) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._scores = scores[self._order]
        self._floor, self._round_to = floor, round_to
        self.gone = 0

    def block(self) -> int:
        """Return how many channels leave next together; 0 if none may."""
        left = len(self._order) - self.gone
        after = (left - 1) // self._round_to * self._round_to
        return left - after if after >= self._floor else 0

    def loss(self) -> float:
        """Return the score of the next block."""
        return float(self._scores[self.gone : self.gone + self.block()].sum())

    def kept(self) -> tuple[int, ...]:
        """Return the channels that stay."""
        return tuple(sorted(self._order[self.gone :].tolist()))


class _Prices:
    """The cost of the network while channels are removed.

    A cost is a sum of products of axis sizes. The sizes are kept as a table, one row per product;
    each group knows its rows, and by how much one channel reduces every size in them.
    """

    def __init__(
        self, graph: ModelGraph, quantity: Quantity, groups: Sequence[ChannelGroup]
    ) -> None:
        products = list(_products(graph.costs, quantity))
        width = max((len(axes) for _, axes in products), default=0)
        full = {name: group.size for name, group in graph.groups.items()}
        self._factors = np.array([factor for factor, _ in products], dtype=np.int64)
        self._sizes = np.ones((len(products), width), dtype=np.int64)
        steps: dict[str, dict[int, NDArray[np.int64]]] = {group.name: {} for group in groups}
        for row, (_, axes) in enumerate(products):
            for column, axis in enumerate(axes):
                self._sizes[row, column] = axis.under(full)
                for name, each in axis.shares:
                    if name in steps:
                        step = steps[name].setdefault(row, np.zeros(width, dtype=np.int64))
                        step[column] += each
        self._steps = [
            (np.array(list(rows), dtype=np.int64), np.array(list(rows.values())).reshape(-1, width))
            for rows in steps.values()
        ]
        self.total = int((self._factors * self._sizes.prod(axis=1)).sum())
        self._dense = self.total

    @property
    def share(self) -> float:
        """The cost as a share of the dense network's."""
        return self.total / self._dense if self._dense else 1.0

    def saving(self, place: int, count: int) -> int:
        """Return how much the removal of `count` channels of a group saves now."""
        rows, steps = self._steps[place]
        sizes = self._sizes[rows]
        fewer = sizes.prod(axis=1) - (sizes - count * steps).prod(axis=1)
        return int((self._factors[rows] * fewer).sum())

    def remove(self, place: int, count: int) -> None:
        """Remove `count` channels from a group."""
        self.total -= self.saving(place, count)
        rows, steps = self._steps[place]
        self._sizes[rows] -= count * steps


def _products(costs: CostModel, quantity: Quantity) -> Iterable[tuple[int, tuple[AxisSize, ...]]]:
    if quantity == "macs":
        return ((op.positions, op.axes) for op in costs.ops)
    if quantity == "size_bytes":
        return ((tensor.itemsize, tensor.axes) for tensor in costs.tensors)
    return ((1, tensor.axes) for tensor in costs.tensors if tensor.learnable)


def _remove_cheapest(queues: Sequence[_Queue], prices: _Prices, target: float) -> None:
    """Remove block after block, the smallest loss per saving first; of equals, the earlier group.

    Savings only shrink while channels are removed, so the loss per saving of a block only grows: an
    entry of the heap is never too large, and a first entry that is up to date is the smallest.
    """

    def rank(place: int) -> tuple[float, int] | None:
        count = queues[place].block()
        saving = prices.saving(place, count) if count else 0
        return (queues[place].loss() / saving, place) if saving else None

    heap = [entry for entry in map(rank, range(len(queues))) if entry is not None]
    heapq.heapify(heap)
    while heap and prices.total > target:
        _, place = heapq.heappop(heap)
        entry = rank(place)
        if entry is None:
            continue
        if heap and entry > heap[0]:
            heapq.heappush(heap, entry)
            continue
        count = queues[place].block()
        prices.remove(place, count)
        queues[place].gone += count
        following = rank(place)
        if following is not None:
            heapq.heappush(heap, following)
