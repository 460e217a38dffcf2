"""The repair of a network after its cut and before any training, with few images and no labels.

It has four steps in this order: constants of removed channels, normalisations over channels that
lost some of them (inexact cuts only), statistics of batch normalisations (optional), and the
weights of the layers that read removed channels. Each step can be used alone; the effect of each
is measured.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import tensors_in
from flyweight.graph.stored import copy_module, sharing_copy
from flyweight.origin import EPSILONS_VERSION, REPAIR_VERSION, Transform, note_transform
from flyweight.progress import Progress, progress_of
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.repair.bias import Folding, FoldSettings, fold_constants
from flyweight.pruning.repair.channel_norms import without_scale
from flyweight.pruning.repair.layers import surroundings
from flyweight.pruning.repair.least_squares import FitSettings, Reconstruction, reconstruct
from flyweight.pruning.repair.norm_fit import NormFit, norms_text
from flyweight.pruning.repair.norms import reestimate_norms
from flyweight.replay.lockstep import KEEP_BYTES, Batch, as_batch

Metric = Callable[[nn.Module], float]


@dataclass(frozen=True)
class RepairSettings:
    """Settings of a repair.

    Attributes:
        norms: Measure every batch normalisation behind the first changed layer again, and once more
            while layers are refitted. Off by default, because refitted layers reproduce what the
            statistics of the dense network describe. Useful for networks that are not refitted.
        constants: Fold true constants (`exact`), every removed channel's mean (`mean`, also where
            zero padding makes it inexact at borders), or nothing. Least squares finds better
            constants than means.
        channel_norms: Correct LayerNorm, GroupNorm and RMSNorm that lost channels: exactly where
            that is possible, otherwise by a new scale and offset, fitted on the images. Once before
            the layers are refitted, and again with them. Only inexact cuts have this step.
        reconstruct: Refit the layers that read removed channels by least squares.
        rows: See `FitSettings`.
        ridges: See `FitSettings`.
        keep_bytes: See `FitSettings`.
        held_out: Number of the last batches that are used only to measure the error; never all.
    """

    norms: bool = False
    constants: Literal["exact", "mean"] | None = "exact"
    channel_norms: bool = True
    reconstruct: bool = True
    rows: int = FitSettings.rows
    ridges: tuple[float, ...] = FitSettings.ridges
    keep_bytes: int = KEEP_BYTES
    held_out: int = 1


@dataclass(frozen=True)
class RepairStep:
    """The network after one step.

    Attributes:
        name: `cut`, `constants`, `channel norms`, `norms` or `least squares`.
        error: Distance of its outputs from the dense network's on the held-out batches, as a share
            of the size of these outputs: 0 means equal, 1 is the error of outputs that are zero.
        metric: The caller's metric, if one was given.
        seconds: Duration of the step, without measuring.
        done: The changes, as text.
        skipped: Layers that were not changed, with the reason.
        norms: Every normalisation over channels that was looked at, with its error before and
            after.
    """

    name: str
    error: float
    metric: float | None = None
    seconds: float = 0.0
    done: str = ""
    skipped: tuple[str, ...] = ()
    norms: tuple[NormFit, ...] = ()


@dataclass(frozen=True)
class RepairReport:
    """The effect of a repair.

    Attributes:
        dense_metric: The caller's metric of the dense network, if one was given.
        steps: The cut, then every step, each applied after the ones before.
    """

    dense_metric: float | None
    steps: tuple[RepairStep, ...]

    @property
    def seconds(self) -> float:
        """Duration of the repair, without measuring."""
        return sum(step.seconds for step in self.steps)

    def brought_back(self, step: RepairStep | None = None) -> float | None:
        """Return the recovered share of the metric's loss, after `step` or after all steps."""
        cut, last = self.steps[0].metric, (step or self.steps[-1]).metric
        if self.dense_metric is None or cut is None or last is None or self.dense_metric == cut:
            return None
        return (last - cut) / (self.dense_metric - cut)

    def __str__(self) -> str:
        """Return one line: the error or metric after each step, and the recovered share.

        After an inexact cut, a line for each normalisation over channels follows.
        """
        return "\n  ".join([self._line(), *(f"norm {fit}" for fit in self._norms())])

    def _norms(self) -> list[NormFit]:
        """Return, for every normalisation, its first error and its last one."""
        found: dict[str, NormFit] = {}
        for fit in (fit for step in self.steps for fit in step.norms):
            first = found.get(fit.name)
            if first is None:
                found[fit.name] = fit
            else:
                ways = dict.fromkeys([*first.how.split(", "), *fit.how.split(", ")])
                changed = [way for way in ways if way != "kept"] or ["kept"]
                found[fit.name] = replace(fit, before=first.before, how=", ".join(changed))
        return list(found.values())

    def _line(self) -> str:
        if self.dense_metric is None:
            parts = [f"{_sign(step)}{step.name} {step.error:.3f}" for step in self.steps]
            return f"output error: {', '.join(parts)} ({self.seconds:.0f} s)"
        parts = [f"{_sign(step)}{step.name} {step.metric:.3f}" for step in self.steps]
        share = self.brought_back()
        back = "" if share is None else f": {share:.0%} of the loss brought back"
        return f"dense {self.dense_metric:.3f}, {', '.join(parts)}{back} ({self.seconds:.0f} s)"


