"""Idioms of hand-written convolutional blocks and necks."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody writes
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import DeformConv2d


def cna(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return convolution, normalisation and activation."""
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Framed(nn.Module):
    """A stem, the block of the idiom, and a head with four outputs per position."""

    def __init__(self, block: nn.Module, before: int = 16, after: int = 16) -> None:
        super().__init__()
        self.stem, self.block = cna(3, before), block
        self.head = nn.Conv2d(after, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.block(self.stem(x)))
        return found


def followed(block: nn.Module) -> nn.Module:
    """Return a block, and two layers that can be cut whatever the block allows."""
    return nn.Sequential(block, cna(16, 24), cna(24, 16))


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = cna(width, width), cna(width, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.b(self.a(x))
        return found


class C2fChunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = cna(16, 16, 1), cna(32, 16, 1)
        self.blocks = nn.ModuleList(Bottleneck(8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        found: Tensor = self.last(torch.cat(parts, 1))
        return found


class C2fSplit(C2fChunk):
    def __init__(self) -> None:
        super().__init__()
        self.c = 8

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).split((self.c, self.c), 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        found: Tensor = self.last(torch.cat(parts, 1))
        return found


class Elan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = cna(16, 8, 1), cna(16, 8, 1)
        self.more = nn.ModuleList(cna(8, 8) for _ in range(4))
        self.last = cna(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.a(x), self.b(x)]
        for layer in self.more:
            found.append(layer(found[-1]))
        last: Tensor = self.last(torch.cat([found[i] for i in (-1, -3, 1, 0)], 1))
        return last


class RepVgg(nn.Module):
    """Three branches that `fold` makes one; it builds its layer from its own numbers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.in_channels = self.out_channels = width
        self.three = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.one = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.same = nn.BatchNorm2d(width)
        self.folded: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is not None:
            return torch.relu(self.folded(x))
        return torch.relu(self.three(x) + self.one(x) + self.same(x))

    def fold(self) -> None:
        layer = nn.Conv2d(self.in_channels, self.out_channels, 3, 1, 1).to(self.same.weight)
        same = torch.zeros_like(layer.weight)
        same[range(self.in_channels), range(self.out_channels), 1, 1] = 1
        one = F.pad(self.one[0].weight, [1, 1, 1, 1])
        pairs = ((self.three[0].weight, self.three[1]), (one, self.one[1]), (same, self.same))
        weight, bias = torch.zeros_like(layer.weight), torch.zeros_like(self.same.bias)
        for kernel, norm in pairs:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = weight + kernel * scale[:, None, None, None]
            bias = bias + norm.bias - norm.running_mean * scale
        layer.weight.data, layer.bias.data = weight.data, bias.data  # type: ignore[union-attr]
        self.folded = layer


class Ghost(nn.Module):
    def __init__(self, after: int = 16) -> None:
        super().__init__()
        self.after = after
        self.primary, self.cheap = (
            cna(16, after // 2, 1),
            cna(after // 2, after // 2, 3, 1, after // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.after, :, :]


class Octave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.AvgPool2d(2)
        self.hh, self.hl = nn.Conv2d(16, 12, 3, 1, 1), nn.Conv2d(16, 4, 3, 1, 1)
        self.lh, self.ll = nn.Conv2d(4, 12, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.first, self.join = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.first(self.down(x))
        high = self.hh(x) + F.interpolate(self.lh(low), size=x.shape[2:])
        low = self.ll(low) + self.hl(self.down(x))
        up = F.interpolate(self.join(low), scale_factor=2, mode="bilinear")
        return torch.relu(torch.cat([high + up, F.interpolate(low, scale_factor=2)], 1))


class Shuffle(nn.Module):
    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.groups = groups
        self.a, self.b = cna(16, 16, 1, 1, groups), cna(16, 16, 3, 1, 16)
        self.c = cna(16, 16, 1, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        found: Tensor = x + self.c(self.b(y))
        return found


class SplitHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(cna(8, 8, 1), cna(8, 8, 3, 1, 8), cna(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        y = torch.cat((one, self.branch(two)), 1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class ShuffleByHand(nn.Module):
    """Pixel shuffle as view, permute, view; the widths are those of the tensor."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.wide = nn.Conv2d(16, 16 * factor * factor, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, r = self.wide(x), self.factor
        n, c, h, w = y.shape
        y = y.view(n, c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3)
        return torch.relu(y.reshape(n, c // (r * r), h * r, w * r))


class UnshuffleByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = cna(16, 8), cna(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        n, c, h, w = y.shape
        y = y.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        found: Tensor = self.b(y.reshape(n, c * 4, h // 2, w // 2))
        return found


class Focus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = cna(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., i::2, j::2] for j in range(2) for i in range(2)]
        found: Tensor = self.last(torch.cat(parts, 1))
        return found


class FunctionalSqueeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(4, 16))
        self.up = nn.Parameter(torch.randn(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).flatten(1)
        y = torch.sigmoid(F.linear(F.relu(F.linear(y, self.down)), self.up))
        return x * y[:, :, None, None]


class LinearSqueeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.fc(F.avg_pool2d(x, (x.shape[2], x.shape[3])).view(b, c)).view(b, c, 1, 1)
        return x * y.expand_as(x)


class SpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate = cna(16, 16), nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        told = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        found: Tensor = y * torch.sigmoid(self.gate(told))
        return found


class PartialConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 16 // 4
        self.mix = nn.Conv2d(self.dim, self.dim, 3, 1, 1, bias=False)
        self.mlp = nn.Sequential(cna(16, 32, 1), nn.Conv2d(32, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.split(x, [self.dim, x.shape[1] - self.dim], dim=1)
        found: Tensor = x + self.mlp(torch.cat((self.mix(one), two), 1))
        return found


class DynamicConv(nn.Module):
    """Kernels mixed by attention, one per image, as one grouped convolution."""

    def __init__(self, kernels: int = 3) -> None:
        super().__init__()
        self.route = nn.Linear(16, kernels)
        self.weight = nn.Parameter(torch.randn(kernels, 16, 16, 3, 3) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        share = self.route(x.mean((2, 3))).softmax(1)
        kernel = torch.einsum("bk,koihw->boihw", share, self.weight)
        y = F.conv2d(x.reshape(1, n * c, h, w), kernel.flatten(0, 1), padding=1, groups=n)
        return torch.relu(y.reshape(n, -1, h, w))


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(16, 18, 3, padding=1)
        self.deform, self.norm = DeformConv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.deform(x, self.offset(x) * 0.1)))


class BlurPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (row[:, None] * row[None] / 16)[None, None])
        self.after = cna(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)
        y = F.conv2d(F.pad(x, [1, 1, 1, 1], mode="reflect"), kernel, stride=2, groups=x.shape[1])
        found: Tensor = self.after(y)
        return found


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cna(16 + 8 * i, 8) for i in range(3))
        self.last = cna(40, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        found: Tensor = self.last(x)
        return found


class PaddedShortcut(nn.Module):
    """A residual whose shortcut is padded with zero channels (option A of ResNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = cna(16, 24, 3, 2), nn.Conv2d(24, 24, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return torch.relu(self.b(self.a(x)) + short)


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(cna(16, 48, 1), cna(48, 48, 3, 1, 48), nn.Conv2d(48, 16, 1))
        self.keep = 0.8

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.training:
            mask = torch.rand(len(x), 1, 1, 1, dtype=x.dtype) < self.keep
            y = y * mask / self.keep
        found: Tensor = x + y
        return found


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = cna(16, 6, 1), nn.Sequential(cna(16, 4, 1), cna(4, 6))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), cna(16, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        found = [self.one(x), self.three(x), self.pool(x)]
        return F.dropout2d(torch.cat(found, 1), 0.1, self.training)


class Sppf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.pool = cna(16, 8, 1), cna(32, 16, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.a(x)]
        found.extend(self.pool(found[-1]) for _ in range(3))
        last: Tensor = self.b(torch.cat(found, 1))
        return last


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.pair = nn.Conv2d(16, 32, 3, 1, 1), nn.Conv2d(16, 32, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.split(self.wide(x), 16, 1)
        y = self.pair(torch.max(one, two))
        n, c, h, w = y.shape
        return y.view(n, c // 2, 2, h, w).max(2)[0]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(16, 32, 3, 1, 1)
        self.signed = nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.wide(x), 1)
        return F.relu(self.signed(torch.cat((F.relu(y), F.relu(-y)), 1)))


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight (weight standardisation)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def standardised() -> nn.Module:
    """Return a network with a standardised layer."""
    return Framed(nn.Sequential(cna(16, 16), Standardised(16, 16, 3, padding=1), cna(16, 16)))


def weight_normed(*, hook: bool) -> nn.Module:
    """Return a network under weight norm, as a hook or as a parametrisation."""
    wrap: Any = nn.utils.weight_norm if hook else nn.utils.parametrizations.weight_norm
    layers = [wrap(nn.Conv2d(16, 24, 3, padding=1)), nn.ReLU(), wrap(nn.Conv2d(24, 16, 1))]
    return Framed(nn.Sequential(*layers))


def spectral_normed(*, hook: bool) -> nn.Module:
    """Return a network under spectral norm, as a hook or as a parametrisation."""
    wrap: Any = nn.utils.spectral_norm if hook else nn.utils.parametrizations.spectral_norm
    return Framed(nn.Sequential(wrap(nn.Conv2d(16, 16, 3, padding=1)), nn.ReLU(), cna(16, 16)))


class Recurrent(nn.Module):
    """One convolution that is applied three times, memory saved by checkpoints in training."""

    def __init__(self) -> None:
        super().__init__()
        self.step = cna(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            again = checkpoint(self.step, x, use_reentrant=False) if self.training else self.step(x)
            x = x + again
        return x


class Exchange(nn.Module):
    """Two resolutions that exchange their features (HRNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = cna(16, 16), cna(16, 24, 3, 2)
        self.up, self.down = nn.Conv2d(24, 16, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.last = nn.Conv2d(40, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        high, low = self.high(x), self.low(x)
        size = high.shape[-2:]
        joined = torch.relu(high + F.interpolate(self.up(low), size=size))
        low = torch.relu(low + self.down(high))
        found: Tensor = self.last(torch.cat([joined, F.interpolate(low, size=size)], 1))
        return found


FRAMED: dict[str, tuple[Any, int, int]] = {
    "C2f by chunk": (C2fChunk, 16, 16),
    "C2f by split": (C2fSplit, 16, 16),
    "ELAN": (Elan, 16, 16),
    "RepVGG": (RepVgg, 16, 16),
    "ghost module": (Ghost, 16, 16),
    "octave convolution": (Octave, 16, 16),
    "channel shuffle": (Shuffle, 16, 16),
    "split halves and shuffle": (SplitHalves, 16, 16),
    "pixel shuffle by hand": (ShuffleByHand, 16, 16),
    "pixel unshuffle by hand": (UnshuffleByHand, 16, 16),
    "focus": (Focus, 16, 16),
    "squeeze and excite, functional": (FunctionalSqueeze, 16, 16),
    "squeeze and excite, linear": (LinearSqueeze, 16, 16),
    "spatial attention": (SpatialAttention, 16, 16),
    "partial convolution": (PartialConv, 16, 16),
    "dynamic convolution": (lambda: followed(DynamicConv()), 16, 16),
    "deformable convolution": (Deformable, 16, 16),
    "blur pooling": (BlurPool, 16, 16),
    "dense block": (DenseBlock, 16, 16),
    "padded shortcut": (PaddedShortcut, 16, 24),
    "inverted residual, stochastic depth": (InvertedResidual, 16, 16),
    "inception block": (Inception, 16, 16),
    "pooling pyramid": (Sppf, 16, 16),
    "maxout": (Maxout, 16, 16),
    "gated units": (Gated, 16, 16),
    "one layer three times": (Recurrent, 16, 16),
    "exchange of resolutions": (Exchange, 16, 16),
}
"""Blocks that stand between a stem and a head, with their widths."""
