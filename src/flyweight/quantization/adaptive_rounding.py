"""AdaRound: each weight is rounded down or up, whichever keeps the results of its layer.

Nagel et al. 2020, https://arxiv.org/abs/2004.10568. The roundings (`weight_choice`) are trained,
layer after layer, until the layer of the quantized network, on the input that it has there,
computes what the float one does. Images need no labels.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.dispatch import plain_attention
from flyweight.graph.example_inputs import Example
from flyweight.graph.recording import private_copy
from flyweight.graph.stored import copy_module
from flyweight.quantization.float_twin import scaled_layer
from flyweight.quantization.grids import HIGHEST, LOWEST, Grid
from flyweight.quantization.integer_kernels import is_fused_activation
from flyweight.quantization.network import Handler, QuantizedForward, forward_of, unfold
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.quantize import Images, batches_of
from flyweight.quantization.sites import watch_paths
from flyweight.quantization.weight_choice import WeightChoice, undecided


@dataclass(frozen=True)
class AdaptiveRounding:
    """How roundings are chosen.

    Attributes:
        layers: Operations of the layers; empty for all. `layer_losses` finds those that matter.
        steps: Steps of training for each layer.
        rate: Learning rate of Adam.
        push: Weight of the term that pushes to 0 or 1, for a mean error of 1 without it.
        batch: Images of a step.
        seed: Of the choice of images.

    Raises:
        PlanError: A number is not positive.
    """

    layers: tuple[str, ...] = ()
    steps: int = 200
    rate: float = 0.01
    push: float = 0.01
    batch: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        named = {key: getattr(self, key) for key in ("steps", "rate", "push", "batch")}
        for name, value in named.items():
            if not value > 0:
                raise PlanError(
                    f"The setting '{name}' of adaptive rounding must be positive. "
                    f"Received: {value}. Leave it out for the default."
                )


def round_adaptively(
    model: nn.Module,
    quantized: nn.Module,
    images: Images,
    settings: AdaptiveRounding | None = None,
) -> nn.Module:
    """Return a copy of a quantized network whose weights are rounded to keep what layers compute.

    Args:
        model: The float network; it is not changed.
        quantized: From `fw.quantize`, with fixed steps and neither `equalize` nor `exact`, which
            change what single layers compute; it is not changed.
        images: As `fw.quantize` takes them; 16 do, more are better.
        settings: How; the default takes all layers.

    Raises:
        PlanError: There are no images, the network is float or in training, it has no such layer,
            or its weights are not those of the float one, up to a step.
    """
    settings = settings or AdaptiveRounding()
    copied = copy_module(quantized, private=False)
    mode, dense = copied.training, private_copy(model, values=True)
    batches = list(batches_of(images))
    forward, chosen = require_roundable(dense, copied, batches, settings.layers)
    watch_paths(dense)
    copied.eval()
    with plain_attention(dense, copied):
        for layer in chosen:
            _round_layer(layer, (dense, forward), batches, settings)
    return copied.train(mode)


def require_roundable(
    model: nn.Module, quantized: nn.Module, batches: Sequence[Example], names: Sequence[str]
) -> tuple[QuantizedForward, list[IntegerLayer]]:
    """Return the forward of a quantized network, and its layers whose roundings can be chosen.

    Args:
        model: The float network.
        quantized: From `fw.quantize`.
        batches: What both run on.
        names: Operations of the layers to take; empty for all.

    Raises:
        PlanError: As of `round_adaptively`.
    """
    forward = forward_of(quantized)
    if forward is None or forward.plan.learned is not None:
        raise PlanError(
            "Adaptive rounding must start from a quantized network with fixed steps. Received "
            f"a {'float' if forward is None else 'trained'} {type(quantized).__name__}. Give what "
            "fw.quantize or settled returned."
        )
    if not batches:
        raise PlanError("Adaptive rounding must see images. Received none. Give at least one.")
    scaled = scaled_layer(model, forward)
    if scaled is not None:
        raise PlanError(
            "Adaptive rounding must start from the weights of the float network. Received "
            f"'{scaled}' with others. Quantize without equalize and exact, or give the float "
            "network that was quantized."
        )
    return forward, _chosen(forward.plan, names)


def _chosen(plan: QuantizationPlan, names: Sequence[str]) -> list[IntegerLayer]:
    layers = [one for one in plan.layers.values() if one.weight not in plan.shared_weights]
    missing = set(names) - {layer.operation for layer in layers}
    if missing:
        raise PlanError(
            "A layer to round must be an integer layer with a weight of its own. "
            f"Received: '{min(missing)}'. Give names of plan.layers."
        )
    return [layer for layer in layers if not names or layer.operation in names]


def _round_layer(
    layer: IntegerLayer,
    networks: tuple[nn.Module, QuantizedForward],
    batches: list[Example],
    settings: AdaptiveRounding,
) -> None:
    """Choose the roundings of one layer and write them into its weight."""
    dense, forward = networks
    plan = forward.plan
    with torch.no_grad():
        original = _arrivals(_FloatUntil(dense, plan, layer), batches)
        arrived = _arrivals(_QuantizedUntil(forward.model, plan, layer), batches)
        exact = Handler(dense, plan)
        exact.prepare()
        weight, bias = exact.folded(layer)
        forward.prepare()
        folded, added = forward.folded(layer)
        _, rounded = forward.rounded(layer, folded, added)
        choice = WeightChoice(folded, forward.scales_of(layer, folded, added), plan.weight_bits)
        problem = _Problem(
            partial(arrived.compute, bias=rounded),
            arrived.given,
            original.compute(original.given, weight, bias),
            None if is_fused_activation(layer.result) else plan.grids[layer.result],
        )
    _train(choice, problem, settings)
    with torch.no_grad():
        unfold(forward.weight(layer), choice.hard(), forward.factor_of(layer))


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a rounded layer has to compute.

    Attributes:
        compute: Takes an input and `weight`, returns the layer's result.
        given: Inputs in the quantized network, images on the first axis.
        wanted: Results in the float network.
        grid: Of the result, which clips both; None where an activation comes in between.
    """

    compute: Any
    given: Tensor
    wanted: Tensor
    grid: Grid | None

    def clipped(self, values: Tensor) -> Tensor:
        """Return results as far as the next layer sees them: after ReLU, none below 0."""
        if self.grid is None:
            return values
        low, high = ((end - self.grid.zero_point) * self.grid.scale for end in (LOWEST, HIGHEST))
        return values.clamp(low, high)


