import pytest
import torch

from flyweight.distillation.loss_inputs import (
    counted_positions,
    in_float32,
    mean_over,
    require_equal_counts,
    require_equal_shapes,
    require_maps,
)
from flyweight.errors import ConfigError


def test_a_mask_is_read_at_the_centres_of_positions():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 6] = True  # The centre of row 0 and column 1 of a map of stride 4.
    found = counted_positions(mask, torch.zeros(1, 3, 2, 2))
    assert found.tolist() == [[[[0.0, 1.0], [0.0, 0.0]]]]
    assert counted_positions(None, torch.zeros(1, 3, 2, 2)) is None


def test_a_mean_over_nothing_is_zero():
    values = torch.ones(1, 2, 1, 2)
    assert mean_over(values, torch.zeros(1, 1, 1, 2)).item() == 0
    assert mean_over(values, torch.tensor([[[[1.0, 0.0]]]])).item() == 1
    assert mean_over(values, None).item() == 1


def test_what_does_not_fit_is_refused():
    require_equal_shapes(torch.zeros(1), torch.zeros(1), "a loss")
    with pytest.raises(ConfigError, match="For a loss"):
        require_equal_shapes(torch.zeros(1), torch.zeros(2), "a loss")
    with pytest.raises(ConfigError, match="Received 0 and 0"):
        require_equal_counts([], [], "a loss")
    with pytest.raises(ConfigError, match=r"Received \(3,\)"):
        require_maps(torch.zeros(3), "a loss")


def test_values_are_cast():
    assert [one.dtype for one in in_float32(torch.zeros(1).half(), torch.zeros(1))] == [
        torch.float32,
        torch.float32,
    ]
