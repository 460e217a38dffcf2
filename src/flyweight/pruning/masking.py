"""Masked networks: dense networks whose removed channels are zeroed where they are read."""

import torch
from torch import nn

from flyweight.graph.rescaling import correct, place_of_zeros
from flyweight.graph.stored import copy_module, held_tensors
from flyweight.pruning.plans import PruningPlan


def masked(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """Return a copy of `model` with the removed channels zeroed where they are read.

    The pruned network must equal this one: every axis that consumes removed channels has zero
    weights there. This is the definition of an exact cut; it saves no computation. A weight that
    the code divides by its norm stays what it was: the scale beside it is corrected, as in a cut.
    """
    twin = copy_module(model)
    dense = {name: tensor for name, tensor, _ in held_tensors(model)}
    scales = {one.weight: one for one in plan.rescaled}
    tensors = {name: tensor for name, tensor, _ in held_tensors(twin)}
    with torch.no_grad():
        for group in plan.groups.values():
            gone = sorted(set(range(group.channels)) - set(group.keep))
            for member in group.members:
                if member.role == "consumes":
                    places = torch.as_tensor(member.positions(group.channels)[gone].ravel())
                    tensor = place_of_zeros(
                        tensors, member.tensor, member.axis, scales.get(member.tensor)
                    )
                    tensor.index_fill_(member.axis, places.to(tensor.device), 0)
        for one in plan.rescaled:
            correct(tensors[one.scale], one.share(dense[one.weight], tensors[one.weight]))
    return twin
