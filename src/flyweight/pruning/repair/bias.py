"""Constants of removed channels, folded into the layers that read these channels.

A cut replaces removed channels by zero where they are read. A channel that had a constant value
(its normalisation's scale is zero, or its filter is zero) can be replaced exactly: the layer that
reads it adds the same number at every position. For any other channel its mean is the best constant
(mean replacement: Molchanov et al. 2017, arXiv 1611.06440; bias absorption: arXiv 1906.04721).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from flyweight.graph.dispatch import evaluating
from flyweight.graph.stored import held_tensors, sharing_copy
from flyweight.pruning.plans import GroupPlan, PruningPlan
from flyweight.pruning.repair.layers import Consumer, surroundings
from flyweight.replay.lockstep import Read, as_batch, watch

ROUNDING = 1e-6
"""Largest spread of a constant that float32 rounding explains, as a share of its value."""


@dataclass(frozen=True)
class FoldSettings:
    """Which constants are folded, and where.

    Attributes:
        means: Fold every removed channel's mean over the images, not only true constants.
        approximate: Also fold into convolutions with zero padding. At the borders they read zeros
            in place of the constant, so that the result is not exact there.
        create_bias: Create a bias in a layer that has none and that no normalisation follows. A
            checkpoint that rebuilds the network from its architecture cannot hold it.
    """

    means: bool = False
    approximate: bool = False
    create_bias: bool = False


@dataclass(frozen=True)
class Folded:
    """The constants that were folded into one layer.

    Attributes:
        name: Name of the layer's weight.
        channels: Number of removed channels.
        into: The tensor that holds the constant now, as text.
        exact: Whether the layer adds the same as in the dense network, at every position and for
            every image.
    """

    name: str
    channels: int
    into: str
    exact: bool


@dataclass(frozen=True)
class Folding:
    """The result of `fold_constants`.

    Attributes:
        layers: Every changed layer, in order of execution.
        skipped: Layers that read a constant and could not be changed, with the reason.
    """

    layers: tuple[Folded, ...]
    skipped: tuple[str, ...]


def fold_constants(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    batches: Iterable[Any],
    settings: FoldSettings | None = None,
) -> Folding:
    """Add the constants of removed channels to the layers that read these channels.

    A channel counts as constant if two tests agree: the weights of the dense network explain it
    (the rows of all layers that produce the channel are zero, or the scale of a normalisation is),
    and it has the same value at every position of every image. Where no weights explain a constant,
    and unless means are requested, no image is evaluated.

    Args:
        dense: The network before the cut.
        small: The network after it; changed in place.
        plan: The cut.
        batches: Input tensors, or tuples of the models' arguments.
        settings: Which constants, and where.
    """
    settings = settings or FoldSettings()
    held = [as_batch(batch) for batch in batches]
    if not held:
        return Folding((), ("no images were given",))
    around = surroundings(dense, small, plan, held[0])
    still = _still_positions(dense, plan)
    consumers = {
        name: consumer
        for name, consumer in around.consumers.items()
        if settings.means or still.get(name, frozenset()) & set(consumer.removed)
    }
    if not consumers:
        return Folding((), around.skipped)
    reads = _Reads(consumers)
    tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
    copy = sharing_copy(dense)
    with evaluating(dense):
        for batch in held:
            watch(copy, batch, {name: tensors[name] for name in consumers}, reads)
    layers: list[Folded] = []
    skipped = list(around.skipped)
    with torch.no_grad():
        for name, consumer in consumers.items():
            constant = reads.constants(consumer, still.get(name, frozenset()), settings.means)
            outcome = _fold(
                consumer, tensors[name], constant, settings, padded=name in reads.padded
            )
            if isinstance(outcome, Folded):
                layers.append(outcome)
            elif outcome is not None:
                skipped.append(f"'{name}' {outcome}")
    return Folding(tuple(layers), tuple(skipped))


@dataclass(frozen=True, eq=False)
class _Constants:
    """Constants of a dense layer's inputs, `(groups, inputs per group)`; zero for all others."""

    values: Tensor
    exact: bool

    @property
    def channels(self) -> int:
        return int(self.values.count_nonzero())


