"""Choice of precisions for a network: measure its layers, plan, and prove the plan on whole files.

The table of layers comes from profiles of three files: all layers in float, all on integers, and
every second one on integers, which shows what conversions cost. What the plan predicts is then
measured in turns with the float file, and a file that is not faster than it is never chosen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from torch import Tensor, nn

from flyweight.config.budget import Budget
from flyweight.config.measuring import BenchConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import PlanError
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.graph.example_inputs import Example
from flyweight.measuring.environment import cpu_model
from flyweight.measuring.measure import measure
from flyweight.measuring.times_by_layer import TimesByLayer, time_layers
from flyweight.pipeline.network_plans import example_input
from flyweight.pipeline.precision_record import PrecisionLatency, PrecisionRecord, latency_of
from flyweight.planning.precision_plan import (
    LayerCosts,
    PrecisionPlan,
    PrecisionTable,
    choose_precisions,
    plan_with,
)
from flyweight.progress import Progress
from flyweight.quantization.layer_flow import flows_between
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.sites import record_sites
from flyweight.runtimes.protocol import FLOAT32
from flyweight.runtimes.runtime_table import installed_version, runtime_by_name, runtime_entry

BFLOAT16 = "bfloat16"
_ROUNDS = 3
_LOSS_IMAGES = 8
_FITS = 3

WithFloats = Callable[[Mapping[str, str]], nn.Module]
"""Quantizes the network, where the given layers stay float for the given reasons."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What precisions are chosen for.

    Attributes:
        dense: The float network that the result must beat.
        start: The float network that is quantized; another one where it was rewritten.
        quantized: Quantizes it.
        images: Of the calibration.
        preprocessing: Gives the input.
        runtime: Name of the runtime.
        seconds: How long each file is measured.
    """

    dense: nn.Module
    start: nn.Module
    quantized: WithFloats
    images: Tensor
    preprocessing: Preprocessing
    runtime: str
    seconds: float = 5.0


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and the proof.

    Attributes:
        model: The quantized network; None where float is faster.
        plan: Which layers run on integers.
        latency: The file of the choice beside the float file.
        measured: Of every file that was measured in turns with it, the float file first.
    """

    model: nn.Module | None
    plan: PrecisionPlan
    latency: PrecisionLatency
    measured: tuple[PrecisionLatency, ...] = ()

    @property
    def record(self) -> PrecisionRecord:
        """What is written beside the checkpoint."""
        return PrecisionRecord(self.plan.plain(), self.latency)


def choose(subject: Subject, budget: Budget | None, folder: Path, progress: Progress) -> Choice:
    """Return the precision of every layer of a network, as measured on this machine.

    Args:
        subject: The network.
        budget: The latency that must be met with the least loss; None for the fastest choice.
        folder: Where files are written.
        progress: Receives messages.

    Raises:
        PlanError: No measured choice meets the budget, or there is one and the losses of layers
            cannot be measured.
        MeasureError: The runtime cannot run a file.
    """
    trial = _Trial(subject, folder, progress)
    table = trial.table(by_losses=budget is not None)
    if budget is not None:
        return _within(trial, table, budget)
    best = choose_precisions(table)
    progress.note(_prediction(best))
    every = plan_with(table, table.free)
    plans = [best, every] if best.integer != every.integer else [best]
    plans = [plan for plan in plans if plan.integer]
    nothing = plan_with(table, ())
    found = trial.measured(plans, nothing)
    chosen = found[0]
    for other in found[1:]:
        # In the order of their losses: a later one must be faster by more than chance.
        if other.latency.faster_than(chosen.latency):
            chosen = other
    if chosen.latency.is_reference and found[1:]:
        fastest = max(found[1:], key=lambda one: one.latency.ratio)
        progress.note(not_faster(fastest.latency))
        return replace(chosen, plan=_all_float(nothing, fastest.latency))
    return chosen


