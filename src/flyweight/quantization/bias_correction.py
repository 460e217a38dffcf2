"""Bias correction: what rounding adds to most values of a channel is taken from its bias.

Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, in the form that measures: every
output channel of a layer is compared with that of the float network. A layer is corrected with
those before it corrected, in one run.

The paper takes the mean of the differences. Where ranges are clipped, a few large values decide it,
and all others would be moved by what these lost: the median is taken here. Values that the grid of
the result clips, such as those below 0 before a ReLU, do not count, and a channel that shows few of
its values is left alone. What each of this gains is in docs/design/0039.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.recording import private_copy
from flyweight.quantization.calibration import channel_axis
from flyweight.quantization.grids import HIGHEST, LOWEST
from flyweight.quantization.integer_kernels import is_fused_activation
from flyweight.quantization.network import Handler, QuantizedForward
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.sites import watch_paths

_LEAST_SEEN = 0.3
"""Share of a channel's values that its result must show; of fewer, the rest matters more."""


@dataclass(frozen=True, eq=False)
class BiasShifts:
    """What is added to every output channel of layers.

    Attributes:
        channels: Operation to one value for each channel, shape (channels,).
    """

    channels: Mapping[str, NDArray[np.float64]]


def bias_shifts(
    model: nn.Module, quantized: nn.Module, plan: QuantizationPlan, batches: Iterable[Example]
) -> BiasShifts:
    """Return what brings channels to those of the float network.

    The results of all layers of the float network are kept for one batch.

    Args:
        model: The float network; it is not changed.
        quantized: The quantized one; it is not changed.
        plan: Its plan.
        batches: As in calibration, at least one. The shifts of batches are averaged.
    """
    dense = private_copy(model, values=True)
    watch_paths(dense)
    results, shifts = _Results(dense, plan), _Shifts(quantized, plan)
    count = 0
    with evaluating(dense, quantized):
        for batch in batches:
            count += 1
            results.run(dense, batch)
            shifts.wanted = results.rows
            shifts.forward(*batch.args, **batch.kwargs)
    return BiasShifts({name: total.cpu().numpy() / count for name, total in shifts.totals.items()})


@torch.no_grad()
def shift_biases_(model: nn.Module, plan: QuantizationPlan, shifts: BiasShifts) -> None:
    """Add shifts to what the layers of a quantized network add, in place."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for layer in plan.own_layers:
        added = torch.from_numpy(shifts.channels[layer.operation])
        name = layer.bias if layer.norm is None else layer.norm.shift
        if name is not None:
            tensors[name].add_(added.to(tensors[name]))


class _Results(Handler):
    """Runs the float network and keeps the results of layers before activations."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self.rows: dict[str, Tensor] = {}

    def made(self, layer: IntegerLayer, weight: Tensor, values: Tensor) -> Tensor:
        """Keep a layer's result."""
        # A copy: an activation may change the result in place.
        self.rows[layer.operation] = _rows(weight, values).clone()
        return values


class _Shifts(QuantizedForward):
    """Runs the quantized network, corrects every layer, and sums the corrections up."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self.wanted: Mapping[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}
        self._correctable = frozenset(
            layer.operation
            for layer in plan.own_layers
            if layer.norm is None or layer.norm.shift is not None
        )

    def made(self, layer: IntegerLayer, weight: Tensor, values: Tensor) -> Tensor:
        """Return a layer's result with the shift that brings it to the float one."""
        name = layer.operation
        if name not in self._correctable:
            self.totals[name] = weight.new_zeros(len(weight), dtype=torch.float64)
            return values
        shift = _shift(self.wanted[name], _rows(weight, values), self._visible(layer))
        self.totals[name] = self.totals.get(name, torch.zeros_like(shift)) + shift
        trailing = values.ndim - 1 - channel_axis(weight, values)
        return values + shift.to(values.dtype).reshape(-1, *[1] * trailing)

    def _visible(self, layer: IntegerLayer) -> tuple[float, float]:
        """Return between which values the result of a layer is not clipped by its grid."""
        if is_fused_activation(layer.result):  # The grid lies behind it.
            return -math.inf, math.inf
        grid = self.plan.grids[layer.result]
        low, high = ((end - grid.zero_point) * grid.scale for end in (LOWEST, HIGHEST))
        return low, high


def _rows(weight: Tensor, values: Tensor) -> Tensor:
    """Return the values of every channel, shape (channels, values)."""
    return values.transpose(0, channel_axis(weight, values)).flatten(1)


def _shift(wanted: Tensor, found: Tensor, visible: tuple[float, float]) -> Tensor:
    """Return what most values of every channel lack, shape (channels,), in double precision.

    Args:
        wanted: Of the float network, as `_rows` returns them.
        found: Of the quantized network; other in number where it chose other boxes.
        visible: The lowest and the highest value that count.
    """
    if not wanted.numel() or not found.numel():
        return wanted.new_zeros(len(wanted), dtype=torch.float64)
    seen, other = (
        torch.where((one >= visible[0]) & (one <= visible[1]), one, math.nan)
        for one in (wanted, found)
    )
    if wanted.shape == found.shape:
        shift = (seen - found).nanmedian(1).values
    else:
        shift = seen.nanmedian(1).values - other.nanmedian(1).values
    enough = (~seen.isnan()).double().mean(1) >= _LEAST_SEEN
    return torch.where(enough, shift.double(), 0.0)
