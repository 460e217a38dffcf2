"""Batch normalisation folded into the convolution before it, on a tape.

In evaluation a normalisation is a scale and an offset per channel, which the convolution can apply
itself (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2). A third of the time of a
compact network goes into normalisations; running its parts hundreds of times need not pay for them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flyweight.replay.tape import Ref, Step, Tape, numbers_in

_CONVOLUTION = torch.ops.aten.conv2d.default
_NORMALISATION = torch.ops.aten.batch_norm.default


@dataclass(frozen=True, eq=False)
class Folded:
    """A tape with fewer steps.

    Attributes:
        steps: In order of execution.
        values: The new weights and biases, by number.
        weights: Number of a convolution's weight to that of the one with the scale in it.
    """

    steps: tuple[Step, ...]
    values: Mapping[int, Tensor]
    weights: Mapping[int, int]


def fold(tape: Tape) -> Folded:
    """Return the steps of `tape` with every normalisation that allows it folded away.

    A convolution that is read elsewhere, too, stays as it is, and so does one that shares its
    weight with another.
    """
    readers = Counter(number for step in tape.steps for number in step.reads)
    readers.update(numbers_in(tape.outputs))
    makers = {step.result.number: step for step in tape.steps if step.func is _CONVOLUTION}
    stored = set(tape.stored.values())
    steps: list[Step] = []
    values: dict[int, Tensor] = {}
    weights: dict[int, int] = {}
    gone: set[int] = set()
    for step in tape.steps:
        maker = _maker_of(step, makers, stored) if step.func is _NORMALISATION else None
        if maker is None or readers[maker.result.number] > 1 or readers[maker.args[1].number] > 1:
            steps.append(step)
            continue
        weight, bias = _with_scale(maker, step, tape.values)
        number = -2 * len(weights) - 1
        values |= {number: weight, number - 1: bias}
        weights[maker.args[1].number] = number
        args = (maker.args[0], Ref(number), Ref(number - 1), *maker.args[3:])
        steps.append(replace(maker, args=args, result=step.result))
        gone.add(maker.result.number)
    kept = tuple(step for step in steps if gone.isdisjoint(step.makes))
    return Folded(kept, values, weights)


def _maker_of(step: Step, makers: Mapping[int, Step], stored: set[int]) -> Step | None:
    """Return the convolution whose results `step` normalises by stored statistics alone."""
    source, *parameters = step.args[:5]
    maker = makers.get(source.number)
    if maker is None or maker.kwargs or step.kwargs or step.args[5]:
        return None
    refs = [ref for ref in (*parameters, *maker.args[1:3]) if ref is not None]
    statistics = parameters[2:]
    own = all(isinstance(ref, Ref) and ref.number in stored for ref in refs)
    return maker if own and None not in statistics else None


def _with_scale(maker: Step, norm: Step, values: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the convolution's weight and bias with the normalisation in them."""

    def value(ref: Any) -> Tensor | None:
        return None if ref is None else values[ref.number].double()

    gain, offset = value(norm.args[1]), value(norm.args[2])
    mean, variance = (values[ref.number].double() for ref in norm.args[3:5])
    weight = values[maker.args[1].number]
    bias = value(maker.args[2]) if len(maker.args) > 2 else None
    scale = (variance + norm.args[7]).rsqrt()
    scale = scale if gain is None else scale * gain
    shift = -mean if bias is None else bias - mean
    shift = shift * scale if offset is None else shift * scale + offset
    made = weight.double() * scale[:, None, None, None]
    return made.to(weight.dtype), shift.to(weight.dtype)
