"""Dead channels: those that a network keeps constant, and whose folded weights are still large.

A channel that is the same on all images has a running variance near zero. Folding divides its
weights by the root of that: they become hundreds of times larger than others, and a rounding error
of the input that the float network would not notice moves the channel by many levels. Measured on
a trained classifier, 188 of 17056 channels are such, and cost 6 to 8 dB (rule R2 of
the project's study of runtimes, 2026-11).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.quantization.calibration import ChannelMoments
from flyweight.quantization.grids import HIGHEST_BY_BITS
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan

AMPLIFYING = 0.25
"""Levels of the output for one step of the integer sums, above which a channel amplifies errors."""
Constants = Mapping[str, Mapping[int, float]]
"""Operation to its constant channels and their values before the activation."""


def dead_channels(plan: QuantizationPlan, channels: Mapping[str, ChannelMoments]) -> Constants:
    """Return the channels that must be made constant, with the constant.

    A channel is dead if one step of its integer sums is more than `AMPLIFYING` levels of its
    result, and its standard deviation is less than one level. Layers that share a weight or a
    normalisation are left alone.

    Args:
        plan: With grids.
        channels: From `calibration.observe`, of the same plan.
    """
    found: dict[str, dict[int, float]] = {}
    for layer in plan.own_layers:
        moments = channels[layer.operation]
        step, level = plan.grids[layer.source].scale, plan.grids[layer.result].scale
        scales = moments.weight / HIGHEST_BY_BITS[plan.weight_bits]
        dead = (step * scales / level > AMPLIFYING) & (moments.deviation < level)
        if dead.any():
            places = np.flatnonzero(dead).tolist()
            found[layer.operation] = {place: float(moments.mean[place]) for place in places}
    return found


def noted(plan: QuantizationPlan, constants: Constants) -> QuantizationPlan:
    """Return the plan with the names of the channels that are constant."""
    return replace(plan, constant={name: tuple(values) for name, values in constants.items()})


def hold_constant_(model: nn.Module, plan: QuantizationPlan, constants: Constants) -> None:
    """Make channels constant, in place: no weight, and the constant as what is added.

    Args:
        model: What the plan was made for; a copy of the user's.
        plan: Names the tensors of the layers.
        constants: From `dead_channels`.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for layer in plan.layers.values():
        values = constants.get(layer.operation)
        if values:
            _hold(tensors, layer, values)


@torch.no_grad()
def _hold(tensors: Mapping[str, Tensor], layer: IntegerLayer, values: Mapping[int, float]) -> None:
    places = list(values)
    added = tensors[layer.weight].new_tensor(list(values.values()))
    layer.channels_first(tensors[layer.weight])[places] = 0.0
    if layer.bias is not None:
        tensors[layer.bias][places] = added if layer.norm is None else 0.0
    if layer.norm is None:
        return
    norm = layer.norm
    tensors[norm.variance][places] = 1 - norm.epsilon  # A factor of 1.
    if norm.scale is not None:
        tensors[norm.scale][places] = 1.0
    tensors[norm.mean][places] = -added if norm.shift is None else 0.0
    if norm.shift is not None:
        tensors[norm.shift][places] = added