def _train(choice: WeightChoice, problem: _Problem, settings: AdaptiveRounding) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.Adam(choice.parameters(), settings.rate)
    with torch.no_grad():
        made = problem.compute(problem.given, weight=choice.hard())
        error = (problem.clipped(made) - problem.clipped(problem.wanted)).square().mean()
        unit = float(error) or 1.0
    for step in range(settings.steps):
        places = torch.randint(len(problem.given), (settings.batch,), generator=generator)
        made = problem.compute(problem.given[places], weight=choice.soft())
        error = problem.clipped(made) - problem.clipped(problem.wanted[places])
        loss = error.square().mean() / unit
        loss = loss + settings.push * undecided([choice], step / settings.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@dataclass(frozen=True, eq=False)
class _Arrival:
    """The inputs of a layer, and how it is computed."""

    layer: IntegerLayer
    given: Tensor
    func: Any
    settings: Mapping[str, Any]

    def compute(self, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer makes; the output channels come first in the weight."""
        weight = self.layer.channels_first(weight)
        made: Tensor = self.func(given, weight=weight, bias=bias, **self.settings)
        return made


class _ArrivedError(Exception):
    """Ends a run at the layer that it should reach."""


class _FloatUntil(Handler):
    """Runs the float network up to a layer."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan, layer: IntegerLayer) -> None:
        super().__init__(model, plan)
        self.layer, self.arrival = layer, _Arrival(layer, torch.empty(0), None, {})

    def start(self, batch: Example) -> None:
        """Run the network."""
        self.run(self.model, batch)

    def compute(
        self, layer: IntegerLayer, func: Any, given: Tensor, settings: Mapping[str, Any]
    ) -> Tensor:
        """Stop at the layer."""
        if layer == self.layer:
            self.arrival = _Arrival(layer, given, func, settings)
            raise _ArrivedError
        return super().compute(layer, func, given, settings)


class _QuantizedUntil(QuantizedForward):
    """Runs the quantized network up to a layer."""

    def __init__(self, model: nn.Module, plan: QuantizationPlan, layer: IntegerLayer) -> None:
        super().__init__(model, plan)
        self.layer, self.arrival = layer, _Arrival(layer, torch.empty(0), None, {})

    def start(self, batch: Example) -> None:
        """Run the network."""
        self.forward(*batch.args, **batch.kwargs)

    def compute(
        self, layer: IntegerLayer, func: Any, given: Tensor, settings: Mapping[str, Any]
    ) -> Tensor:
        """Stop at the layer."""
        if layer == self.layer:
            self.arrival = _Arrival(layer, given, func, settings)
            raise _ArrivedError
        return super().compute(layer, func, given, settings)


def _arrivals(until: _FloatUntil | _QuantizedUntil, batches: list[Example]) -> _Arrival:
    """Return what a layer takes on all batches."""
    found = []
    for batch in batches:
        with suppress(_ArrivedError):
            until.start(batch)
        found.append(until.arrival.given)
    return replace(until.arrival, given=torch.cat(found))
