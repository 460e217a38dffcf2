"""Idioms of recurrence and of frequencies."""

from typing import Any

import torch
from coverage_idioms_blocks import cna
from torch import Tensor, nn

_WIDTH = 16


class Fourier(nn.Module):
    """A spectral block: real and imaginary parts as channels (fast Fourier convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = cna(_WIDTH, 12, 1), nn.Conv2d(12, _WIDTH, 1)
        self.mix = nn.Sequential(nn.Conv2d(24, 24, 1), nn.BatchNorm2d(24), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        found = torch.fft.rfft2(y, norm="ortho")
        found = self.mix(torch.cat([found.real, found.imag], 1))
        real, imag = torch.chunk(found, 2, 1)
        back = torch.fft.irfft2(torch.complex(real, imag), s=y.shape[-2:], norm="ortho")
        return self.b(y + back)


class GlobalFilter(nn.Module):
    """A learned filter per channel and frequency (GFNet)."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(_WIDTH, side, side // 2 + 1, 2) * 0.1)
        self.wide, self.narrow = nn.Conv2d(_WIDTH, 32, 1), nn.Conv2d(32, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.rfft2(x, dim=(2, 3)) * torch.view_as_complex(self.weight)
        y = torch.fft.irfft2(y, s=x.shape[-2:], dim=(2, 3))
        return self.narrow(torch.relu(self.wide(y)))


class ConvLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates, self.hidden = nn.Conv2d(_WIDTH + 12, 48, 3, 1, 1), 12
        self.out = nn.Conv2d(12, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.hidden, *x.shape[-2:])
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class ConvGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(_WIDTH, 12, 1)
        self.z, self.r, self.q = (nn.Conv2d(12 + _WIDTH, 12, 3, 1, 1) for _ in range(3))
        self.out = nn.Conv2d(12, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        for _ in range(2):
            both = torch.cat([h, x], 1)
            z, r = torch.sigmoid(self.z(both)), torch.sigmoid(self.r(both))
            h = (1 - z) * h + z * torch.tanh(self.q(torch.cat([r * h, x], 1)))
        return self.out(h)


class Cells(nn.Module):
    """A cell of torch over a few steps, between layers that can be cut."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.cell = cna(3, 16, 3, 2), kind(16, 12)
        self.a, self.b = nn.Linear(12, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.first(x).mean(3), None
        for step in range(3):
            state = self.cell(y[:, :, step], state)
        found: Tensor = self.b(torch.relu(self.a(state[0] if isinstance(state, tuple) else state)))
        return found


class Rows(nn.Module):
    """A recurrent layer of torch over the rows of a map, as in text recognition."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(cna(3, 16, 3, 2), cna(16, 16, 3, 2))
        self.rnn = kind(16, 12, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.first(x).mean(2).permute(0, 2, 1))
        found: Tensor = self.head(y)
        return found


MAPS: dict[str, Any] = {
    "Fourier block": Fourier,
    "global filter": GlobalFilter,
    "convolutional LSTM": ConvLstm,
    "convolutional GRU": ConvGru,
}
"""Blocks on maps of 16 channels, 16 x 16."""