def not_faster(fastest: PrecisionLatency) -> str:
    """Return the line that says why a network stays float."""
    title = runtime_entry(fastest.runtime).title
    return (
        f"float: no choice of integer layers is faster in {title} on this machine; the fastest has "
        f"{fastest.ratio:.2f} times the speed of float"
    )


def _all_float(plan: PrecisionPlan, fastest: PrecisionLatency) -> PrecisionPlan:
    why = f"no choice is faster than float; the fastest has {fastest.ratio:.2f} times its speed"
    return replace(plan, floats={name: f"{why}; {text}" for name, text in plan.floats.items()})


def _prediction(plan: PrecisionPlan) -> str:
    every = len(plan.integer) + len(plan.floats)
    return (
        f"predicted: {plan.predicted_ms:.3f} ms with {len(plan.integer)} of {every} layers on "
        f"integers, {plan.float_ms:.3f} ms in float"
    )


def _within(trial: "_Trial", table: PrecisionTable, budget: Budget) -> Choice:
    """Return a choice that meets a budget when measured; predictions are corrected by each try."""
    dense_ms = table.predict_ms(())
    wanted = budget.latency_share or (budget.latency_ms or 0.0) / dense_ms
    fastest, share = choose_precisions(table).predicted_ms / dense_ms, wanted
    nothing = plan_with(table, ())
    tried: list[PrecisionLatency] = []
    for _ in range(_FITS):
        last = share <= fastest
        plan = choose_precisions(table, None if last else share * dense_ms)
        trial.progress.note(_prediction(plan))
        found = trial.measured([plan] if plan.integer else [], nothing)
        meeting = [one for one in found if _meets(one.latency, budget)]
        if meeting:
            return meeting[0]
        tried.append(max((one.latency for one in found), key=lambda one: one.ratio))
        reached = 1 / tried[-1].ratio
        wanted = budget.latency_share or (budget.latency_ms or 0.0) / tried[-1].float_ms
        if last:
            break
        share *= wanted / reached
    best = max(tried, key=lambda one: one.ratio)
    raise PlanError(
        f"A latency budget must be one that a choice of precisions meets. Received {budget}; the "
        f"fastest that was measured takes {best.chosen_ms:.3f} of {best.float_ms:.3f} ms, a share "
        f"of {1 / best.ratio:.2f}. Give more, or prune the network first."
    )


def _meets(latency: PrecisionLatency, budget: Budget) -> bool:
    if budget.latency_ms is not None:
        return latency.chosen_ms <= budget.latency_ms
    return 1 / latency.ratio <= (budget.latency_share or 1.0)


