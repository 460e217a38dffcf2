"""Quantized networks: a module that computes what the integer runtime will compute.

`quantize_` changes a module in place: its class, its parameters and their names stay; quantizers
are added as a child, and the forward runs under a mode that applies them at their sites.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.exact import power_scales, require_exact
from flyweight.quantization.fake import (
    LearnedQuantizer,
    Quantizer,
    WeightQuantizer,
    least_scales,
    rounded_bias,
    weight_scales,
)
from flyweight.quantization.grids import HIGHEST_BY_BITS, Grid
from flyweight.quantization.openvino_rounding import FUSING, with_zero_added
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.rounding import Steps, WeightRounding, by_channel
from flyweight.quantization.sites import handled, watch_paths

CHILD = "quantizers"
"""Attribute of a quantized module that holds its quantizers."""
WEIGHTS = "weight_quantizers"
"""Attribute of a quantized module that holds the scales of its weights, where they are stored."""
_SMALLEST_FACTOR = 1e-12
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
    equip(model, plan)


def equip(model: nn.Module, plan: QuantizationPlan) -> "QuantizedForward":
    """Give a module with watched paths the quantizers of a plan, in place of those it has."""
    children = {name: _quantizer(name, plan) for name in plan.grids}
    setattr(model, CHILD, Quantizers({key_of(name): one for name, one in children.items()}))
    present = dict(getattr(model, WEIGHTS, nn.ModuleDict()).items())
    if present:
        delattr(model, WEIGHTS)
    forward = QuantizedForward(model, plan)
    if plan.own_scales:
        setattr(model, WEIGHTS, WeightQuantizers(forward.weight_quantizers(present)))
    # A method, as torch.export asks a forward for its code.
    model.__dict__["forward"] = forward.forward
    return forward


def _quantizer(name: str, plan: QuantizationPlan) -> Quantizer:
    learned, grid = plan.learned, plan.grids[name]
    if learned is None or learned.method == "fixed":
        return Quantizer(grid)
    return LearnedQuantizer(grid, clipped=learned.method == "pact", limit=plan.limits.get(name))


class Quantizers(nn.ModuleDict):
    """Quantizers or constants of a network.

    It hands on what it takes, because nn.Sequential runs every child.
    """

    def forward(self, values: Any) -> Any:
        """Return `values`."""
        return values


class WeightQuantizers(Quantizers):
    """The stored scales of weights, by the keys of their layers.

    Attributes:
        steps: How many training steps were done, shape ().
    """

    steps: Tensor

    def __init__(self, quantizers: Mapping[str, WeightQuantizer]) -> None:
        super().__init__({key_of(name): one for name, one in quantizers.items()})
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


def plan_of(model: nn.Module) -> QuantizationPlan | None:
    """Return the plan by which a module is quantized; None for a float one."""
    forward = forward_of(model)
    return None if forward is None else forward.plan


def forward_of(model: nn.Module) -> "QuantizedForward | None":
    """Return the forward of a quantized module; None of a float one."""
    forward = getattr(vars(model).get("forward"), "__self__", None)
    return forward if isinstance(forward, QuantizedForward) else None


def key_of(quantizer: str) -> str:
    """Return the name of a quantizer as a key of modules, which has no dots.

    Attributes of modules cannot be keys: an operation outside of all modules may be called `to`.
    """
    key = quantizer.replace(".", "/")
    return f"/{key}" if hasattr(nn.ModuleDict, key) else key


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
        self._norms, self._relus = frozenset(plan.norms), frozenset(plan.relus)
        self._tensors: dict[str, Tensor] = {}

    def prepare(self) -> None:
        """Look the tensors of the network up; a cut or a move may have replaced them."""
        self._tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def run(self, forward: Callable[..., Any], example: Example) -> Any:
        """Return what `forward` returns when every site is handled."""
        self.prepare()
        with handled(self.handle):
            return forward(*example.args, **example.kwargs)

    def rounded(
        self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias to use in place of the folded ones."""
        return weight, bias

    def passes(self, site: str) -> bool:
        """Whether the result of a site is left alone, although it has a quantizer."""
        return False

    def made(self, layer: IntegerLayer, weight: Tensor, values: Tensor) -> Tensor:
        """Return what replaces the result of a layer, before its activation."""
        return values

    def result(self, quantizer: str, values: Tensor) -> Tensor:
        """Return what replaces a tensor that has a quantizer."""
        return values

    def handle(self, site: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a site's function makes, with what happens there."""
        layer = self.plan.layers.get(site)
        if layer is not None:
            made = self._layer(layer, func, args, kwargs)
        elif site in self._norms:
            made = args[0] if args else kwargs["input"]
        elif site in self._relus:
            made = torch.relu(args[0] if args else kwargs["input"])
        else:
            made = func(*args, **kwargs)
        quantizer = self.plan.outputs.get(site)
        if quantizer is None or self.passes(site):
            return made
        if isinstance(made, Tensor):
            return self.result(quantizer, made)
        parts = [self.result(quantizer, one) if _has_values(one) else one for one in made]
        return type(made)(parts)

    def parameters_of(self, layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias that a layer computes with."""
        return self.rounded(layer, *self.folded(layer))

    def folded(self, layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias of a layer with its normalisation in them.

        The first axis of the weight is that of the output channels.
        """
        tensors, norm, factor = self._tensors, layer.norm, self.factor_of(layer)
        weight = self.weight(layer)
        bias = None if layer.bias is None else tensors[layer.bias]
        if norm is None or factor is None:
            return weight, bias
        mean = tensors[norm.mean]
        shifted = (-mean if bias is None else bias - mean) * factor
        if norm.shift is not None:
            shifted = shifted + tensors[norm.shift]
        return weight * by_channel(factor, weight), shifted

    def _layer(self, layer: IntegerLayer, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        settings = _TRANSPOSED_SETTINGS if layer.transposed else _SETTINGS
        return self.compute(layer, func, named["input"], _rest(named, args, settings))

    def compute(
        self, layer: IntegerLayer, func: Any, given: Tensor, settings: Mapping[str, Any]
    ) -> Tensor:
        """Return what a layer makes of its input, before its activation.

        Args:
            layer: The layer.
            func: The torch function that computes it.
            given: Its input.
            settings: The other arguments: stride, padding and so on.
        """
        weight, bias = self.parameters_of(layer)
        made = func(given, weight=layer.channels_first(weight), bias=bias, **settings)
        return self.made(layer, weight, made)

    def weight(self, layer: IntegerLayer) -> Tensor:
        """Return the stored weight of a layer, as a view with the output channels first."""
        return layer.channels_first(self._tensors[layer.weight])

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer of the network by its name."""
        return self._tensors[name]

    def factor_of(self, layer: IntegerLayer) -> Tensor | None:
        """Return by what a folded normalisation multiplies every output channel of a weight."""
        norm = layer.norm
        if norm is None:
            return None
        factor = torch.rsqrt(self._tensors[norm.variance] + norm.epsilon)
        return factor if norm.scale is None else factor * self._tensors[norm.scale]


def _has_values(part: object) -> bool:
    """Whether a part of a result can be rounded; places of the largest values cannot."""
    return isinstance(part, Tensor) and part.is_floating_point()


def unfold(weight: Tensor, made: Tensor, factor: Tensor | None) -> None:
    """Change a weight in place so that folding a normalisation gives `made`.

    Args:
        weight: Of a layer; channels with a factor of 0 keep theirs.
        made: The folded weight to have.
        factor: By what folding multiplies, shape (channels,); None without a normalisation.
    """
    if factor is None:
        weight.copy_(made)
        return
    kept = factor.abs() > _SMALLEST_FACTOR
    divided = made / by_channel(torch.where(kept, factor, 1.0), made)
    weight.copy_(torch.where(by_channel(kept, made), divided, weight))


_SETTINGS = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_SETTINGS = ("stride", "padding", "output_padding", "groups", "dilation")


def _rest(
    named: Mapping[str, Any], args: tuple[Any, ...], settings: Sequence[str]
) -> dict[str, Any]:
    """Return the further arguments of a layer by name."""
    further = dict(zip(settings, args[len(_ARGUMENTS) :], strict=False))
    return {**{k: v for k, v in named.items() if k not in _ARGUMENTS}, **further}


class QuantizedForward(Handler):
    """The forward of a quantized module."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan) -> None:
        super().__init__(model, plan)
        self._quantizers: dict[str, Quantizer] = {}
        self._steps: dict[str, Steps] = {}
        self._own: Any = None
        self._held = False
        self._again = _sites_that_pass(plan)
        self._unrounded = frozenset(plan.unrounded)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own forward with quantized tensors."""
        example = Example(args, kwargs)
        self.prepare()
        places = iter([place for place, _ in example.tensors()])
        given = example.mapped(lambda tensor: self._input(next(places), tensor))
        own = type(self.model).forward.__get__(self.model)
        with handled(self.handle):
            returned = own(*given.args, **given.kwargs)
        if self.plan.learned is not None and self.plan.own_scales and self.model.training:
            self._own.steps.add_(1)
        return returned

    def prepare(self) -> None:
        """Look the tensors and quantizers up, and what they hold at present."""
        super().prepare()
        children = getattr(self.model, CHILD)
        self._own = getattr(self.model, WEIGHTS, None)
        self._quantizers = {name: children[key_of(name)] for name in self.plan.quantizers}
        self._steps = {} if torch.compiler.is_compiling() else self._present_steps()
        last = 0 if self.plan.learned is None else self.plan.learned.hold_after
        self._held = last > 0 and int(self._own.steps) >= last

    def _present_steps(self) -> dict[str, Steps]:
        """Return the grids as numbers, which are read from the device once."""
        pairs = [one.current() for one in self._quantizers.values()]
        if not pairs:
            return {}
        scales, zeros = (torch.stack(part).tolist() for part in zip(*pairs, strict=True))
        return {
            name: Steps(scale, zero)
            for name, scale, zero in zip(self._quantizers, scales, zeros, strict=True)
        }

    def held_gains(self) -> dict[str, Tensor | None]:
        """Return the layers whose weights keep their integers at present, with the held gain."""
        if not self._held:
            return {}
        own = {one.operation: self._weight_quantizer(one) for one in self.plan.layers.values()}
        return {name: one.gain for name, one in own.items() if one.integers is not None}

    def _input(self, place: str, tensor: Tensor) -> Tensor:
        quantizer = self.plan.inputs.get(place)
        if quantizer is None:
            return tensor
        if self.plan.runtime == FUSING:
            tensor = with_zero_added(tensor, self.plan.grids[quantizer])
        return self.result(quantizer, tensor)

    def passes(self, site: str) -> bool:
        """Whether a site only moves values that are rounded already, or is not to be rounded."""
        return site in self._unrounded or (bool(self._steps) and site in self._again)

    def rounded(
        self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weight rounded to its grid, and the bias to the steps of the sums."""
        scales = self.scales_of(layer, weight, bias)
        steps = scales * self._quantizers[layer.source].current()[0]
        made = self._on_grid(layer, weight, scales)
        return made, None if bias is None else rounded_bias(bias, steps)

    def _on_grid(self, layer: IntegerLayer, weight: Tensor, scales: Tensor) -> Tensor:
        if not self.plan.own_scales:
            highest = HIGHEST_BY_BITS[self.plan.weight_bits]
            made: Tensor = WeightRounding.apply(weight, None, scales, scales, highest)
            return made
        own = self._weight_quantizer(layer)
        folding = self.factor_of(layer)
        if self._held:
            return own.held(weight, scales, folding)
        learned = self.plan.learned
        if learned is not None and self.model.training and own.integers is not None:
            step = int(self._own.steps)
            own.count(weight, scales, step, last=step + 1 == learned.hold_after)
            own.note_gain(self._gain(layer))
        return own.rounded(weight, scales, folding)

    def _gain(self, layer: IntegerLayer) -> Tensor | None:
        name = None if layer.norm is None else layer.norm.scale
        return None if name is None else self._tensors[name]

    def factor_of(self, layer: IntegerLayer) -> Tensor | None:
        """Return by what a folded normalisation multiplies; with held integers, as it did then."""
        norm, gain = layer.norm, self._gain(layer)
        held = self._weight_quantizer(layer).gain if self._held else None
        if held is None or gain is None or norm is None:
            return super().factor_of(layer)
        # The gain stays a part of the graph of gradients, which are 0: some trainers want one.
        constant = held + 0 * gain
        return torch.rsqrt(self._tensors[norm.variance] + norm.epsilon) * constant

    def _weight_quantizer(self, layer: IntegerLayer) -> WeightQuantizer:
        found: WeightQuantizer = self._own[key_of(layer.operation)]
        return found

    def scales_of(self, layer: IntegerLayer, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the scale of every output channel of a folded weight."""
        if self.plan.own_scales:
            scales = self._weight_quantizer(layer).current()
        else:
            scales = weight_scales(weight, self.plan.weight_bits)
        if bias is not None:
            step = self._quantizers[layer.source].current()[0]
            scales = torch.maximum(scales, least_scales(bias, step))
        if self.plan.exact and not self.plan.own_scales:
            source = self.plan.grids[layer.source]
            return power_scales(weight, bias, scales, self.plan.weight_bits, source)
        return scales

    def result(self, quantizer: str, values: Tensor) -> Tensor:
        """Return the values rounded to the grid of a quantizer."""
        one = self._quantizers[quantizer]
        made: Tensor = one.rounded(values, self._steps[quantizer]) if self._steps else one(values)
        return made

    def grid_of(self, quantizer: str) -> Grid:
        """Return the grid of a quantizer as it is now."""
        return self._quantizers[quantizer].grid()

    @torch.no_grad()
    def require_exact(self) -> None:
        """Check that the sums of all layers are exact in float32.

        Raises:
            PlanError: Those of one may not be.
        """
        self.prepare()
        for layer in self.plan.layers.values():
            weight, bias = self.folded(layer)
            scales = self.scales_of(layer, weight, bias)
            weight, bias = self.rounded(layer, weight, bias)
            source = self._quantizers[layer.source].grid()
            steps = None if bias is None else bias / (scales * source.scale)
            levels = weight / by_channel(scales, weight)
            require_exact(layer.operation, levels, steps, source.zero_point)

    @torch.no_grad()
    def weight_quantizers(self, present: Mapping[str, Any]) -> dict[str, WeightQuantizer]:
        """Return new quantizers of the weights by operation; `present` ones hand on their scales.

        Otherwise the scales are those of the weights as they are at present.
        """
        plan, found = self.plan, {}
        self.plan = replace(plan, own_scales=False, learned=None)
        self.prepare()
        learned, bits = plan.learned, plan.weight_bits
        alone = {layer.operation for layer in plan.own_layers}
        for layer in plan.layers.values():
            weight, bias = self.folded(layer)
            averaged = learned is not None and learned.hold_after > 0
            averaged = averaged and layer.operation in alone
            before = present.get(key_of(layer.operation))
            found[layer.operation] = WeightQuantizer(
                self.scales_of(layer, weight, bias) if before is None else before.current(),
                bits,
                learned=learned is not None and learned.method == "lsq",
                shape=tuple(weight.shape) if averaged else None,
                gain=self._gain(layer),
            )
        self.plan = plan
        return found


def _sites_that_pass(plan: QuantizationPlan) -> frozenset[str]:
    """Return the sites whose results have the quantizer of an earlier tensor: its values move."""
    seen, found = set(plan.inputs.values()), set()
    for site, quantizer in plan.outputs.items():
        if quantizer in seen:
            found.add(site)
        seen.add(quantizer)
    return frozenset(found)
