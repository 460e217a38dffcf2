"""Fit the layers that read removed channels to what they made before the cut.

He et al. (arXiv 1707.06168) and ThiNet (arXiv 1707.06342): a layer that lost inputs can make up for
much of them with those that stay, because channels are correlated. The best weights are a linear
least-squares problem per layer: pictures, no labels, no gradients.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.stored import held_tensors
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.repair_layers import Consumer, Surroundings, surroundings
from flyweight.pruning.repair_norm import measure_norm
from flyweight.pruning.repair_run import (
    KEEP_BYTES,
    Batch,
    Lockstep,
    Read,
    as_batch,
    evaluating,
    watch,
)

Told = Callable[[str, int, int], None]
"""Told a name, how many are done, and of how many."""


@dataclass(frozen=True)
class FitSettings:
    """How consumers are fitted.

    Attributes:
        rows: Pairs of inputs and wanted outputs per layer, drawn evenly from the pictures'
            positions; at least one per picture.
        ridge: Weight of the change of the weights against the error, as a share of the inputs' mean
            variance. Directions that the pictures do not show stay as they are.
        norms: Re-estimate every batch normalisation behind the first changed layer on the way.
        keep_bytes: How much of the runs is kept, twice: of the pruned network's halted runs, and
            of the dense network's outputs.
        seed: Draws the positions.
    """

    rows: int = 20_000
    ridge: float = 1e-3
    norms: bool = True
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
    """

    name: str
    rows: int
    before: float
    after: float


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
    told: Told | None = None,
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
        told: Told every layer when it is done.
    """
    settings = settings or FitSettings()
    held = [as_batch(batch) for batch in batches]
    if not held:
        return Reconstruction((), ("no pictures were given",))
    around = surroundings(dense, small, plan, held[0])
    stops = around.order if settings.norms else tuple(around.consumers)
    fits: list[LayerFit] = []
    with evaluating(dense, small):
        wanted = _Wanted(dense, around, held, settings)
        steps = Lockstep(small, held, settings.keep_bytes)
        for place, name in enumerate(stops):
            if name in around.norms:
                norm = around.norms[name]
                measure_norm(norm, steps.until(norm.running_mean))  # type: ignore[arg-type]
            else:
                consumer = around.consumers[name]
                fits.append(_refit(consumer, steps.until(consumer.weight), wanted, settings.ridge))
            if told is not None:
                told(name, place + 1, len(stops))
    return Reconstruction(tuple(fits), around.skipped)


def _refit(
    consumer: Consumer, found: Iterator[Mapping[str, Any]], wanted: "_Wanted", ridge: float
) -> LayerFit:
    targets = wanted.of(consumer.name)
    equations = NormalEquations(consumer.weight[0].numel(), consumer.weight.shape[0])
    for index, arguments in enumerate(found):
        equations.add(wanted.draw.inputs(consumer.name, index, arguments), targets[index])
    old = consumer.weight.detach().flatten(1).double()
    constant = None if consumer.bias is None else consumer.bias.detach().double()
    before = equations.error(old, constant)
    weight, fitted = equations.solve(old, ridge, intercept=consumer.takes_constant)
    consumer.weight.data.copy_(weight.reshape(consumer.weight.shape))
    if fitted is not None:
        consumer.add_constant(fitted if constant is None else fitted - constant)
    return LayerFit(consumer.name, equations.count, before, equations.error(weight, fitted))


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

    def solve(
        self, start: Tensor, ridge: float, *, intercept: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return weights `(outputs, features)` and constants `(outputs,)`, if there are any.

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
        return weight, means - weight @ sums / self.count if intercept else None

    def error(self, weight: Tensor, constant: Tensor | None) -> float:
        """Return the squared error of an answer as a share of the wanted outputs' variance."""
        filled = weight.new_zeros(len(weight)) if constant is None else constant
        whole = torch.cat([weight, filled[:, None]], 1)
        error = self._squares - 2 * (whole * self._outer.T).sum(1)
        error += ((whole @ self._inner) * whole).sum(1)
        spread = self._squares - self._outer[-1].square() / self.count
        return float(error.sum().clamp_min(0) / spread.sum().clamp_min(1e-300))