class _Trial:
    """Exports and measures networks of one subject."""

    def __init__(self, subject: Subject, folder: Path, progress: Progress) -> None:
        self.subject, self.folder, self.progress = subject, folder, progress
        self._small = subject.quantized({})
        self._files: dict[tuple[str, ...] | None, tuple[Path, nn.Module]] = {}

    def table(self, *, by_losses: bool) -> PrecisionTable:
        """Return the measured table of the layers, with losses and the price of conversions.

        Args:
            by_losses: Whether the losses decide; otherwise they may be unknown, and count as 0.
        """
        subject, plan = self.subject, _plan_of(self._small)
        names = {layer.operation for layer in plan.layers.values()} | plan.floats.keys()
        self.progress.note("timing layers in float and on integers")
        start = self._export(subject.start, "start")
        whole = self._export(self._small, "int8")
        floats, integers = self._times([start, whole], names)
        self.progress.note("measuring the loss of every layer")
        losses = self._losses(needed=by_losses)
        costs = {
            name: _costs(name, floats, integers, losses.get(name, 0.0), plan.floats)
            for name in floats.layers_ms
        }
        recorded = record_sites(subject.start, Example(example_input(subject.preprocessing)))
        made_on = {
            "runtime": installed_version(subject.runtime),
            "cpu": cpu_model(),
            "threads": "1",
        }
        table = PrecisionTable(made_on, costs, flows_between(recorded, costs.keys()))
        probe = plan_with(table, table.alternating)
        if len(table.free) < 2:
            return table
        (mixed,) = self._times([self.file(probe)[0]], names)
        return table.with_conversions(probe.integer, mixed.total_ms)

    def _losses(self, *, needed: bool) -> dict[str, float]:
        subject = self.subject
        try:
            return layer_losses(subject.start, self._small, subject.images[:_LOSS_IMAGES])
        except PlanError as error:
            if needed:
                raise
            self.progress.note(f"note: layers are chosen by their times alone: {error}")
            return {}

    def _times(self, files: Sequence[Path], names: set[str]) -> list[TimesByLayer]:
        """Return the least times of several rounds, in which files take turns."""
        runtime = self.subject.runtime
        rounds = [
            [time_layers(one, names, runtime=runtime) for one in files] for _ in range(_ROUNDS)
        ]
        return [reduce(TimesByLayer.least, each) for each in zip(*rounds, strict=True)]

    def file(self, plan: PrecisionPlan) -> tuple[Path, nn.Module]:
        """Return the file of a plan and its network."""
        if plan.integer not in self._files:
            own = _plan_of(self._small)
            planned = {layer.operation for layer in own.layers.values()}
            floats = {name: why for name, why in plan.floats.items() if name in planned}
            model = self.subject.quantized(floats) if floats else self._small
            path = self._export(model, f"choice{len(self._files)}")
            self._files[plan.integer] = path, model
        return self._files[plan.integer]

    def measured(self, plans: Sequence[PrecisionPlan], nothing: PrecisionPlan) -> list[Choice]:
        """Return float first, then every plan, measured in turns."""
        dense = self._export(self.subject.dense, "float")
        rows: list[tuple[PrecisionPlan, Path, nn.Module | None]] = [(nothing, dense, None)]
        rows += [(plan, *self.file(plan)) for plan in plans]
        every = [(row, precision) for precision in self._precisions() for row in rows]
        files = [path for (_, path, _), _ in every]
        self.progress.note(f"measuring {len(every)} files in turns")
        found = measure(
            files,
            threads=(1,),
            runtime=self.subject.runtime,
            config=BenchConfig(seconds=self.subject.seconds),
            precisions=[precision for _, precision in every],
            progress=self.progress,
        )
        latencies = tuple(
            latency_of(found[0], one, some_float=bool(plan.floats), some_integer=bool(plan.integer))
            for ((plan, _, _), _), one in zip(every, found, strict=True)
        )
        return [
            Choice(model, plan, latency, latencies)
            for ((plan, _, model), _), latency in zip(every, latencies, strict=True)
        ]

    def _precisions(self) -> tuple[str, ...]:
        """Return the precisions of float operations to try; no runtime but OpenVINO has two."""
        if self.subject.runtime != "openvino":
            return (FLOAT32,)
        if BFLOAT16 in runtime_by_name(self.subject.runtime).precisions():
            return (FLOAT32, BFLOAT16)
        self.progress.note("bfloat16 is not tried: this processor has no instructions for it")
        return (FLOAT32,)

    def _export(self, model: nn.Module, name: str) -> Path:
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            # Only timed: what is chosen is exported again, and compared with PyTorch then.
            config = OnnxConfig(runtime=self.subject.runtime, tolerance=math.inf)
            to_onnx(model, path, example=example_input(self.subject.preprocessing), config=config)
        return path


def _costs(
    name: str,
    floats: TimesByLayer,
    integers: TimesByLayer,
    loss: float,
    reasons: Mapping[str, str],
) -> LayerCosts:
    if name in integers.integer and name not in reasons:
        return LayerCosts(floats.layers_ms[name], integers.layers_ms[name], loss)
    reason = reasons.get(name) or integers.reasons.get(name, "")
    return LayerCosts(floats.layers_ms[name], None, 0.0, reason or "the runtime leaves it in float")


def _plan_of(model: nn.Module) -> QuantizationPlan:
    plan = plan_of(model)
    if plan is None:
        raise LookupError("a quantized network must have a plan")
    return plan
