"""Fit the layers that read removed channels to what they made before the cut.

He et al. (arXiv 1707.06168) and ThiNet (arXiv 1707.06342): a layer that lost inputs can make up for
much of them with those that stay, because channels are correlated. The best weights are a linear
least-squares problem per layer: images, no labels, no gradients.
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
from flyweight.pruning.repair.layer_rows import Draw
from flyweight.pruning.repair.layers import Consumer, Surroundings, surroundings
from flyweight.pruning.repair.norms import measure_norm
from flyweight.replay.lockstep import KEEP_BYTES, Batch, Lockstep, Read, as_batch, watch

RIDGES = (1e-3, 3e-2, 1.0, 30.0)
"""What `FitSettings.ridges` is by default."""

CHECKED = 5
"""One of so many rows of every batch chooses among the ridges; the others are fitted on."""


@dataclass(frozen=True)
class FitSettings:
    """How consumers are fitted.

    Attributes:
        rows: Pairs of inputs and wanted outputs per layer, drawn evenly from the images'
            positions; at least one per image.
        ridges: What a change of the weights costs against the error, as shares of the inputs'
            mean variance, in rising order, to choose from for each layer. Directions that the
            images do not show stay as they are.
        norms: Re-estimate every batch normalisation behind the first changed layer on the way.
            Without it they keep the dense network's statistics, which describe what is aimed at.
        keep_bytes: How much of the runs is kept, twice: of the pruned network's halted runs, and
            of the dense network's outputs.
        seed: Draws the positions.
    """

    rows: int = 20_000
    ridges: tuple[float, ...] = RIDGES
    norms: bool = False
    keep_bytes: int = KEEP_BYTES
    seed: int = 0


@dataclass(frozen=True)
class LayerFit:
    """How well a layer makes what it made in the dense network.

    Attributes:
        name: Its weight.
        rows: How many rows it was fitted on.
        before: Squared error with the weights of the cut, as a share of the wanted outputs'
            variance; both are measured on the rows of the fit.
        after: The same with the new weights.
        ridge: The chosen one; `None` if the weights of the cut were best on rows that the fit had
            not seen, and stayed.
    """

    name: str
    rows: int
    before: float
    after: float
    ridge: float | None


@dataclass(frozen=True)
class Reconstruction:
    """What `reconstruct` did.

    Attributes:
        layers: Every fitted layer, in order of execution.
        skipped: Layers that were left as the cut made them, and why.
    """

    layers: tuple[LayerFit, ...]
    skipped: tuple[str, ...]


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

    A layer's inputs come from the pruned network with all earlier layers already refitted, its
    wanted outputs from the dense network, so that it also makes up for what earlier ones could not.
    Each network runs once over the batches (`Lockstep`), whatever the number of layers.

    Args:
        dense: The network before the cut.
        small: The network after it; changed in place.
        plan: What was cut.
        batches: Input tensors, or tuples of the models' arguments; held in memory together.
        settings: How to fit.
        progress: Receives the number of layers that are done.
    """
    settings = settings or FitSettings()
    held = [as_batch(batch) for batch in batches]
    if not held:
        return Reconstruction((), ("no images were given",))
    around, skipped = _fittable(surroundings(dense, small, plan, held[0]))
    stops = around.order if settings.norms else tuple(around.consumers)
    fits: list[LayerFit] = []
    with evaluating(dense, small):
        wanted = _Wanted(sharing_copy(dense), around, held, settings)
        steps = Lockstep(sharing_copy(small), held, settings.keep_bytes)
        for name in progress_over(stops, "least squares", progress_of(progress), lines_every=1):
            if name in around.norms:
                norm = around.norms[name]
                measure_norm(norm, steps.until(norm.running_mean))  # type: ignore[arg-type]
            else:
                consumer = around.consumers[name]
                fits.append(_refit(consumer, steps.until(consumer.weight), wanted, settings.ridges))
    return Reconstruction(tuple(fits), skipped)


def _fittable(around: Surroundings) -> tuple[Surroundings, tuple[str, ...]]:
    grouped = {name for name, consumer in around.consumers.items() if consumer.groups > 1}
    rest = {name: around.consumers[name] for name in around.consumers if name not in grouped}
    order = tuple(name for name in around.order if name not in grouped)
    notes = (f"'{name}' is a grouped convolution" for name in around.consumers if name in grouped)
    return replace(around, consumers=rest, order=order), (*around.skipped, *notes)


