"""The least predicted loss within a budget: a multiple-choice knapsack over the widths of groups.

Every group takes one of its widths; losses of groups add up (what a scan predicts), and costs are
those of the whole network: a layer costs its inputs times its outputs, so two groups are priced
together. Latency is looked up in a table of layers by the widths of inputs and outputs alike.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from flyweight.errors import PlanError, nearest
from flyweight.graph.cost import AxisSize, Cost
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.knapsack import Monomial, Option, Program, expanded, solved

LATENCIES = ("latency_ms", "latency_share")


@dataclass(frozen=True)
class Budget:
    """What a network may cost; exactly one of these is given.

    Attributes:
        macs: Multiply-adds: a number, or below 1 a share of the dense network's.
        params: Learnable values, likewise.
        size_bytes: Bytes of parameters and buffers, likewise.
        latency_ms: Milliseconds of one inference on the runtime; never a share, because networks
            take less than one, too.
        latency_share: The same as a share of the dense network's, below 1.
    """

    macs: float | None = None
    params: float | None = None
    size_bytes: float | None = None
    latency_ms: float | None = None
    latency_share: float | None = None

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
        if self.latency_share is not None and self.latency_share >= 1:
            raise PlanError(
                "latency_share must be below 1, a share of the dense network's latency. Received "
                f"{self.latency_share:g}. Give milliseconds as latency_ms."
            )

    @property
    def quantity(self) -> str:
        """The name of what is limited."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def measured(self) -> bool:
        """Whether it limits what only a runtime can tell."""
        return self.quantity in LATENCIES

    def limit(self, dense: Cost) -> float:
        """Return the limit as a number, given the cost of the dense network.

        Raises:
            AttributeError: It limits latency, which is no part of that cost.
        """
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


def solve(
    graph: ModelGraph,
    options: Mapping[str, Sequence[Option]],
    budget: Budget,
    latency: LatencyPrices | None = None,
) -> dict[str, Option]:
    """Return one option for each group: the least loss in all that the budget allows.

    Groups without options keep their width. A latency budget is met as the table predicts it,
    which is not measured: see `fit_latency`.

    Raises:
        PlanError: The budget cannot be met even by the narrowest options; the floor is told. Or it
            limits latency, and no table is given.
    """
    least = {name: min(o.keep for o in rows) for name, rows in options.items()}
    if budget.measured:
        return _solved_latency(options, least, budget, required(latency))
    full = {name: group.size for name, group in graph.groups.items()}
    dense, floor = graph.cost(), graph.costs.price({**full, **least})
    limit, quantity = budget.limit(dense), budget.quantity
    if getattr(floor, quantity) > limit:
        raise PlanError(
            f"A budget must be one that the curves allow. Received {quantity} {limit:,.0f}; the "
            f"floor is {getattr(floor, quantity):,} of {getattr(dense, quantity):,}, with every "
            "scanned layer as narrow as its largest ratio. Give more, or scan more layers or "
            "larger ratios."
        )
    program = Program(options)
    for monomial, value in _terms(graph, quantity, frozenset(options)).items():
        program.add(monomial, value)
    return solved(program, limit)


def required(latency: LatencyPrices | None) -> LatencyPrices:
    """Return the prices.

    Raises:
        PlanError: There are none.
    """
    if latency is None:
        raise PlanError(
            "A latency budget must come with a table of layers measured on the runtime. Received "
            "none. Make one with: flyweight bench --layers -c CONFIG --save layers.json, and give "
            "it as --latency-table layers.json"
        )
    return latency


def _solved_latency(
    options: Mapping[str, Sequence[Option]],
    least: Mapping[str, int],
    budget: Budget,
    latency: LatencyPrices,
) -> dict[str, Option]:
    dense, floor = latency.predict_ms({}), latency.predict_ms(least)
    limit = budget.latency_ms or dense * (budget.latency_share or 1)
    if floor > limit:
        raise PlanError(
            f"A budget must be one that the curves allow. Received {limit:.3f} ms; the floor is "
            f"{floor:.3f} of {dense:.3f} ms as the table predicts it, with every scanned layer as "
            "narrow as its largest ratio. Give more, or scan more layers or larger ratios."
        )
    return solved(latency_program(options, latency), limit / latency.scale)


def latency_program(options: Mapping[str, Sequence[Option]], latency: LatencyPrices) -> Program:
    """Return the program whose costs are the layers' times, in ms as the table has them.

    A layer between two groups costs what the table says for every pair of their options. One that
    more than two groups meet in (after a concatenation) costs what the plane nearest to its times
    says.
    """
    program, full = Program(options), latency.full()
    free = frozenset(options)
    for price in latency.layers:
        axes = (price.layer.inputs, price.layer.outputs)
        groups = list(dict.fromkeys(g for axis in axes for g, _ in axis.shares if g in free))
        if not groups:
            program.fixed += price.under(full)
        elif len(groups) == 1:
            (one,) = groups
            program.add_each(one, [price.under({**full, one: o.keep}) for o in options[one]])
        elif len(groups) == 2:
            one, other = groups
            costs = [
                [price.under({**full, one: a.keep, other: b.keep}) for b in options[other]]
                for a in options[one]
            ]
            program.add_pairs(one, other, costs)
        else:
            reads, makes = axes
            factors = zip(price.plane, ((), (reads,), (makes,), axes), strict=True)
            for factor, product in factors:
                for monomial, value in expanded(product, full, free).items():
                    program.add(monomial, factor * value)
    return program


def _terms(graph: ModelGraph, quantity: str, free: frozenset[str]) -> dict[Monomial, float]:
    """Return the cost as a polynomial in the widths of the free groups."""
    full = {name: group.size for name, group in graph.groups.items()}
    found: dict[Monomial, float] = defaultdict(float)
    for factor, axes in _products(graph, quantity):
        for monomial, value in expanded(axes, full, free).items():
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
