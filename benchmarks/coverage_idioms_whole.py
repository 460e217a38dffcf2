"""Idioms that are whole networks of maps: pyramids, U-Nets, autoencoders with tied weights."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody writes
from coverage_idioms_blocks import cna
from torch import Tensor, nn


class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(48, 24)
        self.more = nn.Linear(24, 24)
        self.bias = nn.Parameter(torch.zeros(48))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.encode(F.adaptive_avg_pool2d(x, 4).flatten(1)))
        hidden = torch.relu(self.more(hidden))
        return F.linear(hidden, self.encode.weight.t(), self.bias)


class TiedDeconvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 24, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b(torch.relu(self.a(x))))
        y = torch.relu(F.conv_transpose2d(y, self.b.weight, padding=1))
        return F.conv_transpose2d(y, self.a.weight, padding=1)


class Pyramid(nn.Module):
    """FPN with a shared head on three levels, upsampled and added."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 24)
        self.stages = nn.ModuleList(
            cna(before, after, 3, 2) for before, after in zip((3, *widths), widths, strict=False)
        )
        self.laterals = nn.ModuleDict({str(i): nn.Conv2d(w, 12, 1) for i, w in enumerate(widths)})
        self.head = nn.Sequential(cna(12, 12), nn.Conv2d(12, 4, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            found.append(self.laterals[str(index)](x))
        for index in (1, 0):
            size = found[index].shape[-2:]
            found[index] = found[index] + F.interpolate(found[index + 1], size=size, mode="nearest")
        return [self.head(level) for level in found]


class Unet(nn.Module):
    """A U-Net with attention gates on its skips and hypercolumns at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = cna(3, 8), cna(8, 16), cna(16, 24)
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.gate_x, self.gate_g, self.gate = (
            nn.Conv2d(16, 8, 1),
            nn.Conv2d(16, 8, 1),
            nn.Conv2d(8, 1, 1),
        )
        self.d, self.last = cna(32, 16), nn.Conv2d(16 + 8 + 16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.a(x)
        two = self.b(F.max_pool2d(one, 2))
        up = self.up(self.c(F.max_pool2d(two, 2)))
        share = torch.sigmoid(self.gate(F.relu(self.gate_x(two) + self.gate_g(up))))
        three = self.d(torch.cat([two * share, up], 1))
        columns = [one] + [
            F.interpolate(level, size=one.shape[2:], mode="bilinear", align_corners=False)
            for level in (two, three)
        ]
        found: Tensor = self.last(torch.cat([columns[2], columns[0], columns[1]], 1))
        return found


class Unpooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = cna(3, 16), cna(16, 16)
        self.c, self.last = cna(16, 16), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(self.a(x), 2, return_indices=True)
        y = F.max_unpool2d(self.b(y), places, 2, output_size=x.shape[-2:])
        found: Tensor = self.last(self.c(y))
        return found


WHOLE: dict[str, Any] = {
    "tied autoencoder": TiedAutoencoder,
    "tied deconvolution": TiedDeconvolution,
    "feature pyramid, shared head": Pyramid,
    "U-Net, gates, hypercolumns": Unet,
    "max unpooling": Unpooled,
}
