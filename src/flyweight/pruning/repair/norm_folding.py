"""Exact corrections of cut normalisations: removed channels that never change, folded.

Let `N` channels be normalised together in the dense network, `K` of them stay, and the others have
the constants `c`, the same at every position of every image.

**RMSNorm.** The dense network divides by the root of `(K q + S) / N + e`, where `q` is the mean
square of the channels that stay, `S` the sum of the squares of the constants and `e` the epsilon.
This is `(K / N) (q + (S + N e) / K)`. So the pruned normalisation returns the same with its scale
multiplied by `sqrt(N / K)` and with the epsilon `(N e + S) / K`; for constants of zero, that is
`e N / K`. This holds for any constants.

**LayerNorm, GroupNorm.** Let `m` be the mean of the channels that stay and `v` their variance. If
the mean of the constants equals `m`, the mean of all channels is `m` too, and their variance is
`(K v + S) / N`, where `S` is now the sum of `(c - m)^2`. Scale and epsilon follow as above. `m` has
to be the same number everywhere, because the constants are: that is so where the rows of every
layer that makes these channels add up to zero, a centred network. Without this the difference of
the means enters the result divided by a deviation that varies, and no scale and offset correct it.

A GroupNorm does this in every block; the blocks have one epsilon, so they must agree on `S`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.stored import held_tensors, sharing_copy
from flyweight.pruning.plans import GroupPlan, PruningPlan
from flyweight.pruning.repair.bias import still_channels
from flyweight.pruning.repair.channel_norms import ChannelNorm
from flyweight.replay.lockstep import Batch, Read, watch

_ROUNDING = {torch.float64: 1e-13}
_LOW_ROUNDING = 1e-6
"""Largest difference that rounding explains, as a share of the values; float64, other types."""


@dataclass(frozen=True)
class NormFold:
    """An exact correction of one normalisation.

    Attributes:
        path: Of the module that holds the epsilon.
        gain: What its scale is multiplied by.
        epsilon: The new epsilon.
    """

    path: str
    gain: float
    epsilon: float

    def apply(self, norm: ChannelNorm) -> None:
        """Change the scale and the epsilon of a normalisation of the pruned network."""
        norm.weight.data.copy_((norm.weight.detach().double() * self.gain).to(norm.weight.dtype))
        norm.module.eps = self.epsilon  # type: ignore[assignment]


def folds_of(
    dense: nn.Module,
    plan: PruningPlan,
    norms: Mapping[str, ChannelNorm],
    batches: Sequence[Batch],
) -> dict[str, NormFold]:
    """Return the normalisations that can be corrected exactly.

    Two tests must agree, as in `bias.fold_constants`: the weights of the dense network explain the
    constants and the mean, and every image confirms them.

    Args:
        dense: The network before the cut.
        plan: The cut.
        norms: The cut normalisations, by the name of their scale.
        batches: Arguments of the network.
    """
    tensors = {name: tensor for name, tensor, _ in held_tensors(dense)}
    explained = {
        name: norm for name, norm in norms.items() if _explained(dense, tensors, plan, norm)
    }
    if not explained:
        return {}
    sums = _Inputs(explained)
    copy = sharing_copy(dense)
    with evaluating(copy):
        for batch in batches:
            watch(copy, batch, {name: tensors[name] for name in explained}, sums)
    found = {name: sums.fold(norm) for name, norm in explained.items()}
    return {name: fold for name, fold in found.items() if fold is not None}


def _explained(
    dense: nn.Module, tensors: Mapping[str, Tensor], plan: PruningPlan, norm: ChannelNorm
) -> bool:
    """Whether weights are the reason for the constants and, where it counts, for the mean."""
    if not norm.removed or not isinstance(getattr(norm.module, "eps", 0), float | None):
        return False
    if not hasattr(norm.module, "eps"):
        return False
    still: set[int] = set()
    for group in plan.groups.values():
        own = [m for m in group.members if m.tensor == norm.name]
        if own and norm.op != "rms_norm" and not _centred(tensors, group):
            return False
        for member in own:
            rows = member.positions(group.channels)[still_channels(dense, tensors, group)]
            still.update(rows.ravel().tolist())
    return set(norm.removed) <= still


def _centred(tensors: Mapping[str, Tensor], group: GroupPlan) -> bool:
    """Whether the rows that make the channels that stay add up to zero, in every block."""
    for member in group.members:
        if member.role != "produces":
            continue
        places = torch.from_numpy(member.positions(group.channels)[list(group.keep)])
        rows = tensors[member.tensor].detach().movedim(member.axis, 0).double()
        kept = rows[places.to(rows.device)]
        size = kept.abs().sum(0)
        if bool((kept.sum(0).abs() > _rounding(tensors[member.tensor].dtype) * size).any()):
            return False
    return True


class _Inputs:
    """Constants of removed channels and means of the others, as the dense network computes them."""

    def __init__(self, norms: Mapping[str, ChannelNorm]) -> None:
        self._norms = norms
        self._ranges: dict[str, tuple[Tensor, Tensor]] = {}
        self._facts: dict[str, tuple[int, float | None, torch.dtype, float]] = {}

    def __call__(self, read: Read) -> None:
        """Add the input of one normalisation."""
        norm = self._norms[read.tensor]
        if read.arguments.get("weight") is None or read.op != norm.op:
            return
        values = read.arguments["input"].detach().double().movedim(norm.axis, -1).flatten(0, -2)
        blocks = int(read.arguments.get("num_groups", 1))
        kept = values[:, list(norm.made)].unflatten(1, (blocks, -1)).mean(2)
        rows = torch.cat([values[:, list(norm.removed)], kept], 1)
        low, high = rows.amin(0), rows.amax(0)
        if norm.name in self._ranges:
            low = low.minimum(self._ranges[norm.name][0])
            high = high.maximum(self._ranges[norm.name][1])
        self._ranges[norm.name] = low, high
        scale = float(values.square().mean().sqrt())
        kind = read.arguments["input"].dtype
        self._facts[norm.name] = blocks, read.arguments["eps"], kind, scale

    def fold(self, norm: ChannelNorm) -> NormFold | None:
        """Return the correction, if constants and means are what the weights promise."""
        if norm.name not in self._facts:
            return None
        low, high = self._ranges[norm.name]
        blocks, epsilon, kind, scale = self._facts[norm.name]
        path = norm.name.rpartition(".")[0]
        own: Any = norm.module.eps
        if own != epsilon:
            return None
        epsilon = torch.finfo(kind).eps if epsilon is None else epsilon
        limit = _rounding(kind) * scale
        gone, all_kept, total = (
            len(norm.removed),
            len(norm.made),
            len(norm.made) + len(norm.removed),
        )
        constants = (low + high)[:gone].reshape(blocks, -1) / 2
        means = (low + high)[gone:] / 2
        if norm.op == "rms_norm":
            if bool(((high - low)[:gone] > limit).any()):
                return None
            squares = constants.square().sum(1)
        else:
            off = (constants.mean(1) - means).abs()
            if bool(((high - low) > limit).any()) or bool((off > limit).any()):
                return None
            squares = (constants - means[:, None]).square().sum(1)
        kept, whole = all_kept / blocks, total / blocks
        if float(squares.max() - squares.min()) > _rounding(kind) * scale**2:
            return None
        gain, added = (whole / kept) ** 0.5, float(squares.mean())
        return NormFold(path, gain, (whole * epsilon + added) / kept)


def _rounding(kind: torch.dtype) -> float:
    return _ROUNDING.get(kind, _LOW_ROUNDING)
