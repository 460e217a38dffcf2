"""Layers that a repair can change: those that read what a plan removes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from flyweight.graph.dispatch import evaluating
from flyweight.graph.stored import held_tensors, sharing_copy
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.repair.channel_norms import ChannelNorm, channel_norm_of, scales_in
from flyweight.replay.lockstep import Batch, Read, sole_readers

LAYERS = ("conv2d", "linear")


@dataclass(frozen=True, eq=False)
class Consumer:
    """A convolution or linear layer that reads channels of which some were removed.

    Attributes:
        name: Its weight's name, the same in the dense and the pruned network.
        op: `conv2d` or `linear`.
        groups: Groups of the convolution; 1 for a linear layer.
        weight: The pruned network's weight, `(outputs, inputs per group, ...)`.
        bias: The stored tensor that is added to its result, if there is one.
        norm: The batch normalisation that is the only reader of its result, if there is one.
        module: The module that holds the weight.
        read: Positions on the dense weight's input axis that stay.
        removed: Positions there that are removed.
        made: Positions on the dense weight's output axis that stay.
    """

    name: str
    op: str
    groups: int
    weight: Tensor
    bias: Tensor | None
    norm: _NormBase | None
    module: nn.Module
    read: tuple[int, ...]
    removed: tuple[int, ...]
    made: tuple[int, ...]

    def add_constant(self, constant: Tensor) -> str | None:
        """Add `(outputs,)` to the layer's result; return the tensor that holds it now, if any does.

        A normalisation subtracts its running mean. Where it is the only reader of the result,
        lowering the running mean is the same as adding a bias, and needs no new tensor.
        """
        if self.bias is not None:
            self.bias.data += constant.to(self.bias)
            return "its bias"
        if self.norm is not None and self.norm.running_mean is not None:
            self.norm.running_mean -= constant.to(self.norm.running_mean)
            return "the running mean of the normalisation after it"
        return None

    @property
    def takes_constant(self) -> bool:
        """Whether a constant can be added to the layer's result."""
        return self.bias is not None or self.norm is not None


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The layers of a pruned network that a repair can change.

    Attributes:
        consumers: Layers that read removed channels, by the name of their weight, in order of
            execution.
        norms: Batch normalisations after the first consumer, by path, in order of execution.
        order: Names of all, in order of execution.
        skipped: Layers that cannot be repaired, with the reason.
        channel_norms: Normalisations over channels that lost some of them, by the name of their
            scale, in order of execution.
        skipped_norms: Those that cannot be corrected, with the reason.
    """

    consumers: Mapping[str, Consumer]
    norms: Mapping[str, _NormBase]
    order: tuple[str, ...]
    skipped: tuple[str, ...]
    channel_norms: Mapping[str, ChannelNorm] = field(default_factory=dict)
    skipped_norms: tuple[str, ...] = ()


def surroundings(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, batch: Batch
) -> Surroundings:
    """Run `small` once and return the layers that can be repaired after the cut of `plan`."""
    removed = plan.removed()
    reading = [
        name
        for name in dict.fromkeys(
            member.tensor
            for group in plan.groups.values()
            for member in group.members
            if member.role == "consumes"
        )
        if any(removed[name].values())
    ]
    tensors = {name: tensor for name, tensor, _ in held_tensors(small)}
    norms = {
        path: module
        for path, module in small.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }
    means = {
        path: norm.running_mean for path, norm in norms.items() if norm.running_mean is not None
    }
    scales = [name for name in scales_in(plan) if name in tensors and name not in reading]
    watched = {**{name: tensors[name] for name in (*reading, *scales)}, **means}
    with evaluating(small):
        reads, followers = sole_readers(sharing_copy(small), batch, watched)
    count = Counter(read.tensor for read in reads)
    by_mean = {id(norm.running_mean): path for path, norm in norms.items() if count[path] == 1}
    channel_norms, skipped_norms = _channel_norms(small, tensors, removed, reads, scales)
    consumers: dict[str, Consumer] = {}
    skipped = [f"'{name}' is not read by a layer directly" for name in reading if not count[name]]
    for read in reads:
        name = read.tensor
        if name not in reading or name in consumers:
            continue
        reason = _refusal(read, count[name])
        if reason:
            skipped.append(f"'{name}' {reason}")
            continue
        follower = by_mean.get(id(followers.get(name)))
        norm = norms[follower] if follower is not None else None
        axes = removed[name]
        dense_shape = tuple(_dense_shape(tensors[name], axes))
        consumers[name] = Consumer(
            name=name,
            op=read.op,
            groups=int(read.arguments.get("groups", 1)),
            weight=tensors[name],
            bias=_stored(read.arguments.get("bias"), tensors),
            norm=norm,
            module=small.get_submodule(name.rpartition(".")[0]),
            read=_rest(dense_shape[1], axes.get(1, ())),
            removed=axes.get(1, ()),
            made=_rest(dense_shape[0], axes.get(0, ())),
        )
    found = _ordered(reads, consumers, norms, count, tuple(dict.fromkeys(skipped)))
    return _with_channel_norms(found, [read.tensor for read in reads], channel_norms, skipped_norms)


def _channel_norms(
    small: nn.Module,
    tensors: Mapping[str, Tensor],
    removed: Mapping[str, Mapping[int, tuple[int, ...]]],
    reads: Sequence[Read],
    scales: Sequence[str],
) -> tuple[dict[str, ChannelNorm], tuple[str, ...]]:
    count = Counter(read.tensor for read in reads)
    norms: dict[str, ChannelNorm] = {}
    skipped: list[str] = []
    for read in reads:
        if read.tensor not in scales:
            continue
        found = channel_norm_of(read, small, tensors, removed.get(read.tensor, {}))
        if isinstance(found, ChannelNorm) and count[read.tensor] > 1:
            found = "is read more than once in a run"
        if isinstance(found, ChannelNorm):
            norms[read.tensor] = found
        elif found is not None:
            skipped.append(f"'{read.tensor}' {found}")
    return norms, tuple(dict.fromkeys(skipped))


def _with_channel_norms(
    around: Surroundings,
    names: Sequence[str],
    channel_norms: Mapping[str, ChannelNorm],
    skipped: tuple[str, ...],
) -> Surroundings:
    if not channel_norms:
        return replace(around, skipped_norms=skipped)
    place = {name: index for index, name in reversed(list(enumerate(names)))}
    order = sorted({*around.order, *channel_norms}, key=lambda name: place[name])
    return replace(around, order=tuple(order), channel_norms=channel_norms, skipped_norms=skipped)


def _ordered(
    reads: tuple[Read, ...],
    consumers: Mapping[str, Consumer],
    norms: Mapping[str, _NormBase],
    count: Mapping[str, int],
    skipped: tuple[str, ...],
) -> Surroundings:
    """Leave out the norms before the first consumer, whose inputs have not changed."""
    names = [read.tensor for read in reads]
    first = next((place for place, name in enumerate(names) if name in consumers), len(names))
    order = [name for name in names[first:] if name in consumers or count[name] == 1]
    behind = [name for name in order if name in norms]
    repeated = [name for name in dict.fromkeys(names[first:]) if name in norms and count[name] > 1]
    return Surroundings(
        consumers,
        {name: norms[name] for name in behind},
        tuple(name for name in order if name in consumers or name in norms),
        (*skipped, *(f"normalisation '{name}' is used more than once" for name in repeated)),
    )


def _refusal(read: Read, count: int) -> str | None:
    if read.op not in LAYERS:
        return f"is read by {read.op}, which is neither a convolution nor a linear layer"
    if count > 1:
        return "is read more than once in a run"
    return None


def _stored(bias: object, tensors: Mapping[str, Tensor]) -> Tensor | None:
    return next((tensor for tensor in tensors.values() if tensor is bias), None)


def _dense_shape(weight: Tensor, axes: Mapping[int, tuple[int, ...]]) -> torch.Size:
    return torch.Size(size + len(axes.get(axis, ())) for axis, size in enumerate(weight.shape))


def _rest(size: int, gone: tuple[int, ...]) -> tuple[int, ...]:
    leaving = set(gone)
    return tuple(place for place in range(size) if place not in leaving)
