"""Values of the report's plan explorer, made from curves and a graph."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flyweight.errors import PlanError, counted
from flyweight.graph.cost import AxisSize
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.loss_curves import leading_layers, widths
from flyweight.pruning.make_plan import leaving_orders
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.scoring import criterion_name
from flyweight.report.explorer import Channels, Explorer, Layer, Priced, Size, Spot, packed
from flyweight.sensitivity.measured_curves import MeasuredCurves

QUANTITIES = (
    Priced(key="macs", label="MACs", unit="MACs"),
    Priced(key="params", label="Parameters", unit="parameters"),
    Priced(key="size_bytes", label="Size", unit="bytes"),
)
_Orders = Mapping[str, Mapping[str, tuple[int, ...]]]
_Factors = tuple[float, ...]


@dataclass(frozen=True)
class Cutting:
    """Settings of the plans that the page makes, and the commands that make them again.

    Attributes:
        round_to: Channel counts are rounded to a multiple of this; with a latency table, to a
            multiple of the runtime's step too.
        inexact: Whether layers whose channels an operation mixes are shown.
        aliases: Other names of parameters.
        command: The command line that cuts by these curves, without the limit, which the page
            appends. Where it is empty, the page shows lines of Python.
        ratios_command: The command line that cuts by names and ratios, without these.
        latency: Prices of layers, which make latency a quantity that can be limited.
        latency_option: The option of the command line that names the latency table.
    """

    round_to: int = 1
    inexact: bool = True
    aliases: Mapping[str, str] | None = None
    command: str = ""
    ratios_command: str = ""
    latency: LatencyPrices | None = None
    latency_option: str = ""

    @property
    def multiple(self) -> int:
        """The multiple that channel counts are rounded to."""
        return self.round_to if self.latency is None else self.latency.multiple_of(self.round_to)

    def quantities(self) -> tuple[Priced, ...]:
        """Return the quantities that can be limited."""
        if self.latency is None:
            return QUANTITIES
        note = "latency is the table's times of layers, smoothed, and the command measures it"
        option = self.latency_option
        timed = Priced(
            key="latency_share", label="Latency", unit="ms", option=option, predicted=note
        )
        return (*QUANTITIES, timed)


def explorer(curves: MeasuredCurves, graph: ModelGraph, cutting: Cutting | None = None) -> Explorer:
    """Return the values from which the page makes the plans that `curves.plan` makes.

    Layers that this network does not have, or that cannot be cut, are left out, with a note.

    Args:
        curves: The measured curves.
        graph: The graph of the network to cut, with its weights, which determine the order in
            which channels are removed.
        cutting: How plans are made.

    Raises:
        PlanError: No layer of the curves can be cut in this network.
        DataError: The metric before any cut is 0.
    """
    how = cutting or Cutting()
    criterion = criterion_name(curves.known_criterion())
    orders = _orders(curves, graph, how)
    known = MeasuredCurves(curves.metric, curves.baseline, {n: curves.curves[n] for n in orders})
    leading = {
        layer: group for group, layer in leading_layers(known.curves, graph, how.aliases).items()
    }
    places = {name: place for place, name in enumerate(graph.groups)}
    prices = _Prices(places)
    products = prices.products(graph, how.latency)
    numbers = tuple((path, prices.size(one)) for path, one in graph.numbers.items())
    return Explorer(
        metric=curves.metric,
        baseline=curves.baseline,
        plan=_plan_text(graph, criterion),
        round_to=how.multiple,
        groups=_groups(graph, {group for found in orders.values() for group in found}),
        layers=tuple(
            Layer(
                name=layer,
                spots=_spots(known, layer),
                orders=tuple((places[group], packed(order)) for group, order in found.items()),
                options=_options(known, layer, graph, leading.get(layer), how.multiple),
            )
            for layer, found in orders.items()
        ),
        axes=tuple(prices.axes),
        quantities=how.quantities(),
        products=products,
        numbers=numbers,
        command=how.command,
        ratios_command=how.ratios_command,
        notes=tuple(_notes(curves, graph, len(orders))),
    )


def _orders(curves: MeasuredCurves, graph: ModelGraph, how: Cutting) -> _Orders:
    criterion = curves.known_criterion()
    orders: dict[str, Mapping[str, tuple[int, ...]]] = {}
    refused: PlanError | None = None
    for layer in curves.curves:
        try:
            orders[layer] = leaving_orders(
                graph,
                layer,
                criterion,
                local=curves.local,
                inexact=how.inexact,
                aliases=how.aliases,
            )
        except PlanError as error:
            refused = error
    if not orders:
        raise PlanError(
            "At least one layer of the curves must be a layer of this network that can be cut. "
            f"Received {counted(len(curves.curves), 'layer')}, none of which can. The last error: "
            f"{refused}"
        )
    return orders


def _spots(curves: MeasuredCurves, layer: str) -> tuple[Spot, ...]:
    losses = curves.losses(layer)
    return tuple(
        Spot(ratio=one.ratio, value=one.value, loss=losses[one.ratio], interval=one.interval)
        for one in curves.curves[layer]
    )


def _options(
    curves: MeasuredCurves, layer: str, graph: ModelGraph, group: str | None, round_to: int
) -> tuple[tuple[int, float], ...]:
    if group is None:
        return ()
    options = widths(curves.losses(layer), graph.groups[group].size, round_to)
    return tuple((option.keep, option.loss) for option in options)


def _groups(graph: ModelGraph, cut: set[str]) -> tuple[Channels, ...]:
    return tuple(
        Channels(
            name=group.name,
            size=group.size,
            exact=group.exact,
            touches=json.dumps([[m.tensor, m.axis, m.role, m.span] for m in group.members])
            if group.name in cut
            else "",
        )
        for group in graph.groups.values()
    )


def _plan_text(graph: ModelGraph, criterion: str) -> str:
    """Return the first part of the JSON of every plan of this graph."""
    whole = PruningPlan.of(graph, {}, criterion).to_json()
    key = '"numbers": '
    return whole[: whole.index(key) + len(key)]


class _Prices:
    """Costs as products of sizes of axes; each size is stored once."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self.places = places
        self.axes: dict[Size, int] = {}

    def size(self, axis: AxisSize) -> Size:
        """Return a size with the indices of groups in place of their names."""
        return axis.fixed, tuple((self.places[group], each) for group, each in axis.shares)

    def products(
        self, graph: ModelGraph, latency: LatencyPrices | None
    ) -> tuple[tuple[_Factors, tuple[int, ...]], ...]:
        """Return (factors of MACs, parameters, bytes and ms; indices of axes) of every product."""
        found: dict[tuple[int, ...], list[float]] = {}
        for op in graph.costs.ops:
            self._entry(found, op.axes)[0] += op.positions
        for tensor in graph.costs.tensors:
            entry = self._entry(found, tensor.axes)
            entry[1] += int(tensor.learnable)
            entry[2] += tensor.itemsize
        if latency is None:
            return tuple((tuple(factors), axes) for axes, factors in found.items())
        rising = latency.rising()
        for factor, axes in rising:
            entry = self._entry(found, axes)
            entry += [0.0] * (len(QUANTITIES) + 1 - len(entry))
            entry[-1] += factor
        each = len(QUANTITIES) + 1
        return tuple((tuple([*factors, 0.0][:each]), places) for places, factors in found.items())

    def _entry(
        self, found: dict[tuple[int, ...], list[float]], axes: tuple[AxisSize, ...]
    ) -> list[float]:
        # In order, so that a layer's operation and its weight are one product.
        sizes = sorted(self.size(axis) for axis in axes)
        key = tuple(self.axes.setdefault(size, len(self.axes)) for size in sizes)
        return found.setdefault(key, [0] * len(QUANTITIES))


def _notes(curves: MeasuredCurves, graph: ModelGraph, shown: int) -> Iterator[str]:
    if curves.made_from.get("graph", graph.fingerprint) != graph.fingerprint:
        yield "The curves were measured on a network of another shape than the one priced here."
    absent = len(curves.curves) - shown
    if absent:
        layers = counted(absent, "layer")
        yield f"{layers} of the scan cannot be cut in this network and are left out."
