"""Quantized networks: a module that computes what the integer runtime will compute.

`quantize_` changes a module in place: its class, its parameters and their names stay; quantizers
are added as a child, and the forward runs under a mode that applies them at their sites.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.graph.stored import copy_module
from flyweight.quantization.fake import (
    Quantizer,
    least_scales,
    rounded_bias,
    rounded_weight,
    weight_scales,
)
from flyweight.quantization.quantization_plan import FoldedNorm, IntegerLayer, QuantizationPlan
from flyweight.quantization.sites import handled, watch_paths

CHILD = "quantizers"
"""Attribute of a quantized module that holds its quantizers."""
_CONSTANTS = "quantized_constants"
"""Attribute of a frozen module that holds its folded weights."""
_ARGUMENTS = ("input", "weight", "bias")


def quantize_(model: nn.Module, plan: QuantizationPlan) -> None:
    """Make `model` compute with the integers of `plan`, in place.

    Args:
        model: What the plan was made for.
        plan: With grids.

    Raises:
        PlanError: The module is quantized already, or the plan names tensors that it does not have.
    """
    _require(model, plan)
    watch_paths(model)
    children = {key_of(name): Quantizer(grid) for name, grid in plan.grids.items()}
    setattr(model, CHILD, nn.ModuleDict(children))
    # A method, as torch.export asks a forward for its code.
    model.__dict__["forward"] = QuantizedForward(model, plan).forward


def plan_of(model: nn.Module) -> QuantizationPlan | None:
    """Return the plan by which a module is quantized; None for a float one."""
    forward = _forward_of(model)
    return None if forward is None else forward.plan


def _forward_of(model: nn.Module) -> "QuantizedForward | None":
    forward = getattr(vars(model).get("forward"), "__self__", None)
    return forward if isinstance(forward, QuantizedForward) else None


def key_of(quantizer: str) -> str:
    """Return the name of a quantizer as a key of modules, which has no dots."""
    return quantizer.replace(".", "/")


def _require(model: nn.Module, plan: QuantizationPlan) -> None:
    if hasattr(model, CHILD):
        raise PlanError(
            f"A model must have no attribute '{CHILD}' to be quantized. Received a "
            f"{type(model).__name__} that has one; it may be quantized already. Give the float "
            "model."
        )
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    named = [layer.weight for layer in plan.layers.values()]
    missing = [name for name in named if name not in tensors]
    if missing:
        raise PlanError(
            "A plan must meet the model it was made for. Received a plan that quantizes "
            f"'{missing[0]}', which {type(model).__name__} does not have. Quantize again."
        )


class Handler:
    """What happens at the sites of a network; here, layers run with folded normalisations.

    Args:
        model: The network.
        plan: What is quantized.
    """

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        self.model, self.plan = model, plan
        self._norms = frozenset(plan.norms)
        self._tensors: dict[str, Tensor] = {}

    def prepare(self) -> None:
        """Look the tensors of the network up; a cut or a move may have replaced them."""
        self._tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def run(self, forward: Callable[..., Any], example: Example) -> Any:
        """Return what `forward` returns when every site is handled."""
        self.prepare()
        with handled(self._handle):
            return forward(*example.args, **example.kwargs)

    def rounded(
        self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias to use in place of the folded ones."""
        return weight, bias

    def made(self, layer: IntegerLayer, weight: Tensor, values: Tensor) -> Tensor:
        """Return what replaces the result of a layer, before its activation."""
        return values

    def result(self, quantizer: str, values: Tensor) -> Tensor:
        """Return what replaces a tensor that has a quantizer."""
        return values

    def _handle(self, site: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.plan.layers.get(site)
        if layer is not None:
            made = self._layer(layer, func, args, kwargs)
        elif site in self._norms:
            made = args[0] if args else kwargs["input"]
        else:
            made = func(*args, **kwargs)
        quantizer = self.plan.outputs.get(site)
        if quantizer is None:
            return made
        if isinstance(made, Tensor):
            return self.result(quantizer, made)
        return type(made)(self.result(quantizer, part) for part in made)

    def parameters_of(self, layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias that a layer computes with."""
        return self.rounded(layer, *self.folded(layer))

    def folded(self, layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias of a layer with its normalisation in them."""
        weight = self._tensors[layer.weight]
        bias = None if layer.bias is None else self._tensors[layer.bias]
        if layer.norm is not None:
            return self._folded(layer.norm, weight, bias)
        return weight, bias

    def _layer(self, layer: IntegerLayer, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        weight, bias = self.parameters_of(layer)
        found = func(named["input"], **{**_rest(named, args), "weight": weight, "bias": bias})
        return self.made(layer, weight, found)

    def _folded(
        self, norm: FoldedNorm, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        tensors = self._tensors
        factor = torch.rsqrt(tensors[norm.variance] + norm.epsilon)
        if norm.scale is not None:
            factor = factor * tensors[norm.scale]
        mean = tensors[norm.mean]
        shifted = (-mean if bias is None else bias - mean) * factor
        if norm.shift is not None:
            shifted = shifted + tensors[norm.shift]
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), shifted


_SETTINGS = ("stride", "padding", "dilation", "groups")


def _rest(named: Mapping[str, Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """Return the further arguments of a layer by name."""
    further = dict(zip(_SETTINGS, args[len(_ARGUMENTS) :], strict=False))
    return {**{k: v for k, v in named.items() if k not in _ARGUMENTS}, **further}


class QuantizedForward(Handler):
    """The forward of a quantized module."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self._quantizers: dict[str, Quantizer] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own forward with quantized tensors."""
        example = Example(args, kwargs)
        self.prepare()
        places = iter([place for place, _ in example.tensors()])
        given = example.mapped(lambda tensor: self._input(next(places), tensor))
        return self.run(type(self.model).forward.__get__(self.model), given)

    def prepare(self) -> None:
        """Look the tensors and quantizers up."""
        super().prepare()
        children = getattr(self.model, CHILD)
        self._quantizers = {name: children[key_of(name)] for name in self.plan.quantizers}

    def _input(self, place: str, tensor: Tensor) -> Tensor:
        quantizer = self.plan.inputs.get(place)
        return tensor if quantizer is None else self.result(quantizer, tensor)

    def rounded(
        self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weight rounded to its grid, and the bias to the steps of the sums."""
        scales = self.scales_of(layer, weight, bias)
        steps = scales * self._quantizers[layer.source].scale
        return rounded_weight(weight, scales), None if bias is None else rounded_bias(bias, steps)

    def scales_of(self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the scale of every output channel of a folded weight."""
        scales = weight_scales(weight, self.plan.weight_bits)
        if bias is None:
            return scales
        step = self._quantizers[layer.source].scale
        return torch.maximum(scales, least_scales(bias, step))

    def result(self, quantizer: str, values: Tensor) -> Tensor:
        """Return the values rounded to the grid of a quantizer."""
        rounded: Tensor = self._quantizers[quantizer](values)
        return rounded


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of a quantized module whose weights are folded and rounded for good.

    A file that is written from it holds integers. Other modules are returned as they are.
    """
    forward = _forward_of(model)
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

    def freeze(self) -> None:
        """Compute the weights as they are at present, and keep them in the module."""
        self.prepare()
        constants = {
            layer.operation: self._constants_of(layer) for layer in self.plan.layers.values()
        }
        held = nn.ModuleDict({key_of(name): one for name, one in constants.items()})
        setattr(self.model, _CONSTANTS, held)

    def _constants_of(self, layer: IntegerLayer) -> nn.Module:
        weight, bias = self.folded(layer)
        scales = self.scales_of(layer, weight, bias)
        weight, bias = self.rounded(layer, weight, bias)
        named = {"weight": weight, "scales": scales, "bias": bias}
        holder = nn.Module()
        for name, tensor in named.items():
            holder.register_buffer(name, tensor)
        return holder

    def parameters_of(self, layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
        """Return the constants of a layer."""
        held: Any = getattr(self.model, _CONSTANTS)[key_of(layer.operation)]
        return rounded_weight(held.weight, held.scales), held.bias
