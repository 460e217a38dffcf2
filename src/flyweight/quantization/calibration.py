"""Calibration: the float network runs on images and the range of every tensor is observed."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.recording import private_copy
from flyweight.quantization.grids import Grid, grid_of
from flyweight.quantization.network import Handler
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.ranges import RangeMethod, RangeObserver, range_of
from flyweight.quantization.sites import watch_paths


def calibrated(
    model: nn.Module,
    plan: QuantizationPlan,
    batches: Iterable[Example],
    *,
    method: RangeMethod = "percentile",
    percentile: float = 99.99,
    shown: Callable[[int], None] | None = None,
) -> QuantizationPlan:
    """Return the plan with the grids that fit what `model` computes on `batches`.

    Args:
        model: The float network; it is not changed.
        plan: From `placement.place`.
        batches: Inputs as in use: normalised, of the usual size. 16 images do.
        method: How a range is chosen from the values, see `ranges.range_of`.
        percentile: Share that the method `percentile` keeps on each side, in percent.
        shown: Called with the number of batches done.

    Raises:
        PlanError: There is no batch, a value is not finite, or a planned tensor was not seen.
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
    grids: dict[str, Grid] = {}
    for name in plan.quantizers:
        if not done or observing.observers[name].average is None:
            raise PlanError(
                "Calibration must see every quantized tensor. Received "
                f"{done} batches, in which '{name}' was not computed. Give batches that the "
                "network takes in evaluation mode."
            )
        found = range_of(observing.observers[name], method, percentile)
        limit = plan.limits.get(name)
        grids[name] = grid_of(found) if limit is None else grid_of(found, at_most=limit)
    return plan.with_grids(grids)


class _Observing(Handler):
    """Runs the float network and shows every tensor that has a quantizer to its observer."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self.observers = {name: RangeObserver() for name in plan.quantizers}

    def __call__(self, batch: Example) -> Any:
        for place, tensor in batch.tensors():
            if place in self.plan.inputs:
                self.result(self.plan.inputs[place], tensor)
        return self.run(self.model, batch)

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
