"""Rounds of a latency budget: solve, measure, correct the prediction of the table, solve again.

A table of layers orders plans well, but it lacks what the runtime fuses and what is no layer. So
the sum of layer times that the solver may spend is adjusted until the resulting network, measured,
lies within 3 % below the budget: a search for a root between the narrowest network and the dense
one, along a monotone curve through all measurements (Fritsch and Butland, A method for constructing
local monotone piecewise cubic interpolants, 1984). The caller provides the measurement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from flyweight.config.budget import Budget
from flyweight.errors import PlanError
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.on_demand import load
from flyweight.planning.budget_solver import latency_program
from flyweight.planning.knapsack import Option, Program, solved

_INTERPOLATOR = "scipy.interpolate:PchipInterpolator"  # loaded on first use
CLOSE = 0.03
"""A network meets a budget if it lies at most this share of the budget below it."""
_AIM = 1 - CLOSE / 2
_FINEST = 1e-3  # share of the dense network's sum; closer plans count as the same


@dataclass(frozen=True)
class Timing:
    """A pruned network's latency, measured in turns with the dense one.

    Attributes:
        latency_ms: Median of one inference.
        interval_ms: Its 95 % interval.
        dense_ms: Median of the dense network in the same measurement.
        note: A warning for the reader, such as a noisy machine.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    dense_ms: float
    note: str = ""


Measure = Callable[[Mapping[str, int]], Timing]
"""Builds the network that keeps so many channels of some groups, by name, and measures it."""


@dataclass(frozen=True)
class Round:
    """One network that was measured.

    Attributes:
        kept: Group with options to the number of its channels that stay.
        loss: Sum of the groups' predicted losses.
        sum_ms: Sum of the layers' times in the table.
        predicted_ms: Latency predicted from that sum and the rounds before; None in the first.
        limit_ms: The budget in ms; a share is taken of the dense network in the same measurement.
        timing: The measurement.
    """

    kept: Mapping[str, int]
    loss: float
    sum_ms: float
    predicted_ms: float | None
    limit_ms: float
    timing: Timing

    @property
    def spent(self) -> float:
        """Measured latency as a share of the budget."""
        return self.timing.latency_ms / self.limit_ms

    @property
    def met(self) -> bool:
        """Whether the network lies within the budget and at most 3 % below it."""
        return 1 - CLOSE <= self.spent <= 1

    def __str__(self) -> str:
        low, high = self.timing.interval_ms
        known = "" if self.predicted_ms is None else f"predicted {self.predicted_ms:.3f} ms, "
        return (
            f"{known}measured {self.timing.latency_ms:.3f} ms ({low:.3f} to {high:.3f}), "
            f"{100 * self.spent:.1f} % of the budget of {self.limit_ms:.3f} ms; "
            f"dense {self.timing.dense_ms:.3f} ms"
            + (f"; {self.timing.note}" if self.timing.note else "")
        )


@dataclass(frozen=True)
class Fitted:
    """The result of all rounds.

    Attributes:
        chosen: The round of least loss among those within the budget; None if the dense network
            is within it.
        rounds: All rounds.
    """

    chosen: Round | None
    rounds: tuple[Round, ...]

    @property
    def kept(self) -> Mapping[str, int]:
        """Group with options to the number of its channels that stay."""
        return {} if self.chosen is None else self.chosen.kept

    @property
    def verdict(self) -> str:
        """One sentence for the user."""
        count = f"{len(self.rounds)} network{'s' if len(self.rounds) > 1 else ''} measured"
        if self.chosen is None:
            return f"the dense network is within the budget: nothing is cut ({count})"
        below = f"{100 * (1 - self.chosen.spent):.1f} % below it"
        if self.chosen.met:
            return f"within the budget, {below} ({count})"
        return f"within the budget, {below}: no plan nearer to it was found ({count})"


def fit_latency(
    options: Mapping[str, Sequence[Option]],
    prices: LatencyPrices,
    budget: Budget,
    measure: Measure,
    *,
    rounds: int = 8,
    on_round: Callable[[Round], None] = lambda _: None,
) -> Fitted:
    """Return the plan of least predicted loss whose measured latency is within the budget.

    The narrowest network is measured first: it shows whether the budget can be met at all, and
    with the dense one it gives the scale of the table. Then plans are solved for and measured until
    one lies at most 3 % below the budget, no other plan is left between two measured ones, or
    `rounds` networks were measured.

    Args:
        options: Group to the widths that it can take, with their losses.
        prices: Prices of layers, from a table measured on the same runtime.
        budget: `latency_ms` or `latency_share`.
        measure: Measures a network.
        rounds: Largest number of networks to measure.
        on_round: Called with every round.

    Raises:
        PlanError: The budget limits something else, or the narrowest network exceeds it; the error
            message states its latency and the layers that take most of it.
    """
    if not budget.measured:
        raise PlanError(
            f"A budget to measure must limit latency. Received {budget.quantity}. "
            "Give latency_ms or latency_share."
        )
    search = _Search(options, prices, budget, measure, on_round)
    floor = search.begin()
    if floor.timing.dense_ms <= floor.limit_ms:
        return Fitted(None, tuple(search.rounds))
    if floor.spent > 1:
        raise PlanError(_infeasible(floor, prices, options))
    while len(search.rounds) < rounds and not search.rounds[-1].met:
        chosen = search.solve()
        if chosen is None:
            break
        search.measure_next(chosen)
    within = [found for found in search.rounds if found.spent <= 1]
    best = min(within, key=lambda found: (found.loss, -found.spent))
    return Fitted(best, tuple(search.rounds))