def _fold(
    consumer: Consumer,
    weight: Tensor,
    constant: _Constants,
    settings: FoldSettings,
    *,
    padded: bool,
) -> Folded | str | None:
    """Change the layer, or return the reason why not; None if there is no constant."""
    if not constant.channels:
        return None
    if padded and not settings.approximate:
        return "pads with zeros, where the constant is missing; allow approximate=True"
    taps = (
        weight.detach().double().flatten(2).sum(2) if weight.ndim > 2 else weight.detach().double()
    )
    parts = taps.reshape(consumer.groups, -1, taps.shape[1])
    added = (parts * constant.values[:, None].to(parts)).sum(2).flatten()[list(consumer.made)]
    into = consumer.add_constant(added)
    if into is None and settings.create_bias and _give_bias(consumer, added):
        into = "a new bias"
    if into is None:
        return "has no bias, and no normalisation alone takes its result; allow create_bias=True"
    return Folded(consumer.name, constant.channels, into, constant.exact and not padded)


def _give_bias(consumer: Consumer, added: Tensor) -> bool:
    if "bias" not in consumer.module._parameters:
        return False
    consumer.module.register_parameter("bias", nn.Parameter(added.to(consumer.weight)))
    return True


class _Reads:
    """Statistics of what the dense layers read: sum, least and greatest value of every input."""

    def __init__(self, consumers: Iterable[str]) -> None:
        self.padded: set[str] = set()
        self._sums: dict[str, list[Tensor]] = {}
        self._count = dict.fromkeys(consumers, 0)

    def __call__(self, read: Read) -> None:
        """Add one operation's input."""
        values = read.arguments["input"]
        channels = 1 if read.op == "conv2d" else values.ndim - 1
        rest = [axis for axis in range(values.ndim) if axis != channels]
        if read.op == "conv2d" and _pads(read):
            self.padded.add(read.tensor)
        total = values.sum(rest, dtype=torch.float64)
        new = [total, values.amin(rest).double(), values.amax(rest).double()]
        old = self._sums.get(read.tensor, new)
        if old is not new:
            new = [old[0] + new[0], old[1].minimum(new[1]), old[2].maximum(new[2])]
        self._sums[read.tensor] = new
        self._count[read.tensor] += values.numel() // values.shape[channels]

    def constants(self, consumer: Consumer, still: frozenset[int], means: bool) -> _Constants:
        """Return the constant of each removed input of the dense layer."""
        total, least, greatest = (
            row.view(consumer.groups, -1) for row in self._sums[consumer.name]
        )
        size = torch.maximum(least.abs(), greatest.abs())
        rounding = ROUNDING if consumer.weight.dtype != torch.float64 else 1e-12
        same = (greatest - least) <= rounding * size
        reason, gone = torch.zeros_like(same), torch.zeros_like(same)
        reason[:, sorted(still)] = True
        gone[:, list(consumer.removed)] = True
        true = gone & same & reason
        chosen = gone if means else true
        values = torch.where(chosen, total / self._count[consumer.name], 0.0)
        return _Constants(values, bool(((values == 0) | true).all()))


def _pads(read: Read) -> bool:
    padding = read.arguments["padding"]
    if isinstance(padding, str):
        return padding == "same" and max(read.arguments["weight"].shape[2:]) > 1
    return any(int(size) for size in padding)


def _still_positions(dense: nn.Module, plan: PruningPlan) -> dict[str, frozenset[int]]:
    """Return, per consumer, the input positions whose channel is constant by the weights."""
    tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
    found: dict[str, set[int]] = {}
    for group in plan.groups.values():
        still = still_channels(dense, tensors, group)
        for member in group.members:
            if member.role == "consumes":
                places = member.positions(group.channels)[still].ravel().tolist()
                found.setdefault(member.tensor, set()).update(places)
    return {name: frozenset(places) for name, places in found.items()}


def still_channels(
    dense: nn.Module, tensors: Mapping[str, Tensor], group: GroupPlan
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return whether the weights of the dense network make each channel of a group constant."""
    rows = np.ones(group.channels, dtype=bool)
    scales = np.zeros(group.channels, dtype=bool)
    makers = 0
    for member in group.members:
        if member.role == "produces":
            makers += 1
        elif not _is_scale(dense, member.tensor):
            continue
        tensor = tensors[member.tensor].detach().movedim(member.axis, 0)
        zero = (tensor.flatten(1) == 0).all(1) if tensor.ndim > 1 else tensor == 0
        whole = zero.cpu().numpy()[member.positions(group.channels)].all(axis=1)
        if member.role == "produces":
            rows &= whole
        else:
            scales |= whole
    return rows & (makers > 0) | scales


def _is_scale(dense: nn.Module, name: str) -> bool:
    path, _, attribute = name.rpartition(".")
    return attribute == "weight" and isinstance(dense.get_submodule(path), _NormBase)
