"""Equalization: channels that use little of a tensor's range are scaled up, and down after it.

All channels of an activation share one grid. Where a depthwise convolution reads it, a channel can
be multiplied before the activation and divided in the weight that reads it, and the float network
computes the same (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1; here only the
activation matters, because every channel of a weight has its own scale). After ReLU6 that holds as
long as nothing reaches the limit, so 20 % are left free above the largest value that was seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.quantization.calibration import ChannelMoments
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.sites import RecordedSites, Site

_FREE = 0.8
"""Share of the limit of an activation that the largest value may use afterwards."""
_LARGEST_FACTOR = 64.0


@dataclass(frozen=True, eq=False)
class Equalized:
    """A layer whose output channels are scaled, and the depthwise one that reads them.

    Attributes:
        first: Makes the channels.
        second: Reads them.
        factors: By what every channel is multiplied, at least 1; shape (channels,).
    """

    first: IntegerLayer
    second: IntegerLayer
    factors: NDArray[np.float64]


def equalized(
    recorded: RecordedSites, plan: QuantizationPlan, channels: Mapping[str, ChannelMoments]
) -> tuple[Equalized, ...]:
    """Return which channels to scale, by what the float network computes.

    Args:
        recorded: The sites of the network.
        plan: From `placement.place`, of the same recording.
        channels: From `calibration.observe`, of the same plan.
    """
    own = {layer.operation for layer in plan.own_layers}
    makers = {layer.result: layer for layer in plan.layers.values() if layer.operation in own}
    found = []
    for site in recorded.sites:
        second = plan.layers.get(site.name)
        first = None if second is None else makers.get(second.source)
        if second is None or first is None or second.operation not in own:
            continue
        if not (_is_depthwise(site) and _alone(recorded, plan, site, first) and _scalable(first)):
            continue
        limit = plan.limits.get(first.result)
        found.append(Equalized(first, second, _factors(channels[first.operation], limit)))
    return tuple(found)


@torch.no_grad()
def equalize_(model: nn.Module, found: tuple[Equalized, ...]) -> None:
    """Scale the channels in place."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for one in found:
        factors = torch.from_numpy(one.factors)
        norm = one.first.norm
        names = (one.first.bias,) if norm is None else (norm.scale, norm.shift)
        scaled = [tensors[name] for name in names if name is not None]
        if norm is None:
            scaled.append(one.first.channels_first(tensors[one.first.weight]))
        for tensor in scaled:
            _multiply(tensor, factors)
        reading = tensors[one.second.weight]
        _multiply(reading, (1 / factors).repeat_interleave(len(reading) // len(factors)))


def _multiply(tensor: Tensor, factors: Tensor) -> None:
    tensor.mul_(factors.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1)))


def _factors(moments: ChannelMoments, limit: float | None) -> NDArray[np.float64]:
    highest = np.maximum(moments.highest, 0.0)
    most = highest.max() if limit is None else _FREE * limit
    factors = np.divide(most, highest, out=np.ones_like(highest), where=highest > 0)
    clipped: NDArray[np.float64] = np.clip(factors, 1.0, _LARGEST_FACTOR)
    return clipped


def _is_depthwise(site: Site) -> bool:
    """Whether every input channel makes output channels of its own."""
    arguments = site.calls[0].arguments
    return bool(arguments.get("groups", 1) > 1 and arguments["weight"].shape[1] == 1)


def _alone(
    recorded: RecordedSites, plan: QuantizationPlan, reader: Site, first: IntegerLayer
) -> bool:
    """Whether only `reader` takes what `first` makes, after a ReLU or ReLU6, and directly."""
    taken = reader.calls[0].reads[0]
    maker = next((site for site in recorded.sites if taken in site.makes), None)
    takers = [site for site in recorded.sites if taken in site.reads]
    return (
        maker is not None
        and maker.op in ("relu", "relu6", "hardtanh")
        and plan.outputs.get(maker.name) == first.result
        and takers == [reader]
        and taken not in recorded.outputs
        and list(plan.outputs.values()).count(first.result) == 1
    )


def _scalable(layer: IntegerLayer) -> bool:
    norm = layer.norm
    return norm is None or (norm.scale is not None and norm.shift is not None)
