"""What of a run changes when channels leave, and running only that.

A pruned network computes what the dense one does with the removed channels zeroed where they are
read (that is what "exact" means). So nothing has to be run again before the first layer that reads
them, and that layer runs on narrowed weights. Of nested cuts, its results are sums: what a larger
cut keeps is part of what a smaller one keeps, so that all ratios together cost it one run.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.graph.groups import ChannelGroup, Member
from flyweight.replay.folding import Folded
from flyweight.replay.layout import select
from flyweight.replay.tape import Ref, Step, Tape, needed_by, numbers_in, rerun

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
class Suffix:
    """The part of a run that changes with some groups.

    Attributes:
        sums: Layers that read the channels directly from what does not change.
        narrow: Layers that read them from what changes.
        steps: All that has to run after `sums`, in order.
        reads: Weights that read the channels, by number.
        needed: Numbers of the tensors that must be kept of a run.
        outputs: Numbers of the tensors that the run returned.
    """

    sums: tuple[Step, ...]
    narrow: frozenset[int]
    steps: tuple[Step, ...]
    reads: Mapping[int, tuple[_Read, ...]]
    needed: frozenset[int]
    outputs: frozenset[int]

    def runs(
        self, values: Mapping[int, Tensor], keeps: Sequence[Keep]
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        """Run the part for every cut, the largest cut first.

        Args:
            values: What was kept of a run, folded weights included.
            keeps: What stays in each.

        Yields:
            The cut's place in `keeps`, and the tensors that the outputs are made of. They hold
            until the next cut is asked for.
        """
        totals: dict[int, Tensor] = {}
        before: dict[str, set[int]] = {}
        for index in sorted(range(len(keeps)), key=lambda index: _size(keeps[index])):
            keep = {group: set(channels) for group, channels in keeps[index].items()}
            nested = before.keys() == keep.keys() and all(before[g] <= keep[g] for g in keep)
            for step in self.sums:
                number = step.result.number
                if nested:
                    self._add(step, values, totals[number], keep, before)
                else:
                    totals[number] = self._sum(step, values, keep)
            before = keep
            changed = {**totals, **self._zeroed(values, keep)}
            steps: list[Step] = []
            for step in self.steps:
                steps += self._narrowed(step, values, keep, changed)
            yield index, {**totals, **rerun(steps, values, changed, self.outputs)}

    def _sum(self, step: Step, values: Mapping[int, Tensor], keep: Keep) -> Tensor:
        """Return a layer's result from the channels that stay."""
        return _layer(step, values, _staying(step, self.reads, values, keep), biased=True)

    def _add(
        self,
        step: Step,
        values: Mapping[int, Tensor],
        total: Tensor,
        keep: Mapping[str, set[int]],
        before: Mapping[str, set[int]],
    ) -> None:
        """Add to a layer's result what it reads from channels that the last cut removed."""
        places = [
            read.positions(sorted(keep[read.group.name] - before[read.group.name]))
            for read in self.reads[step.args[1].number]
        ]
        if any(map(len, places)):
            total.add_(_layer(step, values, np.concatenate(places), biased=False))

    def _zeroed(self, values: Mapping[int, Tensor], keep: Keep) -> dict[int, Tensor]:
        """Return weights with zeros where removed channels are read, for all other layers."""
        made: dict[int, Tensor] = {}
        for number, reads in self.reads.items():
            if any(number in step.reads and id(step) not in self.narrow for step in self.steps):
                made[number] = values[number].clone()
                for read in reads:
                    index = torch.from_numpy(_removed([read], keep)).to(made[number].device)
                    made[number].index_fill_(read.member.axis, index, 0)
        return made

    def _narrowed(
        self,
        step: Step,
        values: Mapping[int, Tensor],
        keep: Keep,
        changed: dict[int, Tensor],
    ) -> tuple[Step, ...]:
        """Return a layer that reads changed channels as one that reads only those that stay."""
        if id(step) not in self.narrow:
            return (step,)
        weight = values[step.args[1].number]
        index = torch.from_numpy(_staying(step, self.reads, values, keep)).to(weight.device)
        # Numbers that neither a recorded nor a folded tensor has.
        chosen, narrow, source = (_FREE - 3 * step.result.number - place for place in range(3))
        changed |= {chosen: index, narrow: weight.index_select(1, index)}
        select = (step.args[0], _CHANNEL_AXIS[step.func], Ref(chosen))
        picked = Step(_ATEN.index_select.default, select, {}, Ref(source))
        return picked, replace(step, args=(Ref(source), Ref(narrow), *step.args[2:]))


_FREE = -(10**9)


def _layer(
    step: Step, values: Mapping[int, Tensor], places: NDArray[np.int64], *, biased: bool
) -> Tensor:
    """Run a layer on some of its inputs."""
    source, weight = values[step.args[0].number], values[step.args[1].number]
    index = torch.from_numpy(places).to(source.device)
    bias, *rest = step.args[2:] or (None,)
    inputs = select(source, _CHANNEL_AXIS[step.func], index)
    given = values[bias.number] if biased and isinstance(bias, Ref) else None
    result: Tensor = step.func(inputs, select(weight, 1, index), given, *rest)
    return result


def _staying(
    step: Step,
    reads: Mapping[int, tuple[_Read, ...]],
    values: Mapping[int, Tensor],
    keep: Keep,
) -> NDArray[np.int64]:
    """Return the inputs of a layer that stay."""
    number = step.args[1].number
    return np.setdiff1d(np.arange(values[number].shape[1]), _removed(reads[number], keep))


def suffix_of(tape: Tape, folded: Folded, groups: Sequence[ChannelGroup]) -> Suffix:
    """Return the part of a run that changes when channels of `groups` leave.

    Args:
        tape: The run.
        folded: Its steps, folded.
        groups: What is cut together.
    """
    reads: dict[int, list[_Read]] = {}
    for group in groups:
        for member in group.members:
            if member.role == "consumes":
                number = tape.stored[member.tensor]
                number = folded.weights.get(number, number)
                reads.setdefault(number, []).append(_Read(group, member, number))
    changed, sums, steps, narrow = set(reads), list[Step](), list[Step](), set[int]()
    for step in folded.steps:
        if changed.isdisjoint(step.reads):
            continue
        if _reads_channels(step, reads):
            clean = step.args[0].number not in changed
            (sums if clean else steps).append(step)
            if not clean:
                narrow.add(id(step))
        else:
            steps.append(step)
        changed.update(step.makes)
    needed = needed_by([*sums, *steps])
    return Suffix(
        tuple(sums),
        frozenset(narrow),
        tuple(steps),
        {number: tuple(found) for number, found in reads.items()},
        frozenset(needed),
        frozenset(numbers_in(tape.outputs)),
    )


def _reads_channels(step: Step, reads: Mapping[int, Any]) -> bool:
    """Whether `step` is an ungrouped layer that takes one of the weights by their inputs."""
    if step.func not in _CHANNEL_AXIS or step.kwargs or not isinstance(step.args[1], Ref):
        return False
    found = reads.get(step.args[1].number, ())
    grouped = step.func is _ATEN.conv2d.default and len(step.args) > 6 and step.args[6] != 1
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