def _sign(step: RepairStep) -> str:
    return "" if step.name == "cut" else "+ "


def repair(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    batches: Iterable[Any],
    settings: RepairSettings | None = None,
    *,
    metric: Metric | None = None,
    progress: Progress | bool = False,
) -> tuple[nn.Module, RepairReport]:
    """Return a repaired copy of `small` and the effect of each step; see `repair_`."""
    repaired = copy_module(small, private=False)
    report = repair_(dense, repaired, plan, batches, settings, metric=metric, progress=progress)
    return repaired, report


def repair_(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    batches: Iterable[Any],
    settings: RepairSettings | None = None,
    *,
    metric: Metric | None = None,
    progress: Progress | bool = False,
) -> RepairReport:
    """Repair `small` in place; no tensor changes its name or shape.

    Args:
        dense: The network before the cut.
        small: `prune(dense, plan)`, on the same device.
        plan: The cut.
        batches: Input tensors, or tuples of the models' arguments; about 500 images are enough.
            They are held in memory together.
        settings: Which steps, and how.
        metric: Evaluates a network, larger is better; called once per step, and on the dense
            network.
        progress: Receives a note for every step, and the layers that least squares has refitted.
    """
    dense, small = plain_module(dense), plain_module(small)
    settings = settings or RepairSettings()
    held = [as_batch(batch) for batch in batches]
    aside = min(max(settings.held_out, 0), max(len(held) - 1, 0))
    images, held_out = held[: len(held) - aside], held[len(held) - aside :] or held
    evaluator = _Evaluator(dense, small, held_out, metric)
    steps = [evaluator.after("cut", 0.0, _Changes(""))]
    work = _Work(dense, small, plan, images, settings, progress_of(progress))
    for name, wanted, run in (
        ("constants", settings.constants is not None, work.constants),
        ("channel norms", settings.channel_norms and not plan.exact, work.channel_norms),
        ("norms", settings.norms, work.norms),
        ("least squares", settings.reconstruct, work.least_squares),
    ):
        if wanted and images:
            started = time.perf_counter()
            changes = run()
            steps.append(evaluator.after(name, time.perf_counter() - started, changes))
    note_transform(small, _as_transform(settings, len(images), steps))
    epsilons = {fit.path: fit.epsilon for step in steps for fit in step.norms if fit.epsilon}
    if epsilons:
        note_transform(small, Transform.of("epsilons", EPSILONS_VERSION, epsilons))
    return RepairReport(None if metric is None else metric(dense), tuple(steps))


def _as_transform(settings: RepairSettings, batches: int, steps: Sequence[RepairStep]) -> Transform:
    """Return the record of the repair for a checkpoint; loading does not use it."""
    done = [
        {
            "name": step.name,
            "error": step.error if math.isfinite(step.error) else None,
            "done": step.done,
        }
        for step in steps
    ]
    data = {**asdict(settings), "ridges": list(settings.ridges), "batches": batches, "steps": done}
    return Transform.of("repair", REPAIR_VERSION, data)


