import torch

from flyweight.distillation.adaptors import Generator, GlobalContext, fit_widener_, widener


def test_a_widener_changes_the_width_alone():
    assert widener(3, 8)(torch.zeros(2, 3, 4, 5)).shape == (2, 8, 4, 5)
    assert widener(3, 8)(torch.zeros(1, 3, 2, 2)).abs().sum() == 0


def test_a_fitted_widener_finds_a_linear_relation():
    drawn = torch.Generator().manual_seed(0)
    student = torch.randn(4, 3, 6, 6, generator=drawn)
    wanted = torch.randn(8, 3, generator=drawn)
    teacher = torch.einsum("oc,nchw->nohw", wanted, student)
    widen = widener(3, 8)
    fit_widener_(widen, student, teacher)
    torch.testing.assert_close(widen.weight[..., 0, 0], wanted, rtol=0.01, atol=0.01)
    assert widen.weight.requires_grad


def test_a_widener_is_fitted_where_features_are_0_or_fewer_than_channels():
    widen = widener(5, 2)
    fit_widener_(widen, torch.zeros(1, 5, 2, 2), torch.ones(1, 2, 2, 2))
    assert torch.equal(widen.weight, torch.zeros_like(widen.weight))
    fit_widener_(widen, torch.ones(1, 5, 1, 1), torch.ones(1, 2, 1, 1))
    torch.testing.assert_close(
        widen(torch.ones(1, 5, 1, 1)), torch.ones(1, 2, 1, 1), rtol=0.01, atol=0.01
    )


def test_relations_begin_as_the_identity():
    features = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(GlobalContext(5)(features), features)
    assert GlobalContext(1)(torch.randn(2, 1, 3, 3)).shape == (2, 1, 3, 3)


def test_a_generator_keeps_the_shape():
    assert Generator(4)(torch.randn(2, 4, 6, 5)).shape == (2, 4, 6, 5)
