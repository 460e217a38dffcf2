"""Least-squares fit of the layers that read removed channels to their results before the cut.

He et al. 2017 (arXiv 1707.06168) and ThiNet (arXiv 1707.06342): a layer that lost inputs can
compensate much of the loss with those that stay, because channels are correlated. The best weights
are the solution of a linear least-squares problem per layer; it needs images, no labels and no
gradients.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.stored import held_tensors, sharing_copy
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.repair.layer_rows import CHECKED, Draw
from flyweight.pruning.repair.layers import Consumer, Surroundings, surroundings
from flyweight.pruning.repair.norm_fit import NormFit, refit_norm
from flyweight.pruning.repair.norm_folding import folds_of
from flyweight.pruning.repair.norms import measure_norm
from flyweight.replay.lockstep import KEEP_BYTES, Batch, Lockstep, Read, as_batch, watch

RIDGES = (1e-3, 3e-2, 1.0, 30.0)
"""Default of `FitSettings.ridges`."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of the fit.

    Attributes:
        rows: Pairs of inputs and target outputs per layer, drawn evenly from the positions of the
            images; at least one per image.
        ridges: Weights of the squared change of a layer's weights against the squared error, as
            shares of the mean variance of the inputs, in rising order. The best one is chosen for
            each layer. Weights along directions that do not occur in the images stay unchanged.
        norms: Measure every batch normalisation behind the first changed layer again during the
            fit. Without it they keep the statistics of the dense network, which the fit aims at.
        keep_bytes: Limit of the memory for intermediate tensors of the pruned network, and again
            for the target outputs of the dense network.
        seed: Seed of the drawn positions.
        layers: Fit layers; otherwise only normalisations.
        channel_norms: Correct normalisations over channels that lost some of them (LayerNorm,
            GroupNorm, RMSNorm) on the way.
        folds: Correct those exactly where that is possible; changes their epsilons. Once for a cut.
    """

    rows: int = 20_000
    ridges: tuple[float, ...] = RIDGES
    norms: bool = False
    keep_bytes: int = KEEP_BYTES
    seed: int = 0
    layers: bool = True
    channel_norms: bool = True
    folds: bool = False


@dataclass(frozen=True)
class LayerFit:
    """The fit of one layer.

    Attributes:
        name: Name of the layer's weight.
        rows: Number of rows that it was fitted on.
        before: Squared error with the weights of the cut, as a share of the target outputs'
            variance, on the rows of the fit.
        after: The same with the new weights.
        ridge: The chosen ridge; `None` if the weights of the cut had the smallest error on held-out
            rows, and were kept.
    """

    name: str
    rows: int
    before: float
    after: float
    ridge: float | None


@dataclass(frozen=True)
class Reconstruction:
    """The result of `reconstruct`.

    Attributes:
        layers: Every fitted layer, in order of execution.
        skipped: Layers that were not fitted, with the reason.
        norms: Every corrected normalisation over channels, in order of execution.
        skipped_norms: Those that were not corrected, with the reason.
    """

    layers: tuple[LayerFit, ...]
    skipped: tuple[str, ...]
    norms: tuple[NormFit, ...] = ()
    skipped_norms: tuple[str, ...] = ()


def reconstruct(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    batches: Iterable[Any],
    settings: FitSettings | None = None,
    *,
    progress: Progress | bool = False,
) -> Reconstruction:
    """Refit every consumer of a pruned group, in order of execution.

    A layer's inputs come from the pruned network with all earlier layers already refitted, and its
    target outputs from the dense network, so that it also corrects the remaining errors of earlier
    layers. Each network runs once over the batches (`Lockstep`), for any number of layers.

    Args:
        dense: The network before the cut.
        small: The network after it; changed in place.
        plan: The cut.
        batches: Input tensors, or tuples of the models' arguments; held in memory together.
        settings: Settings of the fit.
        progress: Receives the number of layers that are done.
    """
    settings = settings or FitSettings()
    held = [as_batch(batch) for batch in batches]
    if not held:
        return Reconstruction((), ("no images were given",))
    around, skipped = _fittable(surroundings(dense, small, plan, held[0]), settings)
    folds = folds_of(dense, plan, around.channel_norms, held) if settings.folds else {}
    fits: list[LayerFit] = []
    norm_fits: list[NormFit] = []
    title = "least squares" if settings.layers else "channel norms"
    with evaluating(dense, small):
        targets = _Targets(sharing_copy(dense), around, held, settings)
        steps = Lockstep(sharing_copy(small), held, settings.keep_bytes)
        for name in progress_over(around.order, title, progress_of(progress), lines_every=1):
            if name in around.norms:
                norm = around.norms[name]
                measure_norm(norm, steps.until(norm.running_mean))  # type: ignore[arg-type]
            elif name in around.channel_norms:
                scaled, wanted = around.channel_norms[name], targets.of(name)
                calls = steps.until(scaled.weight)
                norm_fits.append(refit_norm(scaled, calls, wanted, targets.draw, folds.get(name)))
            else:
                consumer = around.consumers[name]
                fits.append(
                    _refit(consumer, steps.until(consumer.weight), targets, settings.ridges)
                )
    return Reconstruction(tuple(fits), skipped, tuple(norm_fits), around.skipped_norms)


def _fittable(around: Surroundings, settings: FitSettings) -> tuple[Surroundings, tuple[str, ...]]:
    """Leave out what is not wanted, and layers that no fit changes."""
    if not settings.layers:
        around = replace(around, consumers={}, skipped=())
    if not settings.channel_norms:
        around = replace(around, channel_norms={}, skipped_norms=())
    if not settings.norms:
        around = replace(around, norms={})
    grouped = {name for name, consumer in around.consumers.items() if consumer.groups > 1}
    rest = {name: around.consumers[name] for name in around.consumers if name not in grouped}
    known = {*rest, *around.norms, *around.channel_norms}
    order = tuple(name for name in around.order if name in known)
    notes = (f"'{name}' is a grouped convolution" for name in around.consumers if name in grouped)
    return replace(around, consumers=rest, order=order), (*around.skipped, *notes)


def _refit(
    consumer: Consumer,
    found: Iterator[Mapping[str, Any]],
    targets: "_Targets",
    ridges: tuple[float, ...],
) -> LayerFit:
    outputs = targets.of(consumer.name)
    shape = consumer.weight[0].numel(), consumer.weight.shape[0]
    equations, held_out = NormalEquations(*shape), NormalEquations(*shape)
    for index, arguments in enumerate(found):
        rows = targets.draw.inputs(consumer.name, index, arguments)
        # Rows come image by image, so these are of other images.
        seen = len(rows) - len(rows) // CHECKED
        equations.add(rows[:seen], outputs[index][:seen])
        held_out.add(rows[seen:], outputs[index][seen:])
    old = consumer.weight.detach().flatten(1).double()
    constant = None if consumer.bias is None else consumer.bias.detach().double()
    start = Solution(old, constant)
    ridge = _best_ridge(equations, held_out, start, ridges, intercept=consumer.takes_constant)
    equations.include(held_out)
    before = equations.error(start)
    if ridge is None:
        return LayerFit(consumer.name, equations.count, before, before, None)
    solution = equations.solve(old, ridge, intercept=consumer.takes_constant)
    consumer.weight.data.copy_(solution.weight.reshape(consumer.weight.shape))
    if solution.constant is not None:
        added = solution.constant if constant is None else solution.constant - constant
        consumer.add_constant(added)
    return LayerFit(consumer.name, equations.count, before, equations.error(solution), ridge)


@dataclass(frozen=True, eq=False)
class Solution:
    """A solution: weights `(outputs, features)` and, if there are any, constants `(outputs,)`."""

    weight: Tensor
    constant: Tensor | None


def _best_ridge(
    equations: "NormalEquations",
    held_out: "NormalEquations",
    start: Solution,
    ridges: tuple[float, ...],
    *,
    intercept: bool,
) -> float | None:
    """Return the ridge with the smallest error on held-out rows; None if `start` is as good."""
    if not held_out.count:
        return ridges[0]
    least, best = held_out.error(start), None
    for ridge in ridges:
        error = held_out.error(equations.solve(start.weight, ridge, intercept=intercept))
        if error < least:
            least, best = error, ridge
        elif best is not None:
            break  # Beyond the best one the error only grows, and each costs a factorisation.
    return best


class NormalEquations:
    """A linear least-squares problem, accumulated in float64 row by row.

    Args:
        features: Inputs per row.
        outputs: Target outputs per row.
    """

    def __init__(self, features: int, outputs: int) -> None:
        self.count = 0
        self._inner = torch.zeros(features + 1, features + 1, dtype=torch.float64)
        self._outer = torch.zeros(features + 1, outputs, dtype=torch.float64)
        self._squares = torch.zeros(outputs, dtype=torch.float64)

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Add `(n, features)` and `(n, outputs)`."""
        rows, targets = rows.double(), targets.double()
        rows = torch.cat([rows, rows.new_ones(rows.shape[0], 1)], 1)
        self._inner = self._inner.to(rows.device).addmm_(rows.T, rows)
        self._outer = self._outer.to(rows.device).addmm_(rows.T, targets)
        self._squares = self._squares.to(rows.device) + targets.square().sum(0)
        self.count += rows.shape[0]

    def include(self, other: "NormalEquations") -> None:
        """Add the rows of `other`."""
        if other.count:
            self._inner = self._inner.to(other._inner) + other._inner
            self._outer = self._outer.to(other._outer) + other._outer
            self._squares = self._squares.to(other._squares) + other._squares
            self.count += other.count

    def solve(self, start: Tensor, ridge: float, *, intercept: bool) -> Solution:
        """Return the best weights and, with an intercept, constants.

        They minimise the squared error plus `ridge` times the mean variance of the inputs times the
        squared distance of the weights from `start`. The constants are free.
        """
        inner, outer = self._inner[:-1, :-1], self._outer[:-1]
        sums, means = self._inner[:-1, -1], self._outer[-1] / self.count
        if intercept:
            inner = inner - torch.outer(sums, sums) / self.count
            outer = outer - torch.outer(sums, means)
        scale = float(inner.diagonal().mean())
        weight = start.double()
        if scale > 0:
            damped = inner + max(ridge, 1e-12) * scale * torch.eye(len(inner)).to(inner)
            factor = torch.linalg.cholesky(damped)
            weight = weight + torch.cholesky_solve(outer - inner @ weight.T, factor).T
        return Solution(weight, means - weight @ sums / self.count if intercept else None)

    def error(self, solution: Solution) -> float:
        """Return the squared error of a solution as a share of the target outputs' variance."""
        weight, constant = solution.weight, solution.constant
        filled = weight.new_zeros(len(weight)) if constant is None else constant
        whole = torch.cat([weight, filled[:, None]], 1)
        error = self._squares - 2 * (whole * self._outer.T).sum(1)
        error += ((whole @ self._inner) * whole).sum(1)
        spread = self._squares - self._outer[-1].square() / self.count
        return float(error.sum().clamp_min(0) / spread.sum().clamp_min(1e-300))


