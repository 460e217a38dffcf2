"""Rewriting of transposed convolutions that no runtime computes with integers.

Where the kernel is as large as the stride, every pixel becomes a block of its own. A 1x1
convolution computes the same products and sums, with a channel for each place in the block, and a
pixel shuffle puts them there. Both run on integers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from flyweight.errors import PlanError
from flyweight.graph.entry import plain_module
from flyweight.graph.program import Call
from flyweight.graph.stored import copy_module
from flyweight.origin import REWRITE_VERSION, Transform, note_transform


class ShuffledConvolution(nn.Conv2d):
    """A transposed convolution whose kernel equals its stride, as a 1x1 convolution and a shuffle.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        factor: How many times as high and wide the result is.
        bias: Whether it adds one.
        groups: Groups of channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, factor: int, *, bias: bool, groups: int
    ) -> None:
        super().__init__(in_channels, out_channels * factor**2, 1, bias=bias, groups=groups)
        self.factor = factor

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        """Return maps `(n, out_channels, factor * h, factor * w)` of maps `(n, in_channels, h, w)`.

        Raises:
            ValueError: `output_size` is another one.
        """
        size = [self.factor * side for side in input.shape[-2:]]
        if output_size is not None and list(output_size)[-2:] != size:
            raise ValueError(
                f"A rewritten transposed convolution must return maps of {size}. Received "
                f"output_size={output_size}. Quantize the network without rewriting it."
            )
        return functional.pixel_shuffle(super().forward(input), self.factor)


def rewritten(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose transposed convolutions are `ShuffledConvolution`s.

    The copy computes the same, up to the order of additions. Its weights at these places have
    another shape. What cannot be rewritten stays: another kernel than the stride, padding, hooks,
    weights that are shared or computed, and subclasses.

    Args:
        model: A float network; it is not changed.
    """
    copy = copy_module(plain_module(model), private=False)
    factors = dict(_fitting(copy))
    if factors:
        rewrite_(copy, factors)
        note_transform(copy, Transform.of("rewrite", REWRITE_VERSION, factors))
    return copy


def rewrite_(model: nn.Module, factors: Mapping[str, int]) -> None:
    """Rewrite the transposed convolutions at these paths, in place.

    Args:
        model: The network.
        factors: Path of the module to its stride.

    Raises:
        PlanError: There is no such convolution.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, factor in factors.items():
        module = modules.get(path)
        if not isinstance(module, nn.ConvTranspose2d) or module.stride != (factor, factor):
            raise PlanError(
                "A place to rewrite must hold a transposed convolution whose kernel equals its "
                f"stride. Received '{path}' with a stride of {factor}. Use the checkpoint that "
                "the rewriting was made for."
            )
        made = _made_of(module, factor)
        for place, other in modules.items():
            if other is module:
                parent, _, name = place.rpartition(".")
                setattr(modules[parent], name, made)


def _made_of(module: nn.ConvTranspose2d, factor: int) -> ShuffledConvolution:
    bias, groups = module.bias, module.groups
    made = ShuffledConvolution(
        module.in_channels, module.out_channels, factor, bias=bias is not None, groups=groups
    ).to(module.weight)
    shape = (groups, module.in_channels // groups, -1)
    # (groups, in, out * places) to (groups * out * places, in, 1, 1).
    weight = module.weight.detach().reshape(shape).transpose(1, 2)
    made.weight.data = weight.reshape(made.weight.shape).contiguous()
    if bias is not None and made.bias is not None:
        made.bias.data = bias.detach().repeat_interleave(factor**2)
    for own, old in zip(made.parameters(), module.parameters(), strict=True):
        own.requires_grad_(old.requires_grad)
    return made.train(module.training)


def _fitting(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the path and the stride of every module that can be rewritten."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for path, module in model.named_modules():
        # A subclass may compute something else; a hook may change the weight.
        if type(module) is not nn.ConvTranspose2d or not path or module._forward_pre_hooks:
            continue
        alone = all(owners[id(parameter)] == 1 for parameter in module.parameters())
        registered = isinstance(getattr(module, "weight", None), nn.Parameter)
        high, wide = module.kernel_size
        plain = module.padding == module.output_padding == (0, 0) and module.dilation == (1, 1)
        if alone and registered and plain and high == wide == module.stride[0] == module.stride[1]:
            yield path, high


def is_rewritable(call: Call) -> bool:
    """Return whether a recorded operation is a transposed convolution that can be rewritten."""
    if call.op != "conv_transpose2d":
        return False
    given = call.arguments
    kernel = list(given["weight"].shape[2:])
    sides = {"stride": kernel, "padding": [0, 0], "output_padding": [0, 0], "dilation": [1, 1]}
    return kernel[0] == kernel[1] and all(
        _pair(given[name]) == wanted for name, wanted in sides.items()
    )


def _pair(value: Any) -> list[int]:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    return numbers * 2 if len(numbers) == 1 else numbers
