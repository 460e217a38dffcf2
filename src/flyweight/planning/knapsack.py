"""Knapsack with multiple choices and products, solved to the optimum by HiGHS (scipy's `milp`).

Every group takes one of its options; losses add up. A cost that depends on the options of two
groups is linearised exactly: one variable for every pair of options, whose sums over the options of
either group are the choices of the other.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.errors import PlanError
from flyweight.graph.cost import AxisSize
from flyweight.on_demand import load

# Loaded on first use: a command without a budget does without scipy.
_SCIPY = (
    "scipy.optimize:milp",
    "scipy.optimize:Bounds",
    "scipy.optimize:LinearConstraint",
    "scipy.sparse:csr_array",
)
Monomial = tuple[str, ...]
"""Names of the groups whose widths are multiplied, sorted."""


@dataclass(frozen=True)
class Option:
    """A width that a group can take, or a precision that a layer can have.

    Attributes:
        keep: Number of channels that stay, or of bits.
        loss: Predicted loss, in any unit.
    """

    keep: int
    loss: float


def expanded(
    axes: Sequence[AxisSize], full: Mapping[str, int], free: frozenset[str]
) -> dict[Monomial, float]:
    """Expand a product of sizes into monomials of the widths of free groups.

    A monomial has at most two groups: a third one counts with its full width.

    Args:
        axes: The sizes that are multiplied.
        full: Group to its full width.
        free: Groups whose width is not decided yet.
    """
    product: dict[Monomial, float] = {(): 1.0}
    for axis in axes:
        fixed = axis.fixed + sum(n * full[g] for g, n in axis.shares if g not in free)
        parts = Counter({g: n for g, n in axis.shares if g in free})
        following: dict[Monomial, float] = defaultdict(float)
        for monomial, value in product.items():
            following[monomial] += value * fixed
            for group, each in parts.items():
                whole = len(monomial) == 2
                longer = monomial if whole else tuple(sorted((*monomial, group)))
                following[longer] += value * each * (full[group] if whole else 1)
        product = {monomial: value for monomial, value in following.items() if value}
    return product


def solved(program: "Program", limit: float) -> dict[str, Option]:
    """Return one option for each group: the least summed loss with a cost of at most `limit`.

    Raises:
        PlanError: The solver found no solution.
    """
    most = (limit - program.fixed) / max(program.scale, 1.0)
    found = _optimum(program, program.losses, most)
    if found.x is None:
        raise PlanError(
            f"A budget must be one that can be solved for. Received {limit:,.6g}; the solver "
            f"reports: {found.message}. Give a little more."
        )
    return _chosen(program, found.x)


def cheapest(program: "Program") -> dict[str, Option]:
    """Return one option for each group: those of the least cost.

    Raises:
        PlanError: The solver found no solution.
    """
    found = _optimum(program, program.costs / max(program.scale, 1.0), np.inf)
    if found.x is None:
        raise PlanError(
            "The cheapest options must be found within a minute. Received a problem of "
            f"{program.count} variables; the solver reports: {found.message}. Leave out layers."
        )
    return _chosen(program, found.x)


def _optimum(program: "Program", objective: Any, most: float) -> Any:
    milp, bounds, linear_constraint, csr_array = map(load, _SCIPY)
    rows, columns, values, low, high = program.constraints()
    matrix = csr_array((values, (rows, columns)), shape=(len(low), program.count))
    cost = csr_array(program.costs[None, :] / max(program.scale, 1.0))
    return milp(
        objective,
        integrality=program.whole,
        bounds=bounds(0, 1),
        constraints=[linear_constraint(matrix, low, high), linear_constraint(cost, -np.inf, most)],
        options={"mip_rel_gap": 1e-6, "time_limit": 60.0},
    )


def _chosen(program: "Program", columns: Any) -> dict[str, Option]:
    return {
        group: rows[int(np.argmax(columns[place : place + len(rows)]))]
        for (group, rows), place in zip(
            program.options.items(), program.starts.values(), strict=True
        )
    }


class Program:
    """The integer program: its variables, their losses and their costs.

    Columns are variables: every option of every group, then every pair of options of two groups
    whose widths are multiplied.
    """

    def __init__(self, options: Mapping[str, Sequence[Option]]) -> None:
        self.options = options
        self.starts: dict[str, int] = {}
        self.pairs: dict[tuple[str, str], int] = {}
        self.count, self.fixed = 0, 0.0
        for group, rows in options.items():
            self.starts[group] = self.count
            self.count += len(rows)
        self._choices = self.count
        self._values: dict[int, Any] = defaultdict(float)

    def add(self, monomial: Monomial, value: float) -> None:
        """Add a term of the cost: `value` times the widths of the groups of the monomial."""
        if not monomial:
            self.fixed += value
        elif len(monomial) == 1 or monomial[0] == monomial[1]:
            power = len(monomial)
            for place, option in enumerate(self.options[monomial[0]]):
                self._values[self.starts[monomial[0]] + place] += value * option.keep**power
        else:
            one, other = monomial
            left = np.array([option.keep for option in self.options[one]], dtype=np.float64)
            right = np.array([option.keep for option in self.options[other]], dtype=np.float64)
            self.add_pairs(one, other, value * left[:, None] * right)

    def add_each(self, group: str, costs: Sequence[float]) -> None:
        """Add a cost for each option of a group."""
        for place, value in enumerate(costs):
            self._values[self.starts[group] + place] += value

    def add_pairs(self, one: str, other: str, costs: Any) -> None:
        """Add a cost for each pair of options: `(options of one, options of the other)`."""
        if (other, one) in self.pairs:
            one, other, costs = other, one, np.transpose(costs)
        start = self._pair(one, other)
        for place, value in enumerate(np.ravel(costs).tolist()):
            self._values[start + place] += value

    def _pair(self, one: str, other: str) -> int:
        if (one, other) not in self.pairs:
            self.pairs[one, other] = self.count
            self.count += len(self.options[one]) * len(self.options[other])
        return self.pairs[one, other]

    @property
    def costs(self) -> Any:
        """The cost of every column."""
        found = np.zeros(self.count)
        found[list(self._values)] = list(self._values.values())
        return found

    @property
    def scale(self) -> float:
        """A divisor of all costs: the solver is most accurate with numbers near one."""
        return float(self.costs.max(initial=1.0))

    @property
    def losses(self) -> Any:
        """The loss of every column."""
        found = np.zeros(self.count)
        for group, rows in self.options.items():
            start = self.starts[group]
            found[start : start + len(rows)] = [option.loss for option in rows]
        return found

    @property
    def whole(self) -> Any:
        """1 for the columns that must be whole numbers (options), 0 for pairs, which follow."""
        return (np.arange(self.count) < self._choices).astype(int)

    def constraints(self) -> tuple[list[int], list[int], list[float], list[float], list[float]]:
        """Return rows, columns and values of the equations, and their lower and upper sides."""
        entries: list[tuple[int, int, float]] = []
        sides: list[float] = []
        for group, rows in self.options.items():
            entries += [(len(sides), self.starts[group] + k, 1.0) for k in range(len(rows))]
            sides.append(1.0)
        for (one, other), start in self.pairs.items():
            across, down = len(self.options[other]), len(self.options[one])
            for i in range(down):
                entries += [(len(sides), start + i * across + j, 1.0) for j in range(across)]
                entries.append((len(sides), self.starts[one] + i, -1.0))
                sides.append(0.0)
            for j in range(across):
                entries += [(len(sides), start + i * across + j, 1.0) for i in range(down)]
                entries.append((len(sides), self.starts[other] + j, -1.0))
                sides.append(0.0)
        rows_, columns, values = (list(part) for part in zip(*entries, strict=True))
        return rows_, columns, values, sides, sides