class _Targets:
    """Target outputs: samples of the dense layers' results, of several layers at a time.

    As many layers as fit into the memory limit are collected in one pass over the batches.
    """

    def __init__(
        self,
        dense: nn.Module,
        around: Surroundings,
        batches: Sequence[Batch],
        settings: FitSettings,
    ) -> None:
        images = sum(_images(batch) for batch in batches)
        names = tuple(name for name in around.order if name not in around.norms)
        per_image = max(math.ceil(settings.rows / max(images, 1)), 1)
        self.draw = Draw(names, per_image, settings.seed)
        self._dense, self._batches = dense, batches
        self._consumers, self._norms = around.consumers, around.channel_norms
        self._tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
        self._most_columns = settings.keep_bytes // max(8 * images * per_image, 1)
        self._waiting, self._held = list(names), dict[str, list[Tensor]]()

    def of(self, name: str) -> list[Tensor]:
        """Return the target outputs of a layer per batch; layers must be requested in order."""
        if name not in self._held:
            self._collect()
        return self._held.pop(name)

    def _collect(self) -> None:
        chosen: list[str] = []
        columns = 0
        while self._waiting and (not chosen or columns < self._most_columns):
            chosen.append(self._waiting.pop(0))
            columns += len(self._made(chosen[-1]))
        self._held = {name: [] for name in chosen}
        watched = {name: self._tensors[name] for name in chosen}
        for index, batch in enumerate(self._batches):

            def take(read: Read, index: int = index) -> None:
                self._held[read.tensor].append(self._drawn(index, read))

            watch(self._dense, batch, watched, take, last=chosen[-1])

    def _made(self, name: str) -> tuple[int, ...]:
        layer = self._norms[name] if name in self._norms else self._consumers[name]
        return layer.made

    def _drawn(self, index: int, read: Read) -> Tensor:
        norm = self._norms.get(read.tensor)
        if norm is None:
            return self.draw.outputs(self._consumers[read.tensor], index, read)
        rows = self.draw.sample(norm.name, index, read.result, norm.axis)
        return rows[:, list(norm.made)].contiguous()


def _images(batch: Batch) -> int:
    first = next((value for value in batch if isinstance(value, Tensor)), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
