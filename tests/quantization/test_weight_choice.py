import pytest
import torch

from flyweight.quantization.weight_choice import WeightChoice, undecided


def choice():
    weight = torch.tensor([[0.25, -1.6, 127.0], [0.5, 2.0, -127.0]])
    return WeightChoice(weight, torch.tensor([1.0, 0.5]), 8)


def test_at_the_start_the_soft_weight_is_the_float_one_and_the_hard_one_its_rounding():
    one = choice()
    with torch.no_grad():
        assert torch.allclose(one.soft()[0], torch.tensor([0.25, -1.6, 127.0]), atol=2e-3)
        assert torch.equal(one.hard()[0], torch.tensor([0.0, -2.0, 127.0]))
        # Clipped at 127 steps of 0.5; 0.5 and 2.0 lie on the grid.
        assert torch.equal(one.hard()[1], torch.tensor([0.5, 2.0, -63.5]))


def test_values_choose_between_their_two_neighbours_and_those_on_the_grid_do_not():
    one = choice()
    with torch.no_grad():
        one.raised.fill_(10.0)
        assert torch.equal(one.hard(), torch.tensor([[1.0, -1.0, 127.0], [0.5, 2.0, -63.5]]))
        one.raised.fill_(-10.0)
        assert torch.equal(one.hard(), torch.tensor([[0.0, -2.0, 127.0], [0.5, 2.0, -63.5]]))


def test_the_pushing_term_begins_after_the_warm_up_and_is_largest_in_the_middle():
    one = choice().requires_grad_(False)
    assert undecided([one], 0.1) == 0.0
    start = float(undecided([one], 0.5))
    one.raised.fill_(0.0)
    middle = float(undecided([one], 0.5))
    one.raised.fill_(10.0)
    # The values that lie on the grid have a share of 0.
    assert float(undecided([one], 0.5)) == pytest.approx(0, abs=1e-6)
    assert 0 < start < middle < 1
