import torch

from flyweight.distillation.adaptors import (
    Generator,
    GlobalContext,
    channels_of,
    layout_of,
    widener,
)


def test_a_widener_changes_the_width_alone():
    assert widener(3, 8, "maps")(torch.zeros(2, 3, 4, 5)).shape == (2, 8, 4, 5)
    assert widener(3, 8, "tokens")(torch.zeros(2, 7, 3)).shape == (2, 7, 8)
    assert widener(3, 8, "maps")(torch.zeros(1, 3, 2, 2)).abs().sum() == 0


def test_channels_lie_in_axis_1_of_maps_and_in_the_last_of_others():
    assert (layout_of((1, 2, 3, 4)), channels_of((1, 2, 3, 4))) == ("maps", 2)
    assert (layout_of((1, 2, 3)), channels_of((1, 2, 3))) == ("tokens", 3)
    assert channels_of((1, 5)) == 5


def test_relations_begin_as_the_identity():
    features = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(GlobalContext(5)(features), features)
    assert GlobalContext(1)(torch.randn(2, 1, 3, 3)).shape == (2, 1, 3, 3)


def test_a_generator_keeps_the_shape():
    assert Generator(4)(torch.randn(2, 4, 6, 5)).shape == (2, 4, 6, 5)
