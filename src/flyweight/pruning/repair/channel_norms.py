"""Normalisations over channels (LayerNorm, GroupNorm, RMSNorm) that lost some of their channels.

Without the removed channels they see other means and variances, so a cut through them is not exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.graph.dispatch import evaluating
from flyweight.graph.program import Call
from flyweight.graph.recorder import Recorder, module_paths
from flyweight.graph.rules import WHOLE
from flyweight.graph.stored import sharing_copy
from flyweight.pruning.plans import PruningPlan
from flyweight.replay.lockstep import Batch, Read

CHANNEL_AXES = {"layer_norm": -1, "rms_norm": -1, "group_norm": 1}
"""The operations, and the axis of the channels of what they return."""


@dataclass(frozen=True, eq=False)
class ChannelNorm:
    """A normalisation over channels with a stored scale, of which channels were removed.

    Attributes:
        name: Its scale's name, the same in the dense and the pruned network.
        op: One of `CHANNEL_AXES`.
        weight: The pruned network's scale, `(channels,)`.
        bias: The stored offset, if there is one.
        module: The module that holds the scale.
        made: Positions on the dense scale that stay.
        removed: Positions there that are removed.
    """

    name: str
    op: str
    weight: Tensor
    bias: Tensor | None
    module: nn.Module
    made: tuple[int, ...]
    removed: tuple[int, ...]

    @property
    def axis(self) -> int:
        """The axis of the channels of what it returns."""
        return CHANNEL_AXES[self.op]


def normalised(op: str, arguments: Mapping[str, Any]) -> Tensor:
    """Return the result of a normalisation without its scale and offset, as its input's shape."""
    values, epsilon = arguments["input"], arguments["eps"]
    if op == "group_norm":
        return functional.group_norm(values, arguments["num_groups"], eps=epsilon)
    shape = [int(size) for size in arguments["normalized_shape"]]
    if op == "rms_norm":
        return functional.rms_norm(values, shape, eps=epsilon)
    return functional.layer_norm(values, shape, eps=epsilon)


def scales_in(plan: PruningPlan) -> tuple[str, ...]:
    """Return the names of the tensors that follow channels which an operation mixes."""
    return tuple(
        dict.fromkeys(
            member.tensor
            for group in plan.groups.values()
            if not group.exact
            for member in group.members
            if member.role == "follows"
        )
    )


def channel_norm_of(
    read: Read,
    small: nn.Module,
    tensors: Mapping[str, Tensor],
    removed: Mapping[int, tuple[int, ...]],
) -> ChannelNorm | str | None:
    """Return the normalisation whose scale is read; the reason if it cannot be corrected.

    Args:
        read: Of a tensor that follows mixed channels, as `lockstep.sole_readers` returns it.
        small: The pruned network.
        tensors: Its tensors by name.
        removed: What the tensor lost, by axis.

    Returns:
        None where the tensor is no scale of a normalisation over channels.
    """
    bias = read.arguments.get("bias")
    if read.op not in CHANNEL_AXES or bias is tensors[read.tensor]:
        return None
    weight = tensors[read.tensor]
    if weight.ndim != 1:
        return "is the scale of a normalisation over several axes"
    gone = removed.get(0, ())
    size = len(weight) + len(gone)
    return ChannelNorm(
        name=read.tensor,
        op=read.op,
        weight=weight,
        bias=bias if any(bias is tensor for tensor in tensors.values()) else None,
        module=small.get_submodule(read.tensor.rpartition(".")[0]),
        made=tuple(sorted(set(range(size)) - set(gone))),
        removed=gone,
    )


def without_scale(dense: nn.Module, small: nn.Module, batch: Batch) -> Iterator[str]:
    """Yield a remark on every cut normalisation over channels that has no stored scale."""
    calls = zip(_without_scale(dense, batch), _without_scale(small, batch), strict=False)
    for before, after in calls:
        axis = CHANNEL_AXES[before.op]
        if before.arguments["input"].shape[axis] != after.arguments["input"].shape[axis]:
            where = f"at '{before.where}'" if before.where else "in the model's forward"
            yield f"{before.op} {where} has no scale that could be corrected"


def _without_scale(model: nn.Module, batch: Batch) -> list[Call]:
    copy = sharing_copy(model)
    with evaluating(copy), module_paths(copy) as path, torch.inference_mode():
        recorder = Recorder(WHOLE, path)
        with recorder:
            copy(*batch)
    return [
        call
        for call in recorder.calls
        if call.op in CHANNEL_AXES and call.arguments.get("weight") is None
    ]
