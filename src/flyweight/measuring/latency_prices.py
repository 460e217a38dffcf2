"""Predicted latency of a network at any widths, from a table of its layers."""

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
from flyweight.measuring.timed_layers import TimedLayer, geometry_key, timed_layers
from flyweight.on_demand import load

_NONNEGATIVE_LEAST_SQUARES = "scipy.optimize:nnls"  # scipy takes 0.2 s to import


@dataclass(frozen=True)
class LayerPrice:
    """The times of one layer on a grid of its widths; linear interpolation between them.

    Attributes:
        layer: The layer.
        in_channels: Input channels, ascending.
        out_channels: Output channels, ascending; a single value where they depend on the input's.
        times: Milliseconds, `(in_channels, out_channels)`.
    """

    layer: TimedLayer
    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    times: Any

    def at(self, inputs: int, outputs: int) -> float:
        """Return the time at these widths; outside the grid, the time at its edge."""
        over_outputs = [np.interp(outputs, self.out_channels, row) for row in self.times]
        return float(np.interp(inputs, self.in_channels, over_outputs))

    def under(self, kept: Mapping[str, int]) -> float:
        """Return the time when every group keeps this number of channels."""
        return self.at(self.layer.inputs.under(kept), self.layer.outputs.under(kept))

    @cached_property
    def plane(self) -> tuple[float, float, float, float]:
        """Least-squares fit (a, b, c, d) of a + b in + c out + d in out to all times."""
        terms, scale = self._terms()
        a, b, c, d = np.linalg.lstsq(terms / scale, self.times.ravel(), rcond=None)[0] / scale
        return float(a), float(b), float(c), float(d)

    @cached_property
    def rising(self) -> tuple[float, float, float, float]:
        """The same fit with a, b, c and d not below 0."""
        terms, scale = self._terms()
        a, b, c, d = load(_NONNEGATIVE_LEAST_SQUARES)(terms / scale, self.times.ravel())[0] / scale
        return float(a), float(b), float(c), float(d)

    def _terms(self) -> tuple[Any, Any]:
        one, other = (
            axis.ravel() for axis in np.meshgrid(self.in_channels, self.out_channels, indexing="ij")
        )
        terms = np.stack([np.ones(len(one)), one, other, one * other], axis=1)
        several = len(self.in_channels) > 1, len(self.out_channels) > 1
        terms *= [True, several[0], several[1], all(several)]  # a single width gives no slope
        return terms, np.maximum(terms.max(axis=0), 1.0)


@dataclass(frozen=True)
class LatencyPrices:
    """Predicts the latency of one network when channels are removed.

    Attributes:
        graph: The network.
        layers: Its layers that are in the table, in order of execution.
        step: The channel step; multiples of it are fast.
        scale: Measured latency of the whole network over the sum of its layers; 1 where the whole
            was not measured. It accounts for operations that are not in the table (activations,
            additions, resizing) and for operations that the runtime fuses.
    """

    graph: ModelGraph
    layers: tuple[LayerPrice, ...]
    step: int
    scale: float = 1.0

    @classmethod
    def of(cls, graph: ModelGraph, table: LayerTable) -> Self:
        """Look up the layers of the network.

        Raises:
            MeasureError: A layer is not in the table.
        """
        layers = timed_layers(graph)
        for layer in layers:
            missing = table.missing(layer)
            if missing:
                raise MeasureError(
                    "A latency table must know every layer of the network. Received: one without "
                    f"'{layer.name}' ({geometry_key(layer.geometry)}) at {missing[0][0]} input and "
                    f"{missing[0][1]} output channels. Add this network to it: flyweight bench "
                    "--layers -c CONFIG --save FILE"
                )
        prices = cls(graph, tuple(_price(layer, table) for layer in layers), table.step)
        whole = table.whole.get(network_key(graph))
        if whole is None:
            return prices
        return cls(graph, prices.layers, table.step, whole / prices.sum_ms(prices.full()))

    def multiple_of(self, round_to: int) -> int:
        """Return the least common multiple of the fast channel step and `round_to`."""
        return lcm(round_to, self.step)

    def full(self) -> dict[str, int]:
        """Return the channels of every group in the dense network."""
        return {name: group.size for name, group in self.graph.groups.items()}

    def sum_ms(self, kept: Mapping[str, int]) -> float:
        """Return the sum of the layers' times when some groups keep `kept` channels."""
        widths = {**self.full(), **kept}
        return sum(layer.under(widths) for layer in self.layers)

    def predict_ms(self, kept: Mapping[str, int]) -> float:
        """Return the predicted latency of the whole network."""
        return self.scale * self.sum_ms(kept)

    def rising(self) -> list[tuple[float, tuple[AxisSize, ...]]]:
        """Return a smooth latency that never decreases as widths grow: factors of products, in ms.

        Every layer is its fit `LayerPrice.rising`; the sum is scaled so that it predicts the same
        latency of the dense network as `predict_ms`.
        """
        found: list[tuple[float, tuple[AxisSize, ...]]] = []
        for price in self.layers:
            in_channels, out_channels = price.layer.inputs, price.layer.outputs
            axes = ((), (in_channels,), (out_channels,), (in_channels, out_channels))
            found += zip(price.rising, axes, strict=True)
        full = self.full()
        whole = sum(f * prod(axis.under(full) for axis in axes) for f, axes in found)
        scale = self.predict_ms({}) / whole if whole > 0 else 0.0
        return [(factor * scale, axes) for factor, axes in found if factor > 0]


def _price(layer: TimedLayer, table: LayerTable) -> LayerPrice:
    known = table.layers[geometry_key(layer.geometry)]
    in_channels, out_channels = layer.axes(table.step)
    if layer.depthwise:
        times = np.array([[known[layer.tied(width)]] for width in in_channels])
        return LayerPrice(layer, in_channels, (layer.full[1],), times)
    times = np.array([[known[one, other] for other in out_channels] for one in in_channels])
    return LayerPrice(layer, in_channels, out_channels, times)
