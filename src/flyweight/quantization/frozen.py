"""Frozen networks: quantized ones whose weights are constants, for a file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.stored import copy_module
from flyweight.quantization.fake import Quantizer, rounded_weight
from flyweight.quantization.network import (
    CHILD,
    WEIGHTS,
    QuantizedForward,
    Quantizers,
    forward_of,
    key_of,
)
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan

_CONSTANTS = "quantized_constants"
"""Attribute of a frozen module that holds its folded weights."""


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of a quantized module whose weights are folded and rounded for good.

    A file that is written from it holds integers. Other modules are returned as they are.
    """
    forward = forward_of(model)
    if forward is None:
        return model
    copied = copy_module(model)
    last = _FrozenForward(copied, forward.plan)
    with torch.no_grad():
        last.freeze()
    copied.__dict__["forward"] = last.forward
    return copied


class _FrozenForward(QuantizedForward):
    """A forward whose layers take their weights from constants."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self._constants: Any = None

    def freeze(self) -> None:
        """Compute the weights as they are at present, and keep them in the module."""
        self.model.eval()
        super().prepare()
        constants = {
            layer.operation: self._constants_of(layer) for layer in self.plan.layers.values()
        }
        held = Quantizers({key_of(name): one for name, one in constants.items()})
        setattr(self.model, _CONSTANTS, held)
        fixed = {key_of(name): Quantizer(one.grid()) for name, one in self._quantizers.items()}
        setattr(self.model, CHILD, Quantizers(fixed))
        if self.plan.own_scales:
            delattr(self.model, WEIGHTS)
        self.plan = replace(self.plan, learned=None, own_scales=False)

    def prepare(self) -> None:
        """Look the tensors up; round by the operations that exporters know."""
        super().prepare()
        self._constants = getattr(self.model, _CONSTANTS)
        self._steps = {}

    def _constants_of(self, layer: IntegerLayer) -> nn.Module:
        weight, bias = self.folded(layer)
        scales = self.scales_of(layer, weight, bias)
        weight, bias = self.rounded(layer, weight, bias)
        weight = layer.channels_first(weight).contiguous()
        named = {"weight": weight, "scales": scales, "bias": bias}
        holder = nn.Module()
        for name, tensor in named.items():
            holder.register_buffer(name, tensor)
        return holder

    def compute(
        self, layer: IntegerLayer, func: Any, given: Tensor, settings: Mapping[str, Any]
    ) -> Tensor:
        """Return what a layer makes with its constants."""
        held = self._constants[key_of(layer.operation)]
        weight = rounded_weight(held.weight, held.scales, int(layer.transposed))
        made: Tensor = func(given, weight=weight, bias=held.bias, **settings)
        return made
