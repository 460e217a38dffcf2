"""Criteria: how much each channel of a group matters, judged from weights.

A criterion is any callable `(group, tensors) -> scores`, one score per channel; the channels with
the smallest scores leave first. Members that make the same channels are scored one by one, divided
by their mean so that no layer drowns another, and summed.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.errors import PlanError
from flyweight.graph.groups import ChannelGroup, Member

Scores = NDArray[np.float64]
Criterion = Callable[[ChannelGroup, Mapping[str, Tensor]], Any]


def l1_norm(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Sum of absolute weights of each filter (Li et al. 2017, arXiv 1608.08710)."""
    return _over_producers(group, tensors, lambda rows: rows.abs().sum(1))


def l2_norm(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Euclidean norm of each filter."""
    return _over_producers(group, tensors, lambda rows: rows.square().sum(1).sqrt())


def geometry_median(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Sum of distances to the other filters; the replaceable leave (FPGM, arXiv 1811.00250)."""
    return _over_producers(group, tensors, lambda rows: torch.cdist(rows, rows).sum(1))


def bn_scale(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Absolute scale of the normalisation that follows (network slimming, arXiv 1708.06519).

    Raises:
        PlanError: The group passes no normalisation with a scale.
    """
    scales = [
        member
        for member in group.members
        if member.role == "follows"
        and member.tensor.endswith("weight")
        and tensors[member.tensor].ndim == 1
    ]
    if not scales:
        raise PlanError(
            "Criterion 'bn_scale' needs a normalisation after the layer. Received group "
            f"'{group.name}' without "
            "one. Choose 'l1_norm' for it."
        )
    return _sum_normalised(group, tensors, scales, lambda rows: rows.abs().sum(1))


def random(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """A fixed random order per group name: the baseline that a criterion has to beat."""
    generator = np.random.default_rng(zlib.crc32(group.name.encode()))
    return generator.random(group.size)


def first(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
    """Keep the first channels. For pricing without weights: a cost depends on counts alone."""
    return -np.arange(group.size, dtype=np.float64)


CRITERIA: dict[str, Criterion] = {
    "l1_norm": l1_norm,
    "l2_norm": l2_norm,
    "geometry_median": geometry_median,
    "bn_scale": bn_scale,
    "random": random,
    "first": first,
}


def _over_producers(
    group: ChannelGroup, tensors: Mapping[str, Tensor], score: Callable[[Tensor], Tensor]
) -> Scores:
    return _sum_normalised(group, tensors, group.producers(), score)


def _sum_normalised(
    group: ChannelGroup,
    tensors: Mapping[str, Tensor],
    members: tuple[Member, ...] | list[Member],
    score: Callable[[Tensor], Tensor],
) -> Scores:
    total = np.zeros(group.size)
    for member in members:
        scores = _score_member(group, member, tensors[member.tensor], score)
        mean = scores.mean()
        total += scores / mean if len(members) > 1 and mean > 0 else scores
    return total


def _score_member(
    group: ChannelGroup, member: Member, tensor: Tensor, score: Callable[[Tensor], Tensor]
) -> Scores:
    # In double precision the order does not depend on how a sum is split over threads.
    rows = (
        tensor.detach()
        .cpu()
        .double()
        .movedim(member.axis, 0)
        .reshape(tensor.shape[member.axis], -1)
    )
    every = score(rows).numpy()
    return np.asarray(every[member.positions(group.size)].sum(axis=1))