@dataclass(frozen=True)
class _Changes:
    """What a step did: text, layers left as they are with reasons, and normalisations."""

    done: str
    skipped: tuple[str, ...] = ()
    norms: tuple[NormFit, ...] = ()


@dataclass(frozen=True, eq=False)
class _Work:
    dense: nn.Module
    small: nn.Module
    plan: PruningPlan
    images: Sequence[Batch]
    settings: RepairSettings
    progress: Progress

    def constants(self) -> _Changes:
        """Fold constants."""
        self.progress.note("constants")
        means = self.settings.constants == "mean"
        chosen = FoldSettings(means=means, approximate=means)
        made: Folding = fold_constants(self.dense, self.small, self.plan, self.images, chosen)
        channels = sum(layer.channels for layer in made.layers)
        exact = sum(layer.exact for layer in made.layers)
        done = f"{channels} constants into {len(made.layers)} layers, {exact} of them exactly"
        return _Changes(done, made.skipped)

    def channel_norms(self) -> _Changes:
        """Correct normalisations over channels, exactly or on the images."""
        chosen = FitSettings(
            rows=self.settings.rows, keep_bytes=self.settings.keep_bytes, layers=False, folds=True
        )
        made = self._reconstructed(chosen)
        done = norms_text(made.norms)
        for fit in made.norms:
            self.progress.note(f"norm {fit}")
        remarks = tuple(without_scale(self.dense, self.small, self.images[0]))
        return _Changes(done, (*made.skipped_norms, *remarks), made.norms)

    def norms(self) -> _Changes:
        """Re-estimate the normalisations that the cut reaches."""
        self.progress.note("norms")
        around = surroundings(self.dense, self.small, self.plan, self.images[0])
        skipped = reestimate_norms(
            self.small, self.images, only=around.norms, keep_bytes=self.settings.keep_bytes
        )
        return _Changes(f"{len(around.norms)} normalisations", skipped)

    def least_squares(self) -> _Changes:
        """Refit the consumers."""
        chosen = FitSettings(
            rows=self.settings.rows,
            ridges=self.settings.ridges,
            norms=self.settings.norms,
            keep_bytes=self.settings.keep_bytes,
            channel_norms=self.settings.channel_norms,
        )
        made = self._reconstructed(chosen)
        kept = tuple(
            f"'{fit.name}' keeps the weights of the cut, which are best on held-out rows"
            for fit in made.layers
            if fit.ridge is None
        )
        done = f"{len(made.layers) - len(kept)} layers"
        if made.norms:
            done = f"{done}, {norms_text(made.norms)}"
        return _Changes(done, (*made.skipped, *kept), made.norms)

    def _reconstructed(self, chosen: FitSettings) -> Reconstruction:
        return reconstruct(
            self.dense, self.small, self.plan, self.images, chosen, progress=self.progress
        )


@dataclass(frozen=True, eq=False)
class _Evaluator:
    dense: nn.Module
    small: nn.Module
    held_out: Sequence[Batch]
    metric: Metric | None

    def after(self, name: str, seconds: float, changes: _Changes) -> RepairStep:
        """Return the step with its measurements."""
        error = output_error(self.dense, self.small, self.held_out)
        value = None if self.metric is None else float(self.metric(self.small))
        return RepairStep(name, error, value, seconds, changes.done, changes.skipped, changes.norms)


def output_error(dense: nn.Module, small: nn.Module, batches: Iterable[Any]) -> float:
    """Return the distance of `small`'s outputs from `dense`'s, as a share of the outputs' size.

    Both are Euclidean norms over all outputs and batches: 0 means equal, 1 is the error of outputs
    that are zero.
    """
    gap, size = 0.0, 0.0
    one, other = sharing_copy(dense), sharing_copy(small)
    with evaluating(dense, small):
        for batch in map(as_batch, batches):
            pairs = zip(tensors_in(one(*batch)), tensors_in(other(*batch)), strict=True)
            for wanted, found in pairs:
                gap += float((found.double() - wanted.double()).square().sum())
                size += float(wanted.double().square().sum())
    return (gap / size) ** 0.5 if size else (0.0 if gap == 0 else float("inf"))
