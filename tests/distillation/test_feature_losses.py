import math

import pytest
import torch
from torch import nn

from flyweight.distillation import attention, cwd, fsp, l2, mgd, pkd
from flyweight.errors import ConfigError


def test_features_have_the_numbers_of_the_published_code(maps):
    # mmrazor at commit 90c7af1: ChannelWiseDivergence, PKDLoss, MGDLoss, ATLoss.
    student, teacher = maps
    assert cwd(student, teacher).item() == pytest.approx(1.3630046844, rel=1e-5)
    assert cwd(student, teacher, 4.0).item() == pytest.approx(1.8792519569, rel=1e-5)
    assert pkd(student, teacher).item() == pytest.approx(0.9660416842, rel=1e-5)
    found = mgd(student, teacher, nn.Identity(), masked_share=0.0)
    assert found.item() == pytest.approx(237.9898071, rel=1e-5)
    assert attention(student, teacher).item() == pytest.approx(ATTENTION, rel=1e-4)


ATTENTION = 0.0006123896455


def test_l2_by_hand():
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert l2(student, teacher).item() == pytest.approx(30 / 4)
    assert l2(student, teacher, torch.tensor([[[True, False]]])).item() == pytest.approx(5.0)
    assert l2(student, teacher, torch.tensor([[[False, False]]])).item() == 0
    assert l2(torch.zeros(2, 3), torch.ones(2, 3)).item() == 1


def test_fsp_by_hand():
    ones, twos = torch.ones(1, 1, 2, 2), torch.full((1, 2, 2, 2), 2.0)
    # Student: G = 1 * 1 = 1 for both pairs; teacher: 1 * 2 = 2.
    student = (ones, torch.ones(1, 2, 2, 2))
    assert fsp(student, (ones, twos)).item() == pytest.approx(1.0)
    # A later map of half the size: the earlier one is averaged to it.
    early = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    found = fsp((early, torch.full((1, 1, 1, 1), 2.0)), (early, torch.full((1, 1, 1, 1), 3.0)))
    assert found.item() == pytest.approx((4 * 2 - 4 * 3) ** 2)
    with pytest.raises(ConfigError, match="fsp"):
        fsp((ones, ones), (ones, twos))


def test_attention_by_hand_for_other_widths():
    # Squares per position, scaled to length 1: student (1, 0), teacher (3, 4) / 5.
    student = torch.tensor([[[[1.0, 0.0]]]])
    teacher = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]]).sqrt()
    wanted = ((1 - 0.6) ** 2 + 0.8**2) / 2
    assert attention(student, teacher).item() == pytest.approx(wanted, rel=1e-5)


def test_cwd_by_hand_with_a_mask():
    student = torch.zeros(1, 1, 1, 3)
    teacher = torch.tensor([math.log(3.0), 0.0, 50.0]).view(1, 1, 1, 3)
    mask = torch.tensor([[[True, True, False]]])
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert cwd(student, teacher, mask=mask).item() == pytest.approx(wanted, rel=1e-5)
    student.requires_grad_()
    nothing = cwd(student, teacher, mask=torch.zeros_like(mask))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.isfinite(student.grad).all()


def test_pkd_does_not_see_scale_and_shift_and_is_one_minus_the_correlation():
    generator = torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(4, 1, 5, 5, generator=generator) for _ in range(2))
    assert pkd(3 * teacher + 7, teacher).item() == pytest.approx(0, abs=1e-6)
    correlation = torch.corrcoef(torch.stack((student.flatten(), teacher.flatten())))[0, 1]
    assert pkd(student, teacher).item() == pytest.approx(1 - correlation.item(), rel=0.02)


def test_pkd_of_a_constant_channel_has_a_finite_gradient():
    student = torch.ones(2, 1, 2, 2, requires_grad=True)
    pkd(student, torch.randn(2, 1, 2, 2)).backward()
    assert torch.isfinite(student.grad).all()


def test_mgd_by_hand_and_by_chance():
    student, teacher = torch.ones(1, 2, 1, 2), torch.full((1, 2, 1, 2), 3.0)
    kept = torch.tensor([[[[1.0, 0.0]]]])
    # One position gives (1 - 3)^2, the masked one 3^2, in both channels.
    found = mgd(student, teacher, nn.Identity(), kept=kept)
    assert found.item() == pytest.approx(2 * 4 + 2 * 9)
    torch.manual_seed(0)
    many = torch.ones(1, 1, 100, 100)
    shares = mgd(many, torch.zeros_like(many), nn.Identity(), masked_share=0.65).item() / 10000
    assert shares == pytest.approx(0.35, abs=0.02)
    with pytest.raises(ConfigError, match="masked_share"):
        mgd(student, teacher, nn.Identity(), masked_share=1.0)


@pytest.mark.parametrize("loss", [l2, cwd, pkd, attention])
def test_only_the_student_learns(maps, loss):
    student, teacher = (each.clone().requires_grad_() for each in maps)
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_features_of_16_bits_are_compared_in_32(maps):
    student, teacher = (each.to(torch.bfloat16) for each in maps)
    for loss in (l2, cwd, pkd, attention):
        found = loss(student, teacher)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(student.float(), teacher.float()))


def test_other_shapes_are_refused(maps):
    student, _ = maps
    for loss in (l2, cwd, pkd):
        with pytest.raises(ConfigError, match=r"\(2, 3, 4, 5\) and \(2, 4, 4, 5\)"):
            loss(student, torch.zeros(2, 4, 4, 5))
    with pytest.raises(ConfigError, match=r"\(n, channels, h, w\)"):
        pkd(torch.zeros(2, 3), torch.zeros(2, 3))
