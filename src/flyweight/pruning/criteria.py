"""Criteria: scores of the channels of a group, computed from weights.

A criterion is any callable `(group, tensors) -> scores`, one score per channel; the channels with
the smallest scores are removed first. All layers that produce the same channels contribute: each
layer's scores are divided by their mean, so that no layer dominates, and then summed. A channel
that has several positions in a layer (grouped convolution, fused projections) has the sum over its
positions. What follows a channel (bias, depthwise filter, normalisation) and what reads it do not
contribute to the criteria of filters.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.errors import PlanError
from flyweight.graph.groups import ChannelGroup, Member

Scores = NDArray[np.float64]
Criterion = Callable[[ChannelGroup, Mapping[str, Tensor]], Any]
FilterScore = Callable[[Tensor], Tensor]
"""Maps filters `(positions, channels, values)` to scores `(positions, channels)`. In double
precision, so that the order of channels does not depend on how a sum is split over threads."""


def l1_norm(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return the sum of absolute weights of each filter (Li et al. 2017, arXiv 1608.08710)."""
    return sum_normalised(group, tensors, makers(group), partial(_norm, order=1))


def l2_norm(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return the Euclidean norm of each filter."""
    return sum_normalised(group, tensors, makers(group), partial(_norm, order=2))


def geometry_median(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return the sum of distances to the other filters (FPGM: He et al. 2019, arXiv 1811.00250).

    Filters near the geometric median have small sums: others can replace them. Only filters that
    can replace each other are compared: those of the same group at the same position, so not those
    of a query with those of a value.
    """
    return sum_normalised(group, tensors, makers(group), _distances)


def bn_scale(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return the absolute scale of the following normalisation (arXiv 1708.06519).

    Raises:
        PlanError: No normalisation with a scale follows the group.
    """
    scales = normalisation_scales(group, tensors)
    if not scales:
        raise PlanError(
            "Criterion 'bn_scale' needs a normalisation after the layer. Received group "
            f"'{group.name}' without one. Choose 'l1_norm' for it."
        )
    return sum_normalised(group, tensors, scales, partial(_norm, order=1))


def random(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return random scores, fixed by the group's name: the baseline for other criteria."""
    generator = np.random.default_rng(zlib.crc32(group.name.encode()))
    return generator.random(group.size)


def first(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Return falling scores, which keep the first channels; needs no weights.

    To price a plan: a cost depends on the numbers of channels alone.
    """
    return -np.arange(group.size, dtype=np.float64)


CRITERIA: dict[str, Criterion] = {
    "l1_norm": l1_norm,
    "l2_norm": l2_norm,
    "geometry_median": geometry_median,
    "bn_scale": bn_scale,
    "random": random,
    "first": first,
}


def makers(group: ChannelGroup) -> tuple[Member, ...]:
    """Return the members whose values score a channel: those that produce it.

    A group whose weight is computed by code from other weights may have none; then everything
    that does not only read the channels is used.
    """
    others = tuple(member for member in group.members if member.role != "consumes")
    return group.producers() or others or group.members


def normalisation_scales(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> tuple[Member, ...]:
    """Return the members that scale the channels after a normalisation.

    They are identified by name and shape, to exclude other values per channel such as the slopes
    of a PReLU: a scale is a `weight` beside a `running_mean` or a `bias` of its shape, or the
    `weight` of a module that computes across the channels (RMSNorm).
    """
    return tuple(
        member
        for member in group.members
        if member.role == "follows" and _is_scale(member.tensor, group, tensors)
    )


def _is_scale(name: str, group: ChannelGroup, tensors: Mapping[str, Tensor]) -> bool:
    path, _, attribute = name.rpartition(".")
    shape = tensors[name].shape
    if attribute != "weight" or len(shape) != 1:
        return False
    beside = (f"{path}.{other}" if path else other for other in ("running_mean", "bias"))
    if any(other in tensors and tensors[other].shape == shape for other in beside):
        return True
    return any(operation.endswith(f" at '{path}'") for operation in group.mixes)


def sum_normalised(
    group: ChannelGroup,
    tensors: Mapping[str, Tensor],
    members: Sequence[Member],
    score: FilterScore,
) -> Scores:
    """Return the sum over members of their scores, each divided by its mean if there are several.

    Args:
        group: The group whose channels are scored.
        tensors: Values by name.
        members: The members of the group that contribute.
        score: The formula for one filter.
    """
    total = np.zeros(group.size)
    for member in members:
        scores = score_member(group, member, tensors[member.tensor], score)
        mean = scores.mean()
        total += scores / mean if len(members) > 1 and mean > 0 else scores
    return total


def _norm(filters: Tensor, order: int) -> Tensor:
    if order == 1:  # Faster than `vector_norm`, and as exact: the sum is of doubles.
        return filters.abs().sum(-1, dtype=torch.float64)
    norms: Tensor = torch.linalg.vector_norm(filters, order, -1, dtype=torch.float64)
    return norms


def _distances(filters: Tensor) -> Tensor:
    filters = filters.double()
    return torch.cdist(filters, filters).sum(-1)


def score_member(group: ChannelGroup, member: Member, tensor: Tensor, score: FilterScore) -> Scores:
    """Return one score per channel from one member: the sum over the channel's positions."""
    values = tensor.detach().cpu().movedim(member.axis, 0)
    values = values.reshape(len(values), -1)
    places = member.positions(group.size).T
    if np.array_equal(places, np.arange(len(values))[None]):
        filters = values[None]  # The whole axis in order, the most frequent case: no copy.
    else:
        filters = values[torch.from_numpy(places.copy())]
    return np.asarray(score(filters).sum(0).numpy())
