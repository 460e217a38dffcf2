import pytest
import torch

from flyweight.distillation.similarity import linear_cka


def test_rotation_scale_and_shift_do_not_count():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 6, 5, 5, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    turned = torch.einsum("nchw,cd->ndhw", features, rotation) * 3 + 1
    assert linear_cka(features, turned) == pytest.approx(1.0, abs=1e-5)


def test_widths_may_differ_and_unrelated_features_are_far():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(16, 4, 8, 8, generator=generator)
    assert linear_cka(features, features[:, :2]) > 0.5
    assert linear_cka(features, torch.randn(16, 9, 8, 8, generator=generator)) < 0.1
    assert linear_cka(features, torch.ones(16, 1, 8, 8)) == 0


def test_the_value_of_two_columns_by_hand():
    # Centred columns x = (-1, 1, 0) and y = (-1, 0, 1): (x y)^2 / (|x|^2 |y|^2) = 1 / 4.
    one, other = torch.tensor([[-1.0], [1.0], [0.0]]), torch.tensor([[-1.0], [0.0], [1.0]])
    assert linear_cka(one, other) == pytest.approx(0.25)


def test_many_positions_are_sampled():
    torch.manual_seed(0)
    features = torch.randn(2, 2, 100, 100)
    assert linear_cka(features, features) == pytest.approx(1.0)
