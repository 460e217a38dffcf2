"""The part of a run that changes when channels leave, and the execution of only that part.

A pruned network computes what the dense one does with the removed channels zeroed where they are
read (that is what "exact" means). So nothing has to be executed again before the first layer that
reads them, and that layer runs on narrowed weights. Where the cuts of one layer are nested, the
results of that layer are sums: what a larger cut keeps is part of what a smaller one keeps, so that
all ratios together cost this layer one execution.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.graph.groups import ChannelGroup, Member
from flyweight.graph.program import Call, Run, Value, numbers_in
from flyweight.graph.rescaling import Rescaled, correct, place_of_zeros
from flyweight.replay.folding import Folded
from flyweight.replay.layout import select
from flyweight.replay.rerun import ReplayError, needed_by, rerun

Keep = Mapping[str, Collection[int]]
"""Group name to the channels that stay."""

_ATEN = torch.ops.aten
_CHANNEL_AXIS = {_ATEN.conv2d.default: 1, _ATEN.linear.default: -1}
"""Layers whose weights have inputs on axis 1, and the axis of their input's channels."""


@dataclass(frozen=True, eq=False)
class _Read:
    """A weight that reads channels of a group."""

    group: ChannelGroup
    member: Member
    number: int

    def positions(self, channels: Collection[int]) -> NDArray[np.int64]:
        """Return where these channels lie on the weight's axis."""
        rows: NDArray[np.int64] = self.member.positions(self.group.size)[list(channels)]
        return rows.ravel()


@dataclass(frozen=True, eq=False)
class _Normalised:
    """A weight that reads channels and is divided by its norm, with the scale beside it."""

    how: Rescaled
    weight: int
    scale: int


