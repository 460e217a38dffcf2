"""Idioms of attention, tokens, position tables, recurrence and frequencies."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody writes
from coverage_idioms_blocks import followed
from torch import Tensor, nn

_WIDTH, _HEADS = 16, 2


class Tokens(nn.Module):
    """Patches, the block of the idiom, a two-layer network, and a head on the mean token."""

    def __init__(self, block: nn.Module, width: int = _WIDTH) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, width, 4, 4), block
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.patch(x).flatten(2).transpose(1, 2))
        found: Tensor = self.head((y + self.mlp(y)).mean(1))
        return found


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, _HEADS, c // _HEADS).unbind(2)
        share = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        found: Tensor = self.out(torch.einsum("bhij,bjhd->bihd", share, v).flatten(2))
        return x + found


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(self.norm(x)).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*y, dropout_p=0.1 if self.training else 0.0)
        found: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return x + found


class SeparateAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = _HEADS, _WIDTH // _HEADS
        self.q, self.k = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.v, self.out = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        shape = (b, n, self.num_heads, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        share = (q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)).softmax(-1)
        y = (share @ v).transpose(1, 2).contiguous().view(b, n, self.num_heads * self.head_dim)
        found: Tensor = self.out(y)
        return x + found


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(_WIDTH, _HEADS, batch_first=True, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.attend(x, x, x, need_weights=False)[0]
        return found


class WindowAttention(nn.Module):
    """Shifted windows with a table of relative positions and a mask between windows."""

    def __init__(self, window: int = 2) -> None:
        super().__init__()
        self.window = window
        self.qkv, self.out = nn.Conv2d(_WIDTH, 3 * _WIDTH, 1), nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, _HEADS))
        places = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij")).flatten(1)
        gap = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", gap[..., 0] * (2 * window - 1) + gap[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        size = self.window
        y = torch.roll(self.qkv(x), (-1, -1), (2, 3))
        y = y.view(n, 3, _HEADS, c // _HEADS, h // size, size, w // size, size)
        y = y.permute(1, 0, 4, 6, 2, 5, 7, 3).reshape(3, -1, _HEADS, size * size, c // _HEADS)
        q, k, v = y.unbind(0)
        share = q @ k.transpose(-1, -2) * (c // _HEADS) ** -0.5
        bias = self.table[self.index.view(-1)].view(size * size, size * size, -1)
        y = (share + bias.permute(2, 0, 1)[None]).softmax(-1) @ v
        y = y.view(n, h // size, w // size, _HEADS, size, size, c // _HEADS)
        y = y.permute(0, 3, 6, 1, 4, 2, 5).reshape(n, c, h, w)
        found: Tensor = x + torch.roll(self.out(y), (1, 1), (2, 3))
        return found


class BiasedHeads(nn.Module):
    """Attention whose code counts its heads by the width of one; a bias per head."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.out, self.bias = nn.Linear(_WIDTH, _WIDTH), nn.Parameter(torch.randn(_HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], -1, _WIDTH // _HEADS)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = ((q @ k.mT * 0.3 + self.bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
        found: Tensor = x + self.out(y)
        return found


