"""Batch normalisation folded into the convolution before it, in a recorded run.

In evaluation a normalisation is a scale and an offset per channel, which the convolution can apply
itself (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2). A third of the time of a
compact network goes into normalisations; parts that are executed hundreds of times need not pay
for them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flyweight.graph.program import Call, Run, Value, numbers_in

_CONVOLUTION = torch.ops.aten.conv2d.default
_NORMALISATION = torch.ops.aten.batch_norm.default


@dataclass(frozen=True, eq=False)
class Folded:
    """A recorded run with fewer operations.

    Attributes:
        steps: The operations in order of execution.
        values: The new weights and biases, by number.
        weights: Number of a convolution's weight to that of the one with the scale in it.
    """

    steps: tuple[Call, ...]
    values: Mapping[int, Tensor]
    weights: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Normalisation:
    """A batch normalisation in evaluation: `(x - mean) / sqrt(variance + epsilon) * gain + offset`.

    Attributes:
        mean: Running mean, `(channels,)`.
        variance: Running variance, `(channels,)`.
        epsilon: Added to the variance.
        gain: Scale, `(channels,)`; None is 1.
        offset: Shift, `(channels,)`; None is 0.
    """

    mean: Tensor
    variance: Tensor
    epsilon: float
    gain: Tensor | None = None
    offset: Tensor | None = None

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of a layer that applies this normalisation too.

        Computed in float64 and returned in the weight's type.

        Args:
            weight: `(channels, ...)`.
            bias: `(channels,)`; None is 0.
        """
        scale = (self.variance.double() + self.epsilon).rsqrt()
        scale = scale if self.gain is None else scale * self.gain.double()
        shift = -self.mean.double() if bias is None else bias.double() - self.mean.double()
        shift = shift * scale if self.offset is None else shift * scale + self.offset.double()
        made = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return made.to(weight.dtype), shift.to(weight.dtype)


def fold(run: Run) -> Folded:
    """Return the operations of `run` with every normalisation that allows it folded away.

    A convolution whose result is read elsewhere too stays as it is, and so does one that shares its
    weight with another.
    """
    readers = Counter(number for call in run.calls for number in call.reads)
    readers.update(numbers_in(run.outputs))
    makers = {call.result.number: call for call in run.calls if call.func is _CONVOLUTION}
    stored = set(run.stored.values())
    steps: list[Call] = []
    values: dict[int, Tensor] = {}
    weights: dict[int, int] = {}
    gone: set[int] = set()
    for call in run.calls:
        maker = _maker_of(call, makers, stored) if call.func is _NORMALISATION else None
        if maker is None or readers[maker.result.number] > 1 or readers[maker.args[1].number] > 1:
            steps.append(call)
            continue
        weight, bias = _normalisation_of(call, run.values).folded(
            run.values[maker.args[1].number], _tensor(maker.args, 2, run.values)
        )
        # Negative numbers belong to no recorded tensor.
        number = -2 * len(weights) - 1
        values |= {number: weight, number - 1: bias}
        weights[maker.args[1].number] = number
        made = (_value(number, weight), _value(number - 1, bias))
        args = (maker.args[0], *made, *maker.args[3:])
        steps.append(replace(maker, args=args, result=call.result))
        gone.add(maker.result.number)
    kept = tuple(call for call in steps if gone.isdisjoint(call.makes))
    return Folded(kept, values, weights)


def _maker_of(call: Call, makers: Mapping[int, Call], stored: set[int]) -> Call | None:
    """Return the convolution whose results `call` normalises by stored statistics alone."""
    source, *parameters = call.args[:5]
    maker = makers.get(source.number)
    if maker is None or maker.kwargs or call.kwargs or call.args[5]:
        return None
    given = [value for value in (*parameters, *maker.args[1:3]) if value is not None]
    statistics = parameters[2:]
    own = all(isinstance(value, Value) and value.number in stored for value in given)
    return maker if own and None not in statistics else None


def _normalisation_of(call: Call, values: Mapping[int, Tensor]) -> Normalisation:
    return Normalisation(
        mean=values[call.args[3].number],
        variance=values[call.args[4].number],
        epsilon=call.args[7],
        gain=_tensor(call.args, 1, values),
        offset=_tensor(call.args, 2, values),
    )


def _tensor(args: tuple[Any, ...], place: int, values: Mapping[int, Tensor]) -> Tensor | None:
    value = args[place] if place < len(args) else None
    return None if value is None else values[value.number]


def _value(number: int, tensor: Tensor) -> Value:
    return Value(number, tuple(tensor.shape), tensor.dtype)
