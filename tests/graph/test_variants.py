import pytest
import torch

from flyweight.graph.example_inputs import Example
from flyweight.graph.variants import doubled, variants


def shapes(example):
    return [tuple(tensor.shape) for _, tensor in example.tensors()]


def test_small_images_grow_and_keep_their_stride():
    found = [shapes(one)[0] for one in variants(Example((torch.rand(2, 3, 12, 12),)))]
    assert found[:2] == [(3, 3, 16, 16), (2, 3, 16, 16)]
    assert found[-1] == (3, 3, 12, 12)


def test_large_images_shrink_first_and_are_no_longer_square():
    first = next(variants(Example((torch.rand(1, 3, 224, 256),))))
    assert shapes(first) == [(2, 3, 128, 192)]


def test_what_has_the_size_of_an_image_changes_with_it():
    example = Example((torch.rand(1, 3, 16, 8),), {"mask": torch.ones(1, 16, 8, dtype=torch.bool)})
    assert shapes(next(variants(example))) == [(2, 3, 32, 24), (2, 32, 24)]


def test_images_in_a_list_have_no_batch():
    example = Example(([torch.rand(3, 32, 48), torch.rand(3, 32, 48)],))
    found = [shapes(one) for one in variants(example)]
    assert found[0] == [(3, 64, 80), (3, 64, 80)]
    assert all(size[0] == 3 for one in found for size in one)


def test_tokens_keep_valid_indices():
    tokens = torch.tensor([[5, 7, 9, 11]])
    longer = next(variants(Example((tokens, tokens > 0)))).args
    assert longer[0].tolist() == [[5, 7, 9, 11, 5, 7, 9, 11]] * 2
    assert longer[1].shape == (2, 8)


def test_sequences_may_lie_on_either_axis():
    found = [shapes(one)[0] for one in variants(Example((torch.rand(2, 5, 12),)))]
    assert (3, 6, 12) in found
    assert (3, 5, 16) in found


def test_nothing_is_varied_where_no_size_is_free():
    assert list(variants(Example((torch.tensor(3.0), 4)))) == []


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_batch_is_doubled(device):
    example = Example((torch.rand(1, 3, 4, 4, device=device),), {"scale": torch.rand(1, 2)})
    assert shapes(doubled(example)) == [(2, 3, 4, 4), (2, 2)]
    assert doubled(example).args[0].device.type == device


def test_tensors_that_disagree_on_the_batch_are_not_doubled():
    example = Example((torch.rand(1, 3, 4, 4), torch.rand(2, 5)))
    assert shapes(doubled(example)) == shapes(example)