class Shifted(nn.Module):
    """Two heads, and a shift of windows by two: numbers that are equal by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.shift_size, self.window, self.attention = 2, 4, BiasedHeads()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.roll(x, (-self.shift_size, -self.shift_size), (2, 3))
        n, c, h, w = y.shape
        size = self.window
        y = y.view(n, c, h // size, size, w // size, size).permute(0, 2, 4, 3, 5, 1)
        y = self.attention(y.reshape(-1, size * size, c)).view(
            n, h // size, w // size, size, size, c
        )
        y = y.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return torch.roll(y, (self.shift_size, self.shift_size), (2, 3))


class LinearAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, -1)
        context = torch.einsum("bnk,bnv->bkv", k.softmax(1), v)
        found: Tensor = x + self.out(torch.einsum("bnk,bkv->bnv", F.elu(self.q(x)) + 1, context))
        return found


class ReducedAttention(nn.Module):
    """Keys and values of a smaller map (PVT)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Conv2d(_WIDTH, 2 * _WIDTH, 2, 2)
        self.out = nn.Conv2d(_WIDTH, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q = self.q(x).reshape(n, c, h * w).transpose(1, 2)
        k, v = self.kv(x).flatten(2).chunk(2, 1)
        share = torch.bmm(q, k).mul(0.25).softmax(-1)
        y = torch.bmm(share, v.transpose(1, 2)).transpose(1, 2).reshape(n, -1, h, w)
        found: Tensor = x + self.out(y)
        return found


class NonLocal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(_WIDTH, 8, 1) for _ in range(3))
        self.out = nn.Sequential(nn.Conv2d(8, _WIDTH, 1), nn.BatchNorm2d(_WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        n = x.size(0)
        g = self.g(x).view(n, 8, -1).permute(0, 2, 1)
        theta = self.theta(x).view(n, 8, -1).permute(0, 2, 1)
        share = torch.matmul(theta, self.phi(x).view(n, 8, -1)).softmax(-1)
        y = torch.matmul(share, g).permute(0, 2, 1).contiguous().view(n, 8, *x.shape[2:])
        found: Tensor = x + self.out(y)
        return found


class GlobalContext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(_WIDTH, 1, 1)
        self.change = nn.Sequential(nn.Conv2d(_WIDTH, 8, 1), nn.ReLU(), nn.Conv2d(8, _WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        share = self.mask(x).view(n, 1, h * w).softmax(2).unsqueeze(-1)
        context = torch.matmul(x.view(n, c, h * w).unsqueeze(1), share).view(n, c, 1, 1)
        found: Tensor = x + self.change(context)
        return found


class ViT(nn.Module):
    """Class token and a position table that is resized where the image has another size."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        self.dim, self.grid = _WIDTH, side // 4
        self.patch = nn.Conv2d(3, _WIDTH, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, _WIDTH))
        self.pos = nn.Parameter(torch.randn(1, 1 + self.grid**2, _WIDTH))
        self.block, self.norm = FusedAttention(), nn.LayerNorm(_WIDTH)
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, 32), nn.GELU(), nn.Linear(32, _WIDTH))
        self.head = nn.Linear(_WIDTH, 4)

    def positions(self, rows: int, columns: int) -> Tensor:
        if rows == columns == self.grid:
            return self.pos
        own = self.pos[:, 1:].reshape(1, self.grid, self.grid, self.dim).permute(0, 3, 1, 2)
        own = F.interpolate(own, size=(rows, columns), mode="bilinear")
        return torch.cat([self.pos[:, :1], own.permute(0, 2, 3, 1).view(1, -1, self.dim)], 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x)
        rows, columns = y.shape[-2:]
        y = torch.cat([self.cls.expand(len(x), -1, -1), y.flatten(2).transpose(1, 2)], 1)
        y = self.block(y + self.positions(rows, columns))
        found: Tensor = self.head(self.norm(y + self.mlp(y))[:, 0])
        return found


def remembered(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cache a function behind a function of its own, as transformers does."""
    cached = functools.lru_cache(maxsize=32)(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Tensor:
        return cached(*args)

    return wrapper


@remembered
def places_of(rows: int, columns: int) -> Tensor:
    """Return the positions of a grid between -1 and 1."""
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.stack(grid, -1).flatten(0, 1) + 0.5) / rows * 2 - 1


class WrappedTable(nn.Module):
    """Positions of a cached function behind another, added to some of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(_WIDTH, 32), nn.Linear(32, _WIDTH)
        self.place = nn.Linear(2, 32)

    def forward(self, x: Tensor) -> Tensor:
        side = int(x.shape[1] ** 0.5)
        told = self.place(places_of(side, side).to(x))
        found: Tensor = self.b(torch.relu(self.a(x) + told[None]))
        return found


@functools.lru_cache
def sine_table(count: int, width: int) -> Tensor:
    """Return sines and cosines of positions, one row per position."""
    angles = torch.arange(count)[:, None] / 10 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], 1)


class CachedTable(nn.Module):
    """Positions from a cached function; the width is that of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(_WIDTH, 32), nn.Linear(32, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        table = sine_table(x.shape[1], _WIDTH).to(x)
        found: Tensor = self.b(torch.relu(self.a(x + table[None])))
        return found


class FirstForward(nn.Module):
    """A mask that is registered as a buffer on the first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if getattr(self, "mask", None) is None or len(self.mask) != n:
            mask = torch.full((n, n), float("-inf")).triu(1).to(x)
            self.register_buffer("mask", mask, persistent=False)
        share = (self.q(x) @ self.k(x).mT / 4 + self.mask).softmax(-1)
        found: Tensor = x + share @ self.v(x)
        return found


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.register_buffer("freq", 1.0 / 100 ** (torch.arange(0, 8, 2) / 8), persistent=False)

    def turned(self, x: Tensor, angle: Tensor) -> Tensor:
        one, two = x.chunk(2, -1)
        return torch.cat(
            [one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos()], -1
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, _HEADS, 8).permute(2, 0, 3, 1, 4)
        angle = torch.outer(torch.arange(n).to(x), self.freq)
        y = F.scaled_dot_product_attention(self.turned(q, angle), self.turned(k, angle), v)
        found: Tensor = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        return found


class Mixer(nn.Module):
    def __init__(self, tokens: int = 16) -> None:
        super().__init__()
        self.across = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.along = nn.Sequential(nn.Linear(_WIDTH, 24), nn.GELU(), nn.Linear(24, _WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(x.transpose(1, 2)).transpose(1, 2)
        found: Tensor = x + self.along(x)
        return found


class SpatialGate(nn.Module):
    def __init__(self, tokens: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(_WIDTH, 32), nn.Linear(16, _WIDTH)
        self.mix = nn.Linear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        found: Tensor = x + self.down(u * self.mix(v.transpose(1, 2)).transpose(1, 2))
        return found


class TokensAsMap(nn.Module):
    """Tokens go back to a map without a transpose is a fault; here they are transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.a, self.b = nn.Linear(_WIDTH, 32), nn.Linear(32, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        side = int(n**0.5)
        y = self.a(x).transpose(1, 2).view(b, -1, side, side)
        found: Tensor = x + self.b(F.gelu(self.depth(y).flatten(2).transpose(1, 2)))
        return found


class ViewedBack(nn.Module):
    """Tokens are viewed as a map without a transpose: channels lie otherwise at every size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.mlp = nn.Sequential(nn.Conv2d(_WIDTH, 48, 1), nn.ReLU(), nn.Conv2d(48, _WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.a(x).flatten(2).transpose(1, 2).contiguous().view(n, c, h, w)
        found: Tensor = x + self.mlp(self.b(y))
        return found


class ViewedBackSmall(nn.Module):
    """The same on maps of few positions, where parts of channels stay together at one size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.mlp = nn.Sequential(nn.Conv2d(_WIDTH, 48, 1), nn.ReLU(), nn.Conv2d(48, _WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = F.avg_pool2d(x, 8)
        y = self.a(x).flatten(2).transpose(1, 2).reshape(n, c, h // 8, w // 8)
        found: Tensor = x + self.mlp(self.b(y))
        return found


class PatchMerging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * _WIDTH), nn.Linear(4 * _WIDTH, 32, bias=False)
        self.expand = nn.Linear(32, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        parts = [y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]]
        y = F.gelu(self.reduce(self.norm(torch.cat(parts, -1))))
        return self.expand(y).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Depthwise layer, LayerNorm of the last axis, and the response normalisation of V2."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = (
            nn.Conv2d(_WIDTH, _WIDTH, 7, 1, 3, groups=_WIDTH),
            nn.LayerNorm(_WIDTH),
        )
        self.a, self.b = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)
        self.gamma = nn.Parameter(torch.randn(4 * _WIDTH))
        self.beta = nn.Parameter(torch.randn(4 * _WIDTH))
        self.plain = nn.Sequential(nn.Conv2d(_WIDTH, 48, 1), nn.ReLU(), nn.Conv2d(48, _WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.a(self.norm(self.depth(x).permute(0, 2, 3, 1))))
        size = y.pow(2).sum((1, 2), keepdim=True).sqrt()
        y = self.gamma * (y * size / (size.mean(-1, keepdim=True) + 1e-6)) + self.beta + y
        found: Tensor = self.plain(x + self.b(y).permute(0, 3, 1, 2))
        return found


class ChannelsFirstNorm(nn.Module):
    """LayerNorm over channels by hand, and instance normalisation by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(_WIDTH)),
            nn.Parameter(torch.randn(_WIDTH)),
        )
        self.wide, self.narrow = nn.Conv2d(_WIDTH, 32, 1), nn.Conv2d(32, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        y = self.wide(self.weight[:, None, None] * y + self.bias[:, None, None])
        y = (y - y.mean((2, 3), keepdim=True)) * torch.rsqrt(y.var((2, 3), keepdim=True) + 1e-5)
        return self.narrow(torch.relu(y))


TOKENS: dict[str, Any] = {
    "attention by einsum": EinsumAttention,
    "attention, fused": FusedAttention,
    "attention, three layers": SeparateAttention,
    "attention of torch": Multihead,
    "linear attention": LinearAttention,
    "table behind lru_cache": CachedTable,
    "table behind a cached function": WrappedTable,
    "buffer of the first forward": FirstForward,
    "rotary positions": Rotary,
    "token mixing": Mixer,
    "spatial gating": SpatialGate,
    "depthwise layer on tokens": TokensAsMap,
}
"""Blocks on tokens."""
MAPS: dict[str, Any] = {
    "window attention": WindowAttention,
    "numbers that are equal by chance": lambda: followed(Shifted()),
    "reduced attention": lambda: followed(ReducedAttention()),
    "non-local block": NonLocal,
    "global context": GlobalContext,
    "map without a transpose": ViewedBack,
    "map without a transpose, small": ViewedBackSmall,
    "patch merging": PatchMerging,
    "ConvNeXt V2 block": ConvNext,
    "normalisations by hand": ChannelsFirstNorm,
}
"""Blocks on maps of 16 channels, 16 x 16."""
