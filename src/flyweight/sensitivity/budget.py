"""The least predicted loss within a budget: a multiple-choice knapsack over the widths of groups.

Every group takes one of its widths; losses of groups add up (what a scan predicts), and costs are
those of the whole network: a layer costs its inputs times its outputs, so two groups are priced
together. The products are linearised exactly (one share for every pair of choices, whose sums are
the choices), and the mixed-integer program is solved to the optimum by HiGHS (scipy's `milp`).
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from flyweight.errors import PlanError, nearest
from flyweight.graph.cost import AxisSize, Cost
from flyweight.graph.model_graph import ModelGraph

Monomial = tuple[str, ...]
"""Groups whose widths are multiplied, in order of their names."""
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Budget:
    """What a network may cost; exactly one of these is given.

    Attributes:
        macs: Multiply-adds: a number, or below 1 a share of the dense network's.
        params: Learnable values, likewise.
        size_bytes: Bytes of parameters and buffers, likewise.
    """

    macs: float | None = None
    params: float | None = None
    size_bytes: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        numbers = [v for v in given.values() if isinstance(v, (int, float)) and v > 0]
        if len(given) != 1 or len(numbers) != 1 or isinstance(numbers[0], bool):
            told = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "nothing"
            raise PlanError(
                "A budget must limit one thing, by a number above 0. "
                f"Received {told}. Give for example macs=0.5 to keep half, or params=2_000_000."
            )

    @property
    def quantity(self) -> str:
        """The name of what is limited."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def limit(self, dense: Cost) -> float:
        """Return the limit as a number, given the cost of the dense network."""
        value = float(getattr(self, self.quantity))
        return value * getattr(dense, self.quantity) if value < 1 else value

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `macs=0.5`, as the command line has it.

        Raises:
            PlanError: The text cannot be meant.
        """
        name, _, value = text.partition("=")
        known = [f.name for f in fields(cls)]
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in known or number <= 0:
            raise PlanError(
                f"A budget must read QUANTITY=NUMBER. Received '{text}'. "
                f"{nearest(name, known)} Example: macs=0.5"
            )
        return cls(**{name: number})


@dataclass(frozen=True)
class Option:
    """A width that a group can take.

    Attributes:
        keep: Channels that stay.
        loss: What it is predicted to cost, in any unit.
    """

    keep: int
    loss: float


def solve(
    graph: ModelGraph, options: Mapping[str, Sequence[Option]], budget: Budget
) -> dict[str, Option]:
    """Return one option for each group: the least loss in all that the budget allows.

    Groups without options keep their width.

    Raises:
        PlanError: The budget cannot be met even by the narrowest options; the floor is told.
    """
    full = {name: group.size for name, group in graph.groups.items()}
    least = {**full, **{name: min(o.keep for o in rows) for name, rows in options.items()}}
    dense, floor = graph.cost(), graph.costs.price(least)
    limit, quantity = budget.limit(dense), budget.quantity
    if getattr(floor, quantity) > limit:
        raise PlanError(
            f"A budget must be one that the curves allow. Received {quantity} {limit:,.0f}; the "
            f"floor is {getattr(floor, quantity):,} of {getattr(dense, quantity):,}, with every "
            "scanned layer as narrow as its largest ratio. Give more, or scan more layers or "
            "larger ratios."
        )
    terms = _terms(graph, quantity, frozenset(options))
    return _solved(options, terms, limit)


def _terms(graph: ModelGraph, quantity: str, free: frozenset[str]) -> dict[Monomial, float]:
    """Return the cost as a polynomial in the widths of the free groups."""
    full = {name: group.size for name, group in graph.groups.items()}
    found: dict[Monomial, float] = defaultdict(float)
    for factor, axes in _products(graph, quantity):
        for monomial, value in _expanded(axes, full, free).items():
            found[monomial] += factor * value
    return dict(found)


def _products(graph: ModelGraph, quantity: str) -> Iterator[tuple[float, tuple[AxisSize, ...]]]:
    if quantity == "macs":
        for op in graph.costs.ops:
            yield float(op.positions), op.axes
        return
    for tensor in graph.costs.tensors:
        if quantity == "size_bytes" or tensor.learnable:
            yield float(tensor.itemsize if quantity == "size_bytes" else 1), tensor.axes


def _expanded(
    axes: Sequence[AxisSize], full: Mapping[str, int], free: frozenset[str]
) -> dict[Monomial, float]:
    """Multiply sizes out; a third width in a product counts as if it stayed whole."""
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


def _solved(
    options: Mapping[str, Sequence[Option]], terms: Mapping[Monomial, float], limit: float
) -> dict[str, Option]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    program = _Program(options)
    for monomial, value in terms.items():
        program.add(monomial, value)
    rows, columns, values, low, high = program.constraints()
    shape = (len(low), program.count)
    matrix = csr_array((values, (rows, columns)), shape=shape)
    room = (limit - program.fixed) / max(program.scale, 1.0)
    cost = csr_array(program.costs[None, :] / max(program.scale, 1.0))
    found = milp(
        program.losses,
        integrality=program.whole,
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(matrix, low, high), LinearConstraint(cost, -np.inf, room)],
        options={"mip_rel_gap": 1e-6, "time_limit": 60.0},
    )
    if found.x is None:
        raise PlanError(
            f"A budget must be one that can be solved for. Received {limit:,.0f}; the solver says: "
            f"{found.message}. Give a little more."
        )
    chosen = {
        group: int(np.argmax(found.x[place : place + len(rows)]))
        for (group, rows), place in zip(options.items(), program.starts.values(), strict=True)
    }
    return {group: options[group][index] for group, index in chosen.items()}


class _Program:
    """Columns: every option of every group, then every pair of options of groups that meet."""

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
        """Add a term of the cost."""
        if not monomial:
            self.fixed += value
        elif len(monomial) == 1 or monomial[0] == monomial[1]:
            power = len(monomial)
            for place, option in enumerate(self.options[monomial[0]]):
                self._values[self.starts[monomial[0]] + place] += value * option.keep**power
        else:
            one, other = monomial
            start = self._pair(one, other)
            sizes = itertools.product(self.options[one], self.options[other])
            for place, (left, right) in enumerate(sizes):
                self._values[start + place] += value * left.keep * right.keep

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
        """A cost to divide all costs by: solvers like numbers near one."""
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
        """1 for the columns that must be whole: options. Pairs follow from them."""
        return (np.arange(self.count) < self._choices).astype(int)

    def constraints(self) -> tuple[list[int], list[int], list[float], list[float], list[float]]:
        """Return rows, columns and values of the equations, and their sides."""
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
