"""A network of the coverage benchmark: how it is built, with which inputs, with which values.

Nothing is downloaded. `randomise` gives every network values under which a mistake shows: no
normalisation, layer scale or residual branch is left at zero or one.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and keyword arguments of one call."""


@dataclass(frozen=True)
class Case:
    """One network of the benchmark.

    Attributes:
        suite: Name of its suite.
        name: Its name within the suite.
        build: Makes it, with random weights.
        shape: Shape of its image tensor; a detector takes a list of images.
        heads: Pattern of the layers whose outputs are the network's outputs. Only Torch-Pruning
            has to be told; without a pattern they are the layers with as many outputs as `classes`.
        classes: Number of classes.
        inputs: Makes the inputs of a call from its batch and the side of its images, where an image
            tensor is not all.
        targets: The same for a call in training mode, where that takes other inputs.
        sides: Sides of images that are tried as the second size.
    """

    suite: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    heads: str = ""
    classes: int = 1000
    inputs: Callable[[int, int], Inputs] | None = None
    targets: Callable[[int, int], Inputs] | None = None
    sides: tuple[int, ...] = ()

    @property
    def side(self) -> int:
        """Side of the images of the example."""
        return self.shape[-1]

    @property
    def batch(self) -> int:
        """Number of images of the example."""
        return self.shape[0] if len(self.shape) > 3 else 1

    def example(self) -> tuple[Any, ...]:
        """Return arguments for `forward`, float32, values from a normal distribution."""
        return self.call(self.batch, self.side)[0]

    def call(self, batch: int, side: int, *, training: bool = False) -> Inputs:
        """Return random inputs of a call with a batch of images of `side` x `side`."""
        made = (self.targets if training else None) or self.inputs
        if made is not None:
            return made(batch, side)
        if len(self.shape) == 3:
            return ([torch.randn(self.shape[0], side, side) for _ in range(batch)],), {}
        # The last two sizes keep their difference: not every image is square.
        height = side + self.shape[-2] - self.shape[-1]
        return (torch.randn(batch, *self.shape[1:-2], height, side),), {}

    def second_calls(self, side: int) -> Iterator[tuple[int, int]]:
        """Yield batches and sides that differ from an example of `side`, the most telling first."""
        near = (side - 32, side + 32) if side > 64 else (side + 32, 2 * side)
        sides = self.sides or near
        yield from ((self.batch + 1, other) for other in sides)
        yield self.batch + 1, side
        yield from ((self.batch, other) for other in sides)

    def output_layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers that make the outputs of `model`."""
        layers = (nn.Linear, nn.Conv2d)
        named = [(name, module) for name, module in model.named_modules()]
        if self.heads:
            return [m for n, m in named if isinstance(m, layers) and re.search(self.heads, n)]
        return [m for _, m in named if isinstance(m, layers) and _outputs(m) == self.classes]


def _outputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def in_precision(inputs: Inputs, precision: torch.dtype) -> Inputs:
    """Return the inputs with floating-point tensors of another precision, in what holds them."""

    def converted(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(precision) if value.is_floating_point() else value
        if isinstance(value, Mapping):
            return type(value)({key: converted(item) for key, item in value.items()})  # type: ignore[call-arg]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(converted, value))
        if isinstance(value, (list, tuple)):
            return type(value)(map(converted, value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **{k: converted(v) for k, v in fields.items()})
        return value

    return converted(inputs[0]), converted(dict(inputs[1]))


def randomise(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Give `model` values under which every channel counts.

    Parameters that are constant (affine parameters of normalisations, layer scales, branches that
    begin at zero) become random; statistics of batch normalisations are set to those of `args` and
    then shifted by about a third of a standard deviation.

    Returns:
        The results of the run that set them.
    """
    for module in model.modules():
        stored: list[tuple[str, Tensor | None]] = [*module._parameters.items()]
        if isinstance(getattr(module, "running_var", None), Tensor):
            stored += [item for item in module._buffers.items() if item[0] in ("weight", "bias")]
        for name, tensor in stored:
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                _randomise(name, tensor)
    return calibrate(model, args, kwargs)


@torch.no_grad()
def _randomise(name: str, tensor: Tensor) -> None:
    if tensor.numel() > 1 and float(tensor.max() - tensor.min()) > 1e-12:
        return
    if name.endswith(("bias", "beta")):
        tensor.normal_(0, 0.2)
    elif tensor.numel() == max(tensor.shape, default=1):
        tensor.uniform_(0.5, 1.5)
    else:
        tensor.normal_(0, max(tensor[0].numel() ** -0.5, 0.02))


@torch.no_grad()
def calibrate(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Set running statistics to what the inputs give, slightly wrong; return the results."""

    def settle(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
        values: Tensor = inputs[0]
        if values.ndim < 2 or values.shape[1] != len(mean) or not values.numel():
            return
        rows = values.transpose(0, 1).flatten(1)
        spread = rows.std(1, unbiased=False) if rows.shape[1] > 1 else rows.abs().mean(1)
        spread = spread.clamp_min(float(spread.mean()) * 0.1 + 1e-6)
        mean.copy_(rows.mean(1) + 0.3 * spread * torch.randn_like(spread))
        variance.copy_((spread * torch.empty_like(spread).uniform_(0.8, 1.25)) ** 2)

    hooks = [
        module.register_forward_pre_hook(settle)
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    try:
        return model(*args, **(kwargs or {}))
    finally:
        for hook in hooks:
            hook.remove()
