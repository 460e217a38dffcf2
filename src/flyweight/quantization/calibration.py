"""Calibration: the float network runs on images; ranges of tensors and channels are observed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.recording import private_copy
from flyweight.quantization.exact import exact_grids
from flyweight.quantization.grids import grid_of
from flyweight.quantization.network import Handler
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.ranges import Range, RangeMethod, RangeObserver, range_of
from flyweight.quantization.sites import watch_paths


class ChannelMoments:
    """Mean and spread of every output channel of a layer, before its activation.

    Attributes:
        weight: The largest absolute value of every channel's weight, folded; shape (channels,).
        highest: The largest value of every channel, shape (channels,).
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight: NDArray[np.float64] = weight.flatten(1).abs().amax(1).double().cpu().numpy()
        self.highest = np.full(len(self.weight), -np.inf)
        self._count = 0
        self._sum, self._squares = np.zeros(len(self.weight)), np.zeros(len(self.weight))

    def observe(self, values: Tensor, axis: int) -> None:
        """Count the values of a batch; `axis` is that of the channels."""
        rows = values.transpose(0, axis).flatten(1).double()
        if not rows.shape[1]:
            return
        self._count += rows.shape[1]
        self._sum += rows.sum(1).cpu().numpy()
        self._squares += rows.square().sum(1).cpu().numpy()
        self.highest = np.maximum(self.highest, rows.amax(1).cpu().numpy())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of every channel, shape (channels,)."""
        return self._sum / max(self._count, 1)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of every channel, shape (channels,)."""
        variance = self._squares / max(self._count, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True, eq=False)
class Observed:
    """What a network computes on the images of a calibration.

    Attributes:
        batches: How many batches it ran on.
        tensors: Quantizer to the values of its tensor.
        channels: Operation of every integer layer to its channels.
    """

    batches: int
    tensors: Mapping[str, RangeObserver]
    channels: Mapping[str, ChannelMoments]


def observe(
    model: nn.Module,
    plan: QuantizationPlan,
    batches: Iterable[Example],
    shown: Callable[[int], None] | None = None,
) -> Observed:
    """Run the float network on images and return what it computes.

    Args:
        model: The float network; it is not changed.
        plan: From `placement.place`.
        batches: Inputs as in use: normalised, of the usual size. 16 images do.
        shown: Called with the number of batches done.

    Raises:
        PlanError: A value is not finite.
    """
    copy = private_copy(model, values=True)
    watch_paths(copy)
    observing = _Observing(copy, plan)
    done = 0
    with evaluating(copy):
        for done, batch in enumerate(batches, 1):
            observing(batch)
            if shown is not None:
                shown(done)
    return Observed(done, observing.observers, observing.channels)


def with_grids(
    plan: QuantizationPlan,
    observed: Observed,
    *,
    method: RangeMethod = "percentile",
    percentile: float = 99.99,
    exact: bool = False,
) -> QuantizationPlan:
    """Return the plan with the grids that fit what was observed.

    Args:
        plan: What was observed by.
        observed: From `observe`.
        method: How a range is chosen from the values, see `ranges.range_of`.
        percentile: Share that the method `percentile` keeps on each side, in percent.
        exact: Choose grids on which every runtime computes the same, see `exact`.

    Raises:
        PlanError: There was no batch, or a planned tensor was not seen.
    """
    ranges: dict[str, Range] = {}
    for name in plan.quantizers:
        if not observed.batches or observed.tensors[name].average is None:
            raise PlanError(
                "Calibration must see every quantized tensor. Received "
                f"{observed.batches} batches, in which '{name}' was not computed. Give batches "
                "that the network takes in evaluation mode."
            )
        ranges[name] = range_of(observed.tensors[name], method, percentile)
    if exact:
        return exact_grids(plan, observed.tensors, ranges)
    limits = {name: plan.limits.get(name, math.inf) for name in ranges}
    return plan.with_grids(
        {name: grid_of(found, at_most=limits[name]) for name, found in ranges.items()}
    )


class _Observing(Handler):
    """Runs the float network and shows every tensor that has a quantizer to its observer."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self.observers = {name: RangeObserver() for name in plan.quantizers}
        self.channels: dict[str, ChannelMoments] = {}

    def __call__(self, batch: Example) -> Any:
        for place, tensor in batch.tensors():
            if place in self.plan.inputs:
                self.result(self.plan.inputs[place], tensor)
        return self.run(self.model, batch)

    def made(self, layer: IntegerLayer, weight: Tensor, values: Tensor) -> Tensor:
        """Count the channels of a layer's result."""
        moments = self.channels.setdefault(layer.operation, ChannelMoments(weight))
        moments.observe(values, channel_axis(weight, values))
        return values

    def result(self, quantizer: str, values: Tensor) -> Tensor:
        """Show the values to the observer and hand them on."""
        try:
            self.observers[quantizer].observe(values)
        except ValueError as error:
            raise PlanError(
                "Every value must be finite in calibration. Received at "
                f"'{quantizer}': {error}. Look for wrongly normalised images or broken weights."
            ) from error
        return values


def channel_axis(weight: Tensor, values: Tensor) -> int:
    """Return the axis of a layer's result on which the channels of its weight lie.

    A convolution has one axis for each of its kernel after that of the channels; a linear layer
    has the channels on the last axis.
    """
    return values.ndim - 1 - max(weight.ndim - 2, 0)
