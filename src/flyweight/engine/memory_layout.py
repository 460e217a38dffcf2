"""Layout of weights in memory during training."""

import torch
from torch import nn

_FEWEST = 8


def put_channels_last(model: nn.Module) -> None:
    """Put the weights of `model` into channels_last, where PyTorch trains in that without a fault.

    On a processor with AVX2 alone, oneDNN 3.13 (in PyTorch 2.15) writes beyond its memory in the
    backward pass of 1x1 convolutions with a stride and fewer than 8 input channels. Pruned networks
    can have such layers; on a CPU they are put into the layout that PyTorch begins with.

    Args:
        model: On the device that it is trained on.
    """
    faulty = any(map(_is_at_risk, model.modules()))
    layout = torch.contiguous_format if faulty else torch.channels_last
    model.to(memory_format=layout)


def _is_at_risk(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.weight.device.type == "cpu"
        and set(layer.kernel_size) == {1}
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < _FEWEST
    )