class _Draw:
    """Which positions of which picture are rows; the same ones for inputs and wanted outputs."""

    def __init__(self, names: Sequence[str], per_picture: int, seed: int) -> None:
        self._place = {name: place for place, name in enumerate(names)}
        self.per_picture, self._seed = per_picture, seed

    def _positions(self, name: str, batch: int, pictures: int, count: int) -> Tensor:
        """Return `(pictures, rows per picture)` positions out of `count`, none of them twice."""
        if count <= self.per_picture:
            return torch.arange(count).expand(pictures, count)
        generator = torch.Generator().manual_seed(
            (self._seed * 8191 + self._place[name]) * 131_071 + batch
        )
        return torch.rand(pictures, count, generator=generator).topk(self.per_picture, 1).indices

    def outputs(self, consumer: Consumer, batch: int, read: Read) -> Tensor:
        """Return `(rows, outputs that stay)` of what the dense layer made."""
        made = read.result if read.op == "conv2d" else _channels_second(read.result)
        flat = made.flatten(2)
        places = self._positions(consumer.name, batch, flat.shape[0], flat.shape[2]).to(flat.device)
        drawn = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
        return drawn[:, list(consumer.made)].transpose(1, 2).flatten(0, 1).contiguous()

    def inputs(self, name: str, batch: int, arguments: Mapping[str, Any]) -> Tensor:
        """Return `(rows, inputs)` of what the pruned layer reads, a convolution's as patches."""
        if "stride" not in arguments:
            flat = _channels_second(arguments["input"])
            places = self._positions(name, batch, flat.shape[0], flat.shape[2]).to(flat.device)
            drawn = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
            return drawn.transpose(1, 2).flatten(0, 1)
        window = Window.of(arguments)
        padded = nn.functional.pad(arguments["input"], window.padding)
        height, width = window.outputs(padded)
        places = self._positions(name, batch, padded.shape[0], height * width)
        return window.patches(padded, places.to(padded.device), width)


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution.

    Attributes:
        kernel: Rows and columns.
        stride: Rows and columns from one position to the next.
        dilation: Rows and columns from one tap to the next.
        padding: Left, right, top, bottom, as `functional.pad` takes them.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Window":
        """Read the arguments of `conv2d`."""
        kernel = (int(arguments["weight"].shape[2]), int(arguments["weight"].shape[3]))
        dilation = _pair(arguments["dilation"])
        given = arguments["padding"]
        if isinstance(given, str):
            spans = [tap * (size - 1) for tap, size in zip(dilation, kernel, strict=True)]
            before = [span // 2 if given == "same" else 0 for span in spans]
            after = [span - span // 2 if given == "same" else 0 for span in spans]
        else:
            before = after = list(_pair(given))
        padding = (before[1], after[1], before[0], after[0])
        return cls(kernel, _pair(arguments["stride"]), dilation, padding)

    def outputs(self, padded: Tensor) -> tuple[int, int]:
        """Return rows and columns of what is made from a padded input."""
        sizes = zip(padded.shape[2:], self.kernel, self.stride, self.dilation, strict=True)
        height, width = ((size - tap * (k - 1) - 1) // step + 1 for size, k, step, tap in sizes)
        return height, width

    def patches(self, padded: Tensor, places: Tensor, width: int) -> Tensor:
        """Return `(pictures * positions, channels * taps)` at flat output `places`."""
        rows = torch.arange(self.kernel[0], device=places.device) * self.dilation[0]
        columns = torch.arange(self.kernel[1], device=places.device) * self.dilation[1]
        taps = (rows[:, None] * padded.shape[3] + columns).flatten()
        corner = (places // width) * (self.stride[0] * padded.shape[3])
        corner = corner + (places % width) * self.stride[1]
        index = (corner[:, :, None] + taps).flatten(1)
        flat = padded.flatten(2)
        drawn = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        parts = drawn.unflatten(2, (places.shape[1], len(taps)))
        return parts.transpose(1, 2).flatten(2).flatten(0, 1)


class _Wanted:
    """What the dense layers made, a window of layers at a time so that memory stays bounded."""

    def __init__(
        self,
        dense: nn.Module,
        around: Surroundings,
        batches: Sequence[Batch],
        settings: FitSettings,
    ) -> None:
        pictures = sum(_pictures(batch) for batch in batches)
        names = tuple(around.consumers)
        per_picture = max(math.ceil(settings.rows / max(pictures, 1)), 1)
        self.draw = _Draw(names, per_picture, settings.seed)
        self._dense, self._batches, self._consumers = dense, batches, around.consumers
        self._tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
        self._room = settings.keep_bytes // max(8 * pictures * per_picture, 1)
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


def _channels_second(rows: Tensor) -> Tensor:
    """Return `(pictures, channels, positions)` from `(pictures, ..., channels)`."""
    return rows.reshape(rows.shape[0], -1, rows.shape[-1]).transpose(1, 2)


def _pair(value: Any) -> tuple[int, int]:
    values = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return values[0], values[-1]


def _pictures(batch: Batch) -> int:
    first = next((value for value in batch if isinstance(value, Tensor)), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
