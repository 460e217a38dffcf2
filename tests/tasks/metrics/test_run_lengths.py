import numpy as np
import pytest
import torch
from pycocotools import mask as oracle

from flyweight.tasks.metrics.run_lengths import areas_of, run_lengths


def test_no_masks_have_no_run_lengths():
    assert run_lengths(torch.zeros(0, 5, 6, dtype=torch.bool)) == ()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_run_lengths_are_pycocotools_s():
    masks = torch.rand(3, 20, 30) > 0.6
    found = run_lengths(masks)
    for mask, lengths in zip(masks, found, strict=True):
        assert np.array_equal(oracle.decode(lengths), mask.numpy())
    assert areas_of(found) == [float(mask.sum()) for mask in masks]
