import torch

from flyweight.distillation.adaptors import Generator, GlobalContext, widener


def test_a_widener_changes_the_width_alone():
    assert widener(3, 8)(torch.zeros(2, 3, 4, 5)).shape == (2, 8, 4, 5)
    assert widener(3, 8)(torch.zeros(1, 3, 2, 2)).abs().sum() == 0


def test_relations_begin_as_the_identity():
    features = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(GlobalContext(5)(features), features)
    assert GlobalContext(1)(torch.randn(2, 1, 3, 3)).shape == (2, 1, 3, 3)


def test_a_generator_keeps_the_shape():
    assert Generator(4)(torch.randn(2, 4, 6, 5)).shape == (2, 4, 6, 5)
