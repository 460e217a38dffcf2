"""What a network takes at any widths, looked up layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import lcm, prod
from typing import Any, Self

import numpy as np

from flyweight.errors import MeasureError
from flyweight.graph.cost import AxisSize
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_table import LayerTable, network_key
from flyweight.measuring.timed_layers import TimedLayer, describe, timed_layers


@dataclass(frozen=True)
class LayerPrice:
    """The times of one layer on a grid of its widths, in ms; between them they are linear.

    Attributes:
        layer: Which one.
        reads: Rising widths of the input.
        makes: Rising widths of the output; one, where it follows the input's.
        times: `(reads, makes)`.
    """

    layer: TimedLayer
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    times: Any

    def at(self, inputs: int, outputs: int) -> float:
        """Return the time at these widths; outside the grid that of its edge."""
        over_outputs = [np.interp(outputs, self.makes, row) for row in self.times]
        return float(np.interp(inputs, self.reads, over_outputs))

    def under(self, kept: Mapping[str, int]) -> float:
        """Return the time when `kept` channels of every group stay."""
        return self.at(self.layer.inputs.under(kept), self.layer.outputs.under(kept))

    @cached_property
    def plane(self) -> tuple[float, float, float, float]:
        """The a + b in + c out + d in out that is nearest to all times, as (a, b, c, d)."""
        terms, scale = self._terms()
        a, b, c, d = np.linalg.lstsq(terms / scale, self.times.ravel(), rcond=None)[0] / scale
        return float(a), float(b), float(c), float(d)

    @cached_property
    def rising(self) -> tuple[float, float, float, float]:
        """The same with a, b, c and d at least 0."""
        from scipy.optimize import nnls

        terms, scale = self._terms()
        a, b, c, d = nnls(terms / scale, self.times.ravel())[0] / scale
        return float(a), float(b), float(c), float(d)

    def _terms(self) -> tuple[Any, Any]:
        one, other = (axis.ravel() for axis in np.meshgrid(self.reads, self.makes, indexing="ij"))
        terms = np.stack([np.ones(len(one)), one, other, one * other], axis=1)
        several = len(self.reads) > 1, len(self.makes) > 1
        terms *= [True, several[0], several[1], all(several)]  # a width that is one has no slope
        return terms, np.maximum(terms.max(axis=0), 1.0)


@dataclass(frozen=True)
class LatencyPrices:
    """Prices the plans of one network.

    Attributes:
        graph: The network.
        layers: Its layers that are in the table, in order of execution.
        step: Multiples of channels that are fast.
        scale: Whole network's measured latency over the sum of its layers; 1 where the whole was
            not measured. It stands for all that is not in the table (activations, additions,
            resizing) and for what the runtime fuses.
    """

    graph: ModelGraph
    layers: tuple[LayerPrice, ...]
    step: int
    scale: float = 1.0

    @classmethod
    def of(cls, graph: ModelGraph, table: LayerTable) -> Self:
        """Look the network's layers up.

        Raises:
            MeasureError: A layer is not in the table.
        """
        layers = timed_layers(graph)
        for layer in layers:
            missing = table.missing(layer)
            if missing:
                raise MeasureError(
                    "A latency table must know every layer of the network. Received one without "
                    f"'{layer.name}' ({describe(layer.geometry)}) at {missing[0][0]} to "
                    f"{missing[0][1]} channels. Add this network to it: flyweight bench --layers "
                    "-c CONFIG --save FILE"
                )
        prices = cls(graph, tuple(_price(layer, table) for layer in layers), table.step)
        whole = table.whole.get(network_key(graph))
        if whole is None:
            return prices
        return cls(graph, prices.layers, table.step, whole / prices.sum_ms(prices.full()))

    def multiple_of(self, round_to: int) -> int:
        """Return the multiple of channels that is fast and one of `round_to`."""
        return lcm(round_to, self.step)

    def full(self) -> dict[str, int]:
        """Return the widths of the dense network."""
        return {name: group.size for name, group in self.graph.groups.items()}

    def sum_ms(self, kept: Mapping[str, int]) -> float:
        """Return the layers' times, added up, when `kept` channels of some groups stay."""
        widths = {**self.full(), **kept}
        return sum(layer.under(widths) for layer in self.layers)

    def predict_ms(self, kept: Mapping[str, int]) -> float:
        """Return the predicted latency of the whole network."""
        return self.scale * self.sum_ms(kept)

    def rising(self) -> list[tuple[float, tuple[AxisSize, ...]]]:
        """Return a smooth latency that never falls as widths grow: factors, in ms, of products.

        Every layer is a + b in + c out + d in out, none of them below 0, nearest to its times; all
        together are scaled to predict the dense network as `predict_ms` does.
        """
        found: list[tuple[float, tuple[AxisSize, ...]]] = []
        for price in self.layers:
            reads, makes = price.layer.inputs, price.layer.outputs
            axes = ((), (reads,), (makes,), (reads, makes))
            found += zip(price.rising, axes, strict=True)
        full = self.full()
        whole = sum(f * prod(axis.under(full) for axis in axes) for f, axes in found)
        scale = self.predict_ms({}) / whole if whole > 0 else 0.0
        return [(factor * scale, axes) for factor, axes in found if factor > 0]


def _price(layer: TimedLayer, table: LayerTable) -> LayerPrice:
    known = table.layers[describe(layer.geometry)]
    reads, makes = layer.axes(table.step)
    if layer.depthwise:
        times = np.array([[known[layer.tied(width)]] for width in reads])
        return LayerPrice(layer, reads, (layer.full[1],), times)
    times = np.array([[known[one, other] for other in makes] for one in reads])
    return LayerPrice(layer, reads, makes, times)
