"""Float networks whose single layers compute what those of a quantized network do.

`equalize` and `exact` multiply channels in one layer and divide them in the next. The network
computes the same, but its layers do not: they cannot be compared with those of the network that was
quantized, only with those of a float one that is scaled alike.
"""

import torch
from torch import nn

from flyweight.graph.stored import copy_module
from flyweight.quantization.network import Handler, QuantizedForward
from flyweight.quantization.rounding import levels_of

_FARTHEST = 1.5
"""Steps by which weights may differ from the float ones: rounded before, but not scaled."""


@torch.no_grad()
def scaled_layer(model: nn.Module, forward: QuantizedForward) -> str | None:
    """Return the first layer whose weights differ by more than rounding does; None if none does.

    Args:
        model: The float network.
        forward: Of the quantized one.
    """
    dense, plan = Handler(model, forward.plan), forward.plan
    dense.prepare()
    forward.prepare()
    for layer in plan.layers.values():
        weight, bias = forward.folded(layer)
        scales = forward.scales_of(layer, weight, bias)
        apart = levels_of(weight - dense.folded(layer)[0], scales).abs().flatten(1).amax(1)
        apart[list(plan.constant.get(layer.operation, ()))] = 0.0
        if bool((apart > _FARTHEST).any()):
            return layer.operation
    return None


@torch.no_grad()
def float_twin(model: nn.Module, forward: QuantizedForward) -> nn.Module:
    """Return a float copy of `model` with the tensors of a quantized network's layers.

    Args:
        model: The float network; it is not changed.
        forward: Of the quantized one, in which no ReLU6 runs as a ReLU.
    """
    twin = copy_module(model, private=False).eval()
    tensors = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    forward.prepare()
    for layer in forward.plan.layers.values():
        for name in layer.tensors:
            tensors[name].copy_(forward.tensor(name))
    return twin