@dataclass
class _Search:
    """The bracket of the search: a sum of layer times that keeps the budget, and one that does not.

    Attributes:
        options: Widths and losses.
        prices: The table.
        budget: The budget.
        measure: Measures a network.
        on_round: Called with every round.
        rounds: The rounds so far.
        program: The integer program for the solver.
        low: Sum of layer times of the last network within the budget.
        high: Sum of layer times of the last network above it.
        spare: Least sum that the solver must be allowed to find another plan than that of `low`.
        dense: The dense network's latency as a share of the budget.
    """

    options: Mapping[str, Sequence[Option]]
    prices: LatencyPrices
    budget: Budget
    measure: Measure
    on_round: Callable[[Round], None]
    rounds: list[Round] = field(default_factory=list)
    program: Program = field(init=False)
    low: float = 0.0
    high: float = 0.0
    spare: float = 0.0
    dense: float = 0.0

    def __post_init__(self) -> None:
        self.program = latency_program(self.options, self.prices)

    def begin(self) -> Round:
        """Measure the narrowest network beside the dense one."""
        narrowest = {
            group: min(rows, key=lambda option: option.keep) for group, rows in self.options.items()
        }
        floor = self._measured(narrowest, None)
        self.dense = floor.timing.dense_ms / floor.limit_ms
        self.low = self.spare = floor.sum_ms
        self.high = self.prices.sum_ms({})
        return floor

    def solve(self) -> dict[str, Option] | None:
        """Return a plan that was not measured yet; None if none is left in the bracket."""
        finest = _FINEST * self.prices.sum_ms({})
        if self.high - self.spare <= finest:
            return None
        sums, shares = self._curve()
        wanted = float(np.interp(_AIM, shares, sums))
        while self.high - self.spare > finest:
            wanted = min(max(wanted, self.spare + finest / 2), self.high - finest / 2)
            chosen = solved(self.program, wanted)
            known = self._known(chosen)
            if known is None:
                return chosen
            if known.spent <= 1:
                self.spare = wanted
            else:
                self.high = min(known.sum_ms, wanted)
            wanted = (self.spare + self.high) / 2
        return None

    def measure_next(self, chosen: Mapping[str, Option]) -> None:
        """Measure a plan and narrow the bracket."""
        sum_ms = self.prices.sum_ms(_kept(chosen))
        sums, shares = self._curve()
        found = self._measured(chosen, float(np.interp(sum_ms, sums, shares)))
        if found.spent <= 1:
            self.low, self.spare = sum_ms, max(self.spare, sum_ms)
        else:
            self.high = sum_ms

    def _curve(self) -> tuple[Any, Any]:
        """Return sums of layers in the bracket and the share of the budget predicted for each.

        A monotone cubic goes through all that was measured, the dense network included.
        """
        points = {found.sum_ms: found.spent for found in self.rounds}
        points.setdefault(self.prices.sum_ms({}), self.dense)
        sums = np.array(sorted(points))
        shares = np.maximum.accumulate([points[each] for each in sums])
        between = np.linspace(self.low, self.high, 1001)
        return between, load(_INTERPOLATOR)(sums, shares)(between)

    def _measured(self, chosen: Mapping[str, Option], predicted: float | None) -> Round:
        kept = _kept(chosen)
        timing = self.measure(kept)
        limit = self.budget.latency_ms or timing.dense_ms * (self.budget.latency_share or 1)
        found = Round(
            kept=kept,
            loss=sum(option.loss for option in chosen.values()),
            sum_ms=self.prices.sum_ms(kept),
            predicted_ms=None if predicted is None else predicted * limit,
            limit_ms=limit,
            timing=timing,
        )
        self.rounds.append(found)
        self.on_round(found)
        return found

    def _known(self, chosen: Mapping[str, Option]) -> Round | None:
        kept = _kept(chosen)
        return next((found for found in self.rounds if found.kept == kept), None)


def _kept(chosen: Mapping[str, Option]) -> dict[str, int]:
    return {group: option.keep for group, option in chosen.items()}


def _infeasible(
    floor: Round, prices: LatencyPrices, options: Mapping[str, Sequence[Option]]
) -> str:
    low, high = floor.timing.interval_ms
    return (
        f"A latency budget must be one that the curves allow. Received {floor.limit_ms:.3f} ms, "
        f"which is infeasible: the floor is {floor.timing.latency_ms:.3f} ms ({low:.3f} to "
        f"{high:.3f}; dense {floor.timing.dense_ms:.3f}), because with every scanned layer as "
        f"narrow as its largest ratio there remain {_remains(floor, prices, options)}. Give more, "
        "or scan more layers or larger ratios, or take a smaller input."
    )


def _remains(floor: Round, prices: LatencyPrices, options: Mapping[str, Sequence[Option]]) -> str:
    """Name the three layers that take most of the floor, with their shares and why."""
    widths = {**prices.full(), **floor.kept}
    times = [(price.under(widths), price.layer) for price in prices.layers]
    total = sum(time for time, _ in times)
    parts = []
    for time, layer in sorted(times, key=itemgetter(0), reverse=True)[:3]:
        groups = [group for group, _ in layer.outputs.shares]
        reasons = [prices.graph.groups[group].reason for group in groups]
        if any(group in options for group in groups):
            why = "at its narrowest"
        elif not groups or any(reasons):
            why = "cannot be cut"
        else:
            why = "not scanned"
        parts.append(f"'{layer.name}' {100 * time / total:.0f} % ({why})")
    return f"{', '.join(parts)} of the layers' time"
