"""Calibration: the float network runs on images; ranges of tensors and channels are observed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.digests import digest_of_value, digest_of_weights
from flyweight.errors import PlanError
from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.recording import private_copy
from flyweight.quantization.calibration_state import (
    CalibrationState,
    PassState,
    digest_after,
    digest_of_batches,
)
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

    def values(self) -> NDArray[np.float64]:
        """Return what was counted, shape (4, channels), for `restore`."""
        counts = np.full(len(self.weight), float(self._count))
        return np.stack([self.highest, self._sum, self._squares, counts])

    def restore(self, values: NDArray[np.float64]) -> None:
        """Continue from what `values` returned."""
        self.highest, self._sum, self._squares = (row.copy() for row in values[:3])
        self._count = int(values[3].max(initial=0.0))

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
    *,
    state: CalibrationState | None = None,
) -> Observed:
    """Run the float network on images and return what it computes.

    Batches are taken one by one and not kept. What is kept does not grow with their number: 16 KiB
    for each quantized tensor, and 32 bytes for each output channel of an integer layer.

    Args:
        model: The float network; it is not changed.
        plan: From `placement.place`.
        batches: Inputs as in use: normalised, of the usual size. 16 images do.
        shown: Called with the number of batches done.
        state: Where a pass that was killed continues, with the same result to the last bit; needs
            batches that can be gone through again. One of another network or of other batches
            is left alone.

    Raises:
        PlanError: A value is not finite.
        FileError: The state cannot be written.
    """
    copy = private_copy(model, values=True)
    watch_paths(copy)
    observing = _Observing(copy, plan)
    key = "" if state is None else _key(model, plan)
    done, digest = 0, ""
    saved = None if state is None else state.saved(key)
    if saved is not None and digest_of_batches(islice(batches, saved.done)) == saved.images:
        observing.restore(saved.values)
        done, digest = saved.done, saved.images
    with evaluating(copy):
        for batch in islice(batches, done, None):
            observing(batch)
            done += 1
            if shown is not None:
                shown(done)
            if state is not None:
                digest = digest_after(digest, batch)
                if state.is_due():
                    state.save(key, PassState(done, digest, observing.values()))
    if state is not None:
        state.save(key, PassState(done, digest, observing.values()))
    return Observed(done, observing.observers, observing.channels)


def _key(model: nn.Module, plan: QuantizationPlan) -> str:
    """Return a digest of what a pass depends on besides the images."""
    return digest_of_value([digest_of_weights(model.state_dict()), plan.to_json()])


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

    def values(self) -> dict[str, Tensor]:
        """Return what was counted so far, for `restore`."""
        found = {f"tensor:{name}": one.values() for name, one in self.observers.items()}
        found |= {f"channels:{name}": one.values() for name, one in self.channels.items()}
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Continue from what `values` returned."""
        self.prepare()
        for name, observer in self.observers.items():
            observer.restore(values[f"tensor:{name}"].numpy())
        for layer in self.plan.layers.values():
            found = values.get(f"channels:{layer.operation}")
            if found is not None:
                moments = ChannelMoments(self.parameters_of(layer)[0].detach())
                moments.restore(found.numpy())
                self.channels[layer.operation] = moments

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