def _refit(
    consumer: Consumer,
    found: Iterator[Mapping[str, Any]],
    wanted: "_Wanted",
    ridges: tuple[float, ...],
) -> LayerFit:
    targets = wanted.of(consumer.name)
    shape = consumer.weight[0].numel(), consumer.weight.shape[0]
    equations, unseen = NormalEquations(*shape), NormalEquations(*shape)
    for index, arguments in enumerate(found):
        rows = wanted.draw.inputs(consumer.name, index, arguments)
        # Rows come image by image, so these are of other images.
        seen = len(rows) - len(rows) // CHECKED
        equations.add(rows[:seen], targets[index][:seen])
        unseen.add(rows[seen:], targets[index][seen:])
    old = consumer.weight.detach().flatten(1).double()
    constant = None if consumer.bias is None else consumer.bias.detach().double()
    start = Answer(old, constant)
    ridge = _best_ridge(equations, unseen, start, ridges, intercept=consumer.takes_constant)
    equations.include(unseen)
    before = equations.error(start)
    if ridge is None:
        return LayerFit(consumer.name, equations.count, before, before, None)
    answer = equations.solve(old, ridge, intercept=consumer.takes_constant)
    consumer.weight.data.copy_(answer.weight.reshape(consumer.weight.shape))
    if answer.constant is not None:
        added = answer.constant if constant is None else answer.constant - constant
        consumer.add_constant(added)
    return LayerFit(consumer.name, equations.count, before, equations.error(answer), ridge)


@dataclass(frozen=True, eq=False)
class Answer:
    """Weights `(outputs, features)` and constants `(outputs,)`, if there are any."""

    weight: Tensor
    constant: Tensor | None


def _best_ridge(
    equations: "NormalEquations",
    unseen: "NormalEquations",
    start: Answer,
    ridges: tuple[float, ...],
    *,
    intercept: bool,
) -> float | None:
    """Return the ridge whose answer errs least on rows it has not seen, if any beats `start`."""
    if not unseen.count:
        return ridges[0]
    least, best = unseen.error(start), None
    for ridge in ridges:
        error = unseen.error(equations.solve(start.weight, ridge, intercept=intercept))
        if error < least:
            least, best = error, ridge
        elif best is not None:
            break  # Beyond the best one the error only grows, and every try costs a factorisation.
    return best


class NormalEquations:
    """A linear least-squares problem, summed up in float64 as its rows come.

    Args:
        features: Inputs per row.
        outputs: Wanted outputs per row.
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

    def solve(self, start: Tensor, ridge: float, *, intercept: bool) -> Answer:
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
        return Answer(weight, means - weight @ sums / self.count if intercept else None)

    def error(self, answer: Answer) -> float:
        """Return the squared error of an answer as a share of the wanted outputs' variance."""
        weight, constant = answer.weight, answer.constant
        filled = weight.new_zeros(len(weight)) if constant is None else constant
        whole = torch.cat([weight, filled[:, None]], 1)
        error = self._squares - 2 * (whole * self._outer.T).sum(1)
        error += ((whole @ self._inner) * whole).sum(1)
        spread = self._squares - self._outer[-1].square() / self.count
        return float(error.sum().clamp_min(0) / spread.sum().clamp_min(1e-300))


class _Wanted:
    """What the dense layers made, a window of layers at a time so that memory stays bounded."""

    def __init__(
        self,
        dense: nn.Module,
        around: Surroundings,
        batches: Sequence[Batch],
        settings: FitSettings,
    ) -> None:
        images = sum(_images(batch) for batch in batches)
        names = tuple(around.consumers)
        per_image = max(math.ceil(settings.rows / max(images, 1)), 1)
        self.draw = Draw(names, per_image, settings.seed)
        self._dense, self._batches, self._consumers = dense, batches, around.consumers
        self._tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
        self._room = settings.keep_bytes // max(8 * images * per_image, 1)
        self._waiting, self._held = list(names), dict[str, list[Tensor]]()

    def of(self, name: str) -> list[Tensor]:
        """Return the wanted outputs of a layer per batch; layers are asked for in order."""
        if name not in self._held:
            self._collect()
        return self._held.pop(name)

    def _collect(self) -> None:
        chosen: list[str] = []
        columns = 0
        while self._waiting and (not chosen or columns < self._room):
            chosen.append(self._waiting.pop(0))
            columns += len(self._consumers[chosen[-1]].made)
        self._held = {name: [] for name in chosen}
        watched = {name: self._tensors[name] for name in chosen}
        for index, batch in enumerate(self._batches):

            def take(read: Read, index: int = index) -> None:
                drawn = self.draw.outputs(self._consumers[read.tensor], index, read)
                self._held[read.tensor].append(drawn)

            watch(self._dense, batch, watched, take, last=chosen[-1])


def _images(batch: Batch) -> int:
    first = next((value for value in batch if isinstance(value, Tensor)), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
