"""Random small networks and plans: every way that channels are coupled in plain CNNs.

Every block takes and returns images `(n, channels, 4, 4)`, so blocks can follow each other in
any order. Widths are small and unequal, so that a wrong coupling shows in a shape or a value.
"""

import itertools

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import DeformConv2d

from flyweight.graph import ModelGraph
from flyweight.pruning import PruningPlan

SIDE = 4


def conv(inputs: int, outputs: int, kernel: int = 1, **options) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class Residual(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, width, 3), nn.Conv2d(width, inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Projected(nn.Module):
    """A residual whose shortcut is a layer too: two layers make the same channels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body, self.shortcut = conv(inputs, width, 3), nn.Conv2d(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x).add_(self.body(x))


class Concat(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.left, self.right = conv(inputs, width), conv(inputs, width + 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.right(x), x, self.left(x)], 1)


class Gate(nn.Module):
    """Two halves of one layer, one gates the other."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.both = nn.Conv2d(inputs, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, 1)
        return value * gate.sigmoid()


class Depthwise(nn.Module):
    def __init__(self, inputs: int, width: int, multiplier: int = 1) -> None:
        super().__init__()
        self.each = conv(inputs, inputs * multiplier, 3, groups=inputs, bias=False)
        self.point = conv(inputs * multiplier, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.each(x))


class Grouped(nn.Module):
    def __init__(self, inputs: int, width: int, groups: int = 2) -> None:
        super().__init__()
        self.widen = conv(inputs, 3 * groups)
        self.apart = conv(3 * groups, width * groups, 3, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.apart(self.widen(x))


class SqueezeExcite(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = conv(inputs, width)
        self.squeeze, self.excite = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        scale = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * scale.sigmoid()


class Transposed(nn.Module):
    def __init__(self, inputs: int, width: int, groups: int = 1) -> None:
        super().__init__()
        self.widen = conv(inputs, 3 * groups)
        self.grow = nn.ConvTranspose2d(3 * groups, width * groups, 2, stride=2, groups=groups)
        self.norm = nn.BatchNorm2d(width * groups)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.norm(self.grow(self.widen(x))), 2)


class Shuffle(nn.Module):
    """Channels of two blocks are interleaved, as in ShuffleNet."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.before, self.after = conv(inputs, 2 * width), conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        n, _, height, rows = x.shape
        x = x.view(n, 2, -1, height, rows).transpose(1, 2).reshape(n, -1, height, rows)
        return self.after(x)


class Attention(nn.Module):
    """Self-attention over positions; the code counts heads, not channels."""

    def __init__(self, inputs: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.fused, self.size = fused, 2
        self.qkv = nn.Linear(inputs, 3 * heads * self.size)
        self.out = nn.Linear(heads * self.size, inputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        n, length, _ = tokens.shape
        parts = self.qkv(tokens).view(n, length, 3, -1, self.size).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.fused:
            found = nn.functional.scaled_dot_product_attention(query, key, value)
        else:
            found = (query @ key.transpose(-2, -1) * self.size**-0.5).softmax(-1) @ value
        tokens = tokens + self.out(found.transpose(1, 2).reshape(n, length, -1))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class Normalised(nn.Module):
    """A transformer's second half: LayerNorm mixes the channels that it reads."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Scaled(nn.Module):
    """Per-channel values outside any layer, and a layer that is used twice."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body, self.shared = conv(inputs, width), nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.rand(1, width, 1, 1))
        self.register_buffer("offset", torch.rand(width, 1, 1))
        self.slope = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.scale * self.body(x) + self.offset)
        return self.shared(torch.tanh(self.shared(x)))


class Network(nn.Module):
    """Blocks, then a linear layer on the flattened or the averaged image."""

    def __init__(self, blocks: list[nn.Module], channels: int, *, flatten: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(conv(3, 5, 3), *blocks)
        self.pool = nn.Identity() if flatten else nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels * (SIDE * SIDE if flatten else 1), 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(x)).flatten(1))


class Reordered(nn.Module):
    """Channels in an order that a buffer stores, looked up in both ways."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = conv(inputs, width + 2)
        self.mixed = nn.Conv2d(width + 2, width, 3, padding=1)
        self.register_buffer("outside", torch.randperm(width + 2))
        self.register_buffer("inside", torch.randperm(width))

    def forward(self, x: Tensor) -> Tensor:
        picked = self.body(x).index_select(1, self.outside)
        return self.mixed(picked)[:, self.inside]


class WeightNorm(nn.Module):
    """Weights that are divided by their norm, over their inputs and over all values."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.widen = weight_norm(nn.Conv2d(inputs, width + 1, 3, padding=1))
        self.narrow = weight_norm(nn.Conv2d(width + 1, width, 1), dim=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(x).relu()).relu()


class Blurred(nn.Module):
    """One kernel for every channel, and a normalisation of every channel on its own."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body, self.norm = nn.Conv2d(inputs, width, 1), nn.GroupNorm(width, width)
        self.register_buffer("kernel", torch.rand(1, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.body(x))
        kernels = self.kernel.expand(x.shape[1], -1, -1, -1)
        return nn.functional.conv2d(x, kernels, padding=1, groups=x.shape[1]).relu()


BUILDERS = {
    "chain": lambda inputs, width: conv(inputs, width, 3),
    "residual": Residual,
    "projected": Projected,
    "concat": Concat,
    "gate": Gate,
    "depthwise": Depthwise,
    "depthwise_multiplied": lambda inputs, width: Depthwise(inputs, width, 2),
    "grouped": Grouped,
    "squeeze_excite": SqueezeExcite,
    "transposed": Transposed,
    "transposed_grouped": lambda inputs, width: Transposed(inputs, width, 2),
    "shuffle": Shuffle,
    "reordered": Reordered,
    "attention": lambda inputs, width: Attention(inputs, width, fused=True),
    "attention_by_hand": lambda inputs, width: Attention(inputs, width, fused=False),
    "normalised": Normalised,
    "scaled": Scaled,
    "weight_norm": WeightNorm,
    "blurred": Blurred,
}


def build(kinds: list[str], width: int = 4, *, flatten: bool = False, seed: int = 0) -> nn.Module:
    """Return a network of these blocks in float64, every value and statistic random."""
    torch.manual_seed(seed)
    blocks: list[nn.Module] = []
    channels = 5
    widths = itertools.cycle((width, width + 1, width - 1))
    for kind in kinds:
        block = BUILDERS[kind](channels, next(widths))
        channels = block.eval()(torch.rand(1, channels, SIDE, SIDE)).shape[1]
        blocks.append(block)
    return randomised(Network(blocks, channels, flatten=flatten))


class OneNumber(nn.Module):
    """A network that says one number of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build(["chain", "residual", "depthwise"])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1).mean(1, keepdim=True)


def randomised(model: nn.Module) -> nn.Module:
    """Put `model` in float64 and evaluation mode, with statistics unlike fresh ones."""
    model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return model


def example(n: int = 2) -> tuple[Tensor]:
    """Return an input for any network of this file."""
    return (torch.randn(n, 3, SIDE, SIDE, dtype=torch.float64),)


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Networks of one to four blocks."""
    kinds = draw(st.lists(st.sampled_from(sorted(BUILDERS)), min_size=1, max_size=4))
    width = draw(st.integers(3, 6))
    return build(kinds, width, flatten=draw(st.booleans()), seed=draw(st.integers(0, 99)))


def random_plan(
    graph: ModelGraph, seed: int, *, every: bool = False, inexact: bool = False
) -> PruningPlan:
    """Keep a random part of the groups that may be cut: of most of them, or of `every` one."""
    generator = np.random.default_rng(seed)
    kept = {}
    for name, group in graph.groups.items():
        allowed = group.prunable or (inexact and group.reason is None)
        if group.size > 1 and allowed and (every or generator.random() < 0.8):
            stays = int(generator.integers(1, group.size))
            keep = sorted(generator.choice(group.size, stays, replace=False).tolist())
            kept[name] = tuple(keep)
    return PruningPlan.of(graph, kept, "random")


def zeroed_where_read(model: nn.Module, slices: dict, inputs: tuple[Tensor, ...]) -> Tensor:
    """Run `model` with removed channels zeroed at the inputs of the modules that read them.

    An oracle apart from the package's own: it knows nothing of roles, only which axis of a
    convolution's or a linear layer's weight reads, and it acts on activations, not on weights.
    """
    hooks = []
    for name, module in model.named_modules():
        weights = (f"{name}.{end}".lstrip(".") for end in _WEIGHTS)
        axes = next((slices[weight] for weight in weights if weight in slices), {})
        hook = _input_mask(module, axes)
        if hook is not None:
            hooks.append(module.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            return model(*inputs)
    finally:
        for handle in hooks:
            handle.remove()


# A layer's weight, or what it is computed from.
_WEIGHTS = ("weight", "weight_v", "weight_orig", "parametrizations.weight.original1")


def _input_mask(module: nn.Module, axes: dict[int, tuple[int, ...]]):
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, DeformConv2d))
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    if convolution and module.weight.shape[1] > 1 and 1 in axes:
        mask = torch.zeros(module.weight.shape[1], dtype=torch.float64)
        mask[list(axes[1])] = 1
        mask = mask.repeat(module.groups).view(-1, *[1] * (module.weight.ndim - 2))
    elif transposed and 0 in axes:
        mask = torch.zeros(module.in_channels, *[1] * (module.weight.ndim - 2), dtype=torch.float64)
        mask[list(axes[0])] = 1
    elif isinstance(module, nn.Linear) and 1 in axes:
        mask = torch.zeros(module.in_features, dtype=torch.float64)
        mask[list(axes[1])] = 1
    else:
        return None
    return lambda _, inputs: (inputs[0] * mask, *inputs[1:])
