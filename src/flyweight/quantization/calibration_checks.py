"""Checks of calibration inputs: what cannot be what the network sees in use, and what may not be.

A batch normalisation has kept mean and variance of what its layer made in training. With the inputs
of training, the channels that it returns have the mean that it adds and the deviation that it
multiplies with. So the first layers with a normalisation show whether inputs are scaled as they
were. On trained networks and images of their training split, the deviation was 0.5 to 1.1 times
the expected one; with inputs from 0 to 255 in place of normalised ones it was 55 to 140 times.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.errors import PlanError, counted
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration import ChannelMoments, Observed
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan

_CERTAIN = 16.0
"""Factor between deviations from which on inputs are certainly not those of the training."""
_DOUBTFUL = 3.0
_DOUBTFUL_SHIFT = 1.0
"""Distance between means, in deviations, from which on there is a warning."""
_LIVING = 1e-2
"""Share of the largest scale or variance below which a channel is taken for a dead one."""
_PIXELS = 20.0
"""Largest value from which on inputs without negative ones look like pixels."""
_REMEDY = (
    "Normalise them as in training: subtract the mean and divide by the deviation of its "
    "preprocessing"
)


@dataclass(frozen=True)
class NormEvidence:
    """How the first layers with a normalisation see the inputs, beside what they saw in training.

    Attributes:
        layer: One of these layers.
        spread: Deviation of the channels, divided by that in training; the median over channels.
        shift: Distance of the means, in deviations of the training; the median over channels.
    """

    layer: str
    spread: float
    shift: float


def require_fitting(
    plan: QuantizationPlan, observed: Observed, tensors: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Return warnings about the inputs of a calibration, or refuse them.

    Args:
        plan: What was observed by.
        observed: From `calibration.observe`.
        tensors: Parameters and buffers of the network.

    Raises:
        PlanError: All values of the inputs are equal, or the normalisations of the network saw
            inputs of another scale.
    """
    seen = [observed.tensors[name] for name in plan.inputs.values()]
    low, high = (min((o.low for o in seen), default=0.0), max((o.high for o in seen), default=0.0))
    if seen and low == high:
        raise PlanError(
            "Calibration must see images with content. Received inputs of the single value "
            f"{low:.6g}. Give images as the network sees them in use."
        )
    found = norm_evidence(plan, observed.channels, tensors)
    if found is None:
        is_raw = bool(seen) and low >= 0 and high >= _PIXELS
        note = f"inputs from {low:.4g} to {high:.4g} seem to be pixels that were not normalised"
        return (f"{note}. If the network takes normalised ones: {_REMEDY}.",) if is_raw else ()
    given = f"inputs from {low:.4g} to {high:.4g}, " if seen else "inputs "
    text = (
        f"{given}which give '{found.layer}' {found.spread:.3g} times the deviation that its batch "
        f"normalisation saw in training, and means {found.shift:.3g} deviations away"
    )
    if not 1 / _CERTAIN < found.spread < _CERTAIN:
        raise PlanError(
            "Calibration must see inputs of the scale that the network was trained on. Received "
            f"{text}. {_REMEDY}."
        )
    doubtful = not 1 / _DOUBTFUL < found.spread < _DOUBTFUL or found.shift > _DOUBTFUL_SHIFT
    return (f"calibration has {text}. If that is not intended: {_REMEDY}.",) if doubtful else ()


def norm_evidence(
    plan: QuantizationPlan, channels: Mapping[str, ChannelMoments], tensors: Mapping[str, Tensor]
) -> NormEvidence | None:
    """Return how the first normalisations see the inputs; None where there are none.

    Those with the statistics of a new module have seen nothing and are left out.

    Args:
        plan: Names the layers, in the order of the network.
        channels: What the layers make, with their normalisations.
        tensors: Parameters and buffers of the network.
    """
    layers = [one for one in plan.layers.values() if _has_seen(one, tensors)]
    first = [one for one in layers if one.source in plan.inputs.values()] or layers[:1]
    if not first:
        return None
    pairs = [_compared(one, channels[one.operation], tensors) for one in first]
    spreads, shifts = (np.concatenate(part) for part in zip(*pairs, strict=True))
    if not len(spreads):
        return None
    return NormEvidence(first[0].operation, float(np.median(spreads)), float(np.median(shifts)))


def _has_seen(layer: IntegerLayer, tensors: Mapping[str, Tensor]) -> bool:
    norm = layer.norm
    if norm is None or norm.scale is None or norm.shift is None:
        return False
    mean, variance = tensors[norm.mean], tensors[norm.variance]
    return not (bool((mean == 0).all()) and bool((variance == 1).all()))


def _compared(
    layer: IntegerLayer, moments: ChannelMoments, tensors: Mapping[str, Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return spread and shift of the living channels of a layer."""
    norm = layer.norm
    assert norm is not None  # noqa: S101 - only such layers come here
    scale, shift, variance = (
        tensors[name].detach().double().cpu().numpy()
        for name in (str(norm.scale), str(norm.shift), norm.variance)
    )
    scale = np.abs(scale)
    living = (scale > _LIVING * scale.max()) & (variance > _LIVING**2 * variance.max())
    spread = moments.deviation[living] / scale[living]
    return spread, np.abs(moments.mean - shift)[living] / scale[living]


def repeated_images(batches: Iterable[Example]) -> int:
    """Return how many images there are where all are equal and there are several; else 0.

    It stops at the first image that is another one.

    Args:
        batches: Inputs of the network, each with the images on the first axis.
    """
    first: dict[str, Tensor] = {}
    count = 0
    for batch in batches:
        sizes = set()
        for place, tensor in batch.tensors():
            if not tensor.ndim or not len(tensor):
                continue
            one = first.setdefault(place, tensor[:1].clone())
            if one.shape[1:] != tensor.shape[1:] or not bool(torch.eq(tensor, one).all()):
                return 0
            sizes.add(len(tensor))
        count += max(sizes, default=0)
    return count if count > 1 else 0


def note_on_repeated(count: int) -> str:
    """Return the warning about images that are all equal."""
    return (
        f"{counted(count, 'calibration image')} are all equal, and say as much as one. Give "
        "different ones, as the network sees them in use."
    )
