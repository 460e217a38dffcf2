"""Scales and offsets fitted on data, against torch.linalg.lstsq in float64."""

import pytest
import torch

from flyweight.pruning.repair.norm_fit import Line, LineFits, NormFit, norms_text


def columns(n=60, channels=4):
    torch.manual_seed(0)
    z = torch.randn(n, channels, dtype=torch.float64)
    return z, 1.7 * z - 0.4 + 0.3 * torch.randn_like(z)


def filled(z, t):
    fits = LineFits()
    fits.add(z[:25], t[:25])
    rest = LineFits()
    rest.add(z[25:], t[25:])
    fits.include(rest)
    return fits


@pytest.mark.parametrize("offset", [True, False])
def test_the_best_line_of_every_channel(offset):
    z, t = columns()
    start = Line(torch.ones(4).double(), torch.zeros(4).double() if offset else None)
    found = filled(z, t).solve(start)
    for channel in range(4):
        rows = z[:, channel, None]
        rows = torch.cat([rows, torch.ones_like(rows)], 1) if offset else rows
        wanted = torch.linalg.lstsq(rows, t[:, channel, None]).solution[:, 0]
        assert float(found.scale[channel]) == pytest.approx(float(wanted[0]), rel=1e-12)
        if offset:
            assert float(found.offset[channel]) == pytest.approx(float(wanted[1]), rel=1e-12)
    assert (found.offset is not None) == offset


def test_error_is_a_share_of_the_variance():
    z, t = columns()
    line = Line(torch.full((4,), 1.5).double(), torch.full((4,), 0.25).double())
    wanted = (1.5 * z + 0.25 - t).square().sum() / (t - t.mean(0)).square().sum()
    assert filled(z, t).error(line) == pytest.approx(float(wanted), rel=1e-10)


def test_values_that_do_not_vary_keep_their_scale():
    z, t = torch.full((10, 2), 3.0), torch.randn(10, 2)
    fits = LineFits()
    fits.add(z, t)
    found = fits.solve(Line(torch.tensor([2.0, 5.0]).double(), torch.zeros(2).double()))
    assert found.scale.tolist() == [2, 5]
    torch.testing.assert_close(found.offset, t.double().mean(0) - torch.tensor([6.0, 15.0]))


def test_texts():
    fits = [
        NormFit("a.weight", 50, 0.4, 0.1, "fitted"),
        NormFit("b.weight", 50, 0.2, 0.0, "folded"),
    ]
    assert str(fits[0]) == "'a.weight': residual 0.4 to 0.1 (fitted)"
    assert fits[1].path == "b"
    assert norms_text(fits) == (
        "2 normalisations over channels, 1 of them exactly: mean residual 0.3 to 0.05"
    )
    assert norms_text(()) == "no normalisations over channels"
