"""What a network takes at any widths, looked up layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any, Self

import numpy as np

from flyweight.errors import MeasureError
from flyweight.graph.model_graph import ModelGraph
from flyweight.latency.layers import TimedLayer, describe, timed_layers
from flyweight.latency.table import LayerTable, network_key


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
        one, other = (axis.ravel() for axis in np.meshgrid(self.reads, self.makes, indexing="ij"))
        terms = np.stack([np.ones(len(one)), one, other, one * other], axis=1)
        several = len(self.reads) > 1, len(self.makes) > 1
        terms *= [True, several[0], several[1], all(several)]  # a width that is one has no slope
        scale = np.maximum(terms.max(axis=0), 1.0)
        found = np.linalg.lstsq(terms / scale, self.times.ravel(), rcond=None)[0] / scale
        a, b, c, d = (float(value) for value in found)
        return a, b, c, d


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


def _price(layer: TimedLayer, table: LayerTable) -> LayerPrice:
    known = table.layers[describe(layer.geometry)]
    reads, makes = layer.axes(table.step)
    if layer.depthwise:
        times = np.array([[known[layer.tied(width)]] for width in reads])
        return LayerPrice(layer, reads, (layer.full[1],), times)
    times = np.array([[known[one, other] for other in makes] for one in reads])
    return LayerPrice(layer, reads, makes, times)
