"""Fourier transforms over rows and columns, and complex numbers."""

import pytest
import torch
from tests.graph.rules.conftest import Around, cut, reasons
from torch import fft, nn
from torch.nn import functional

from flyweight.graph import trace


def of_tokens(model, x):
    """Filter images whose channels are last, as GFNet does."""
    x = x.permute(0, 2, 3, 1)
    found = fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(model.filter)
    return fft.irfft2(found, s=x.shape[1:3], dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


def unit(model, x):
    """Convolve spectra, with real and imaginary parts as channels, as LaMa does."""
    found = fft.rfftn(x, dim=(-2, -1), norm="ortho")
    found = torch.stack((found.real, found.imag), dim=-1).permute(0, 1, 4, 2, 3).contiguous()
    found = model.both(found.view(x.shape[0], -1, *found.shape[3:])).relu()
    found = found.view(x.shape[0], -1, 2, *found.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()
    return fft.irfftn(torch.complex(found[..., 0], found[..., 1]), s=x.shape[-2:], norm="ortho")


def polar(model, x):
    found = fft.fft2(x)
    return fft.ifft2(torch.polar(found.abs(), found.angle())).real


def in_pairs(model, x):
    pairs = torch.view_as_complex(x.permute(0, 2, 3, 1).unflatten(3, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * 1j).flatten(3).permute(0, 3, 1, 2)


TRANSFORMS = {
    "fft2": lambda m, x: fft.ifft2(fft.fft2(x) * m.factor).real,
    "rfft2": lambda m, x: fft.irfft2(fft.rfft2(x, norm="ortho"), s=x.shape[2:], norm="ortho"),
    "fftn": lambda m, x: fft.ifftn(fft.fftn(x, dim=(-2, -1)), dim=(2, 3)).real,
    "one axis": lambda m, x: (
        fft.irfft(fft.rfft(x, dim=3), n=8, dim=3) + fft.ifft(fft.fft(x, dim=2), dim=2).imag
    ),
    "shifted": lambda m, x: (
        fft.ifft2(fft.ifftshift(fft.fftshift(fft.fft2(x), dim=(-2, -1)), dim=(-2, -1))).real
    ),
    "padded": lambda m, x: fft.fft2(x, s=(8, 16)).abs(),
    "polar": polar,
    "in pairs": in_pairs,
    "unit": unit,
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_transforms_over_rows_and_columns(kind):
    both = {"both": nn.Conv2d(32, 32, 1)} if kind == "unit" else {}
    cut(Around(TRANSFORMS[kind], factor=nn.Parameter(torch.randn(16, 1, 1)), **both))


def test_a_filter_of_spectra_has_values_for_every_channel():
    _, made, small = cut(Around(of_tokens, filter=nn.Parameter(torch.randn(8, 5, 16, 2))))
    assert small.filter.shape == (8, 5, 8, 2)
    assert "second.weight" in made.groups


def test_a_convolution_of_complex_numbers():
    def convolved(model, x):
        weight = torch.complex(model.real, model.imaginary)
        return functional.conv2d(torch.complex(x, x.flip(3)), weight, padding=1).abs()

    parts = {name: nn.Parameter(torch.randn(16, 16, 3, 3)) for name in ("real", "imaginary")}
    model = Around(convolved, **parts).double().eval()
    image = torch.randn(1, 3, 8, 8).double()
    groups = trace(model, (image,)).groups
    touched = {(m.tensor, m.axis, m.role) for m in groups["second.weight"].members}
    assert {("real", 1, "consumes"), ("imaginary", 1, "consumes")} <= touched


@pytest.mark.parametrize(
    "transform", [lambda x: fft.fft(x, dim=1).real, lambda x: fft.fftn(x).abs()]
)
def test_transforms_over_channels_freeze(transform):
    graph = trace(Around(lambda m, x: transform(x)), (torch.rand(1, 3, 8, 8),))
    (reason,) = reasons(graph)
    assert reason.startswith("passes an operation that has no rule: _fft_")


def test_real_and_imaginary_parts_of_one_number_freeze(bench):
    x = bench.flow(1, 4, 2, axes=[2])
    assert bench.run("view_as_complex", (1, 4), self=x).fields == ()
    assert bench.frozen == ["is the real and the imaginary part of one number"]
    y = bench.flow(1, 4, axes=[1])
    assert bench.run("view_as_real", (1, 4, 2), self=y).field_on(1).ids.tolist() == [2, 3, 4, 5]
