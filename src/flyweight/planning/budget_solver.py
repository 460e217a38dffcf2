"""Solver of budgets: the widths of least predicted loss within a limit on cost.

Every group takes one of its widths; losses of groups add up (what a scan predicts), and costs are
those of the whole network: a layer costs its inputs times its outputs, so two groups are priced
together. Latency is looked up in a table of layers by the widths of both inputs and outputs. The
problem is a multiple-choice knapsack, see `planning.knapsack`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flyweight.config.budget import Budget
from flyweight.config.cuts import no_latency_table
from flyweight.errors import PlanError
from flyweight.graph.cost import AxisSize
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.knapsack import Monomial, Option, Program, expanded, solved
from flyweight.pruning.mixed import note_on_curves


def solve(
    graph: ModelGraph,
    options: Mapping[str, Sequence[Option]],
    budget: Budget,
    latency: LatencyPrices | None = None,
) -> dict[str, Option]:
    """Return one option for each group, so that their summed loss is least within the budget.

    Groups without options keep their width. A latency budget is met as the table predicts it;
    `latency_rounds.fit_latency` measures networks as well.

    Args:
        graph: Of the network to cut.
        options: Group to the widths that it can take, with their losses.
        budget: What the network may cost.
        latency: Prices of layers, for a latency budget.

    Raises:
        PlanError: The budget cannot be met even by the narrowest options, whose cost the message
            states; or it limits latency, and no prices are given.
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
            f"larger ratios.{_on_mixed(graph, options)}"
        )
    program = Program(options)
    for monomial, value in _terms(graph, quantity, frozenset(options)).items():
        program.add(monomial, value)
    return solved(program, limit)


def _on_mixed(graph: ModelGraph, covered: Iterable[str]) -> str:
    note = note_on_curves(graph, covered)
    return f" {note}" if note else ""


def required(latency: LatencyPrices | None) -> LatencyPrices:
    """Return the prices that a latency budget needs.

    Raises:
        PlanError: There are none.
    """
    if latency is None:
        raise no_latency_table()
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
    """Return the program whose costs are the layers' times in the table, in ms.

    A layer between two groups has the time of the table for every pair of their options. A layer
    where more than two groups meet (after a concatenation) has the time of the plane that fits its
    times best.
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