@dataclass(frozen=True, eq=False)
class Suffix:
    """The part of a run that changes with some groups.

    Attributes:
        sums: Layers that read the channels directly from what does not change.
        narrow: Layers that read them from what changes.
        steps: All that has to be executed after `sums`, in order.
        reads: Weights that read the channels, by number.
        needed: Numbers of the tensors that must be kept of a run.
        outputs: Numbers of the tensors that the run returned.
        normalised: Weights among `reads` whose scale changes with their norm.
    """

    sums: tuple[Call, ...]
    narrow: frozenset[int]
    steps: tuple[Call, ...]
    reads: Mapping[int, tuple[_Read, ...]]
    needed: frozenset[int]
    outputs: frozenset[int]
    normalised: tuple[_Normalised, ...] = ()

    def runs(
        self, values: Mapping[int, Tensor], keeps: Sequence[Keep]
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        """Execute the part for every cut, the largest cut first.

        Args:
            values: What was kept of a run, folded weights included.
            keeps: What stays in each.

        Yields:
            The cut's place in `keeps`, and the tensors that the outputs are made of. They hold
            until the next cut is requested.
        """
        totals: dict[int, Tensor] = {}
        before: dict[str, set[int]] = {}
        # From the largest cut to the smallest: what each keeps is then the last one's channels and
        # some more, and only the contribution of those is added to the sums.
        for index in sorted(range(len(keeps)), key=lambda index: _size(keeps[index])):
            keep = {group: set(channels) for group, channels in keeps[index].items()}
            nested = before.keys() == keep.keys() and all(before[g] <= keep[g] for g in keep)
            for call in self.sums:
                number = call.result.number
                if nested:
                    self._add(call, values, totals[number], keep, before)
                else:
                    totals[number] = self._sum(call, values, keep)
            before = keep
            changed = {**totals, **self._zeroed(values, keep)}
            steps: list[Call] = []
            for call in self.steps:
                steps += self._narrowed(call, values, keep, changed)
            yield index, {**totals, **rerun(steps, values, changed, self.outputs)}

    def _sum(self, call: Call, values: Mapping[int, Tensor], keep: Keep) -> Tensor:
        """Return a layer's result from the channels that stay."""
        return _layer(call, values, _staying(call, self.reads, values, keep), biased=True)

    def _add(
        self,
        call: Call,
        values: Mapping[int, Tensor],
        total: Tensor,
        keep: Mapping[str, set[int]],
        before: Mapping[str, set[int]],
    ) -> None:
        """Add to a layer's result what it reads from channels that the last cut removed."""
        places = [
            read.positions(sorted(keep[read.group.name] - before[read.group.name]))
            for read in self.reads[call.args[1].number]
        ]
        if any(map(len, places)):
            total.add_(_layer(call, values, np.concatenate(places), biased=False))

    def _zeroed(self, values: Mapping[int, Tensor], keep: Keep) -> dict[int, Tensor]:
        """Return weights with zeros where removed channels are read, for all other layers.

        By the definition of an exact cut this is what the pruned network computes. It is slower
        than a narrowed weight and right for every operation, grouped convolutions among them.
        """
        made: dict[int, Tensor] = {}
        for number in self.reads:
            if any(number in call.reads and id(call) not in self.narrow for call in self.steps):
                made[number] = values[number].clone()
        for one in self.normalised:
            made.setdefault(one.scale, values[one.scale].clone())
        for number in made.keys() & self.reads.keys():
            for read in self.reads[number]:
                tensor = self._place_of_zeros(read, made)
                index = torch.from_numpy(_removed([read], keep)).to(tensor.device)
                tensor.index_fill_(read.member.axis, index, 0)
        for one in self.normalised:
            correct(made[one.scale], one.how.share(values[one.weight], made[one.weight]))
        return made

    def _place_of_zeros(self, read: _Read, made: Mapping[int, Tensor]) -> Tensor:
        for one in self.normalised:
            if one.weight == read.number:
                named = {one.how.weight: made[one.weight], one.how.scale: made[one.scale]}
                return place_of_zeros(named, one.how.weight, read.member.axis, one.how)
        return made[read.number]

    def _narrowed(
        self,
        call: Call,
        values: Mapping[int, Tensor],
        keep: Keep,
        changed: dict[int, Tensor],
    ) -> tuple[Call, ...]:
        """Return a layer that reads changed channels as one that reads only those that stay."""
        if id(call) not in self.narrow:
            return (call,)
        weight = values[call.args[1].number]
        index = torch.from_numpy(_staying(call, self.reads, values, keep)).to(weight.device)
        narrow = weight.index_select(1, index)
        # Numbers that neither a recorded nor a folded tensor has.
        first = _FREE - 3 * call.result.number
        chosen, reduced = _value(first, index), _value(first - 1, narrow)
        shape, axis = list(call.args[0].shape), _CHANNEL_AXIS[call.func]
        shape[axis] = len(index)
        source = Value(first - 2, tuple(shape), call.args[0].dtype)
        changed |= {chosen.number: index, reduced.number: narrow}
        picked = replace(
            call,
            func=_ATEN.index_select.default,
            args=(call.args[0], axis, chosen),
            result=source,
        )
        return picked, replace(call, args=(source, reduced, *call.args[2:]))


_FREE = -(10**9)


def _value(number: int, tensor: Tensor) -> Value:
    return Value(number, tuple(tensor.shape), tensor.dtype)


def _layer(
    call: Call, values: Mapping[int, Tensor], places: NDArray[np.int64], *, biased: bool
) -> Tensor:
    """Execute a layer on some of its inputs."""
    source, weight = values[call.args[0].number], values[call.args[1].number]
    index = torch.from_numpy(places).to(source.device)
    bias, *rest = call.args[2:] or (None,)
    inputs = select(source, _CHANNEL_AXIS[call.func], index)
    given = values[bias.number] if biased and isinstance(bias, Value) else None
    result: Tensor = call.func(inputs, select(weight, 1, index), given, *rest)
    return result


def _staying(
    call: Call,
    reads: Mapping[int, tuple[_Read, ...]],
    values: Mapping[int, Tensor],
    keep: Keep,
) -> NDArray[np.int64]:
    """Return the inputs of a layer that stay."""
    number = call.args[1].number
    return np.setdiff1d(np.arange(values[number].shape[1]), _removed(reads[number], keep))


def suffix_of(
    run: Run,
    folded: Folded,
    groups: Sequence[ChannelGroup],
    rescaled: Sequence[Rescaled] = (),
) -> Suffix:
    """Return the part of a run that changes when channels of `groups` leave.

    Args:
        run: The run.
        folded: Its operations, folded.
        groups: What is cut together.
        rescaled: Scales beside weights that the code divides by their norm.

    Raises:
        ReplayError: Code reads a value of what changes (`item`), so that it must run itself.
    """
    reads: dict[int, list[_Read]] = {}
    for group in groups:
        for member in group.members:
            if member.role == "consumes":
                number = run.stored[member.tensor]
                number = folded.weights.get(number, number)
                reads.setdefault(number, []).append(_Read(group, member, number))
    # Beginning with the weights that read the channels, not with those that make them: up to the
    # readers a cut leaves every channel that stays as it is.
    normalised = tuple(
        _Normalised(how, run.stored[how.weight], run.stored[how.scale])
        for how in rescaled
        if run.stored.get(how.weight) in reads
    )
    changed = {*reads, *(one.scale for one in normalised)}
    sums, steps, narrow = list[Call](), list[Call](), set[int]()
    for call in folded.steps:
        if changed.isdisjoint(call.reads):
            continue
        if not call.makes and call.result is not None:
            raise ReplayError(f"the code reads a value that changes: {call.op}")
        if _reads_channels(call, reads):
            # A layer that reads what does not change can be summed over nested cuts; behind it
            # everything changes from cut to cut and is executed for each.
            clean = call.args[0].number not in changed
            (sums if clean else steps).append(call)
            if not clean:
                narrow.add(id(call))
        else:
            steps.append(call)
        changed.update(call.makes)
    needed = needed_by([*sums, *steps])
    return Suffix(
        tuple(sums),
        frozenset(narrow),
        tuple(steps),
        {number: tuple(found) for number, found in reads.items()},
        frozenset(needed),
        frozenset(numbers_in(run.outputs)),
        normalised,
    )


def _reads_channels(call: Call, reads: Mapping[int, Any]) -> bool:
    """Whether `call` is an ungrouped layer that takes one of the weights by their inputs."""
    if call.func not in _CHANNEL_AXIS or call.kwargs or not isinstance(call.args[1], Value):
        return False
    found = reads.get(call.args[1].number, ())
    grouped = call.func is _ATEN.conv2d.default and len(call.args) > 6 and call.args[6] != 1
    return bool(found) and not grouped and all(read.member.axis == 1 for read in found)


def _removed(reads: Sequence[_Read], keep: Keep) -> NDArray[np.int64]:
    gone = [np.zeros(0, dtype=np.int64)]
    for read in reads:
        if read.group.name in keep:
            stays = np.asarray(sorted(keep[read.group.name]), dtype=np.int64)
            channels = np.setdiff1d(np.arange(read.group.size), stays)
            gone.append(read.positions(channels.tolist()))
    return np.concatenate(gone)


def _size(keep: Keep) -> int:
    return sum(len(channels) for channels in keep.values())
