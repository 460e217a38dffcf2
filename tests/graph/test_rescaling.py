import numpy as np
import pytest
import torch

from flyweight.graph.rescaling import Norm, Norms, Rescaled, Scaled, Stored, correct, place_of_zeros

FIRST = {"v": 0, "w": 10, "g": 20, "h": 30}
LABELS = np.arange(60)
LABELS[20:22] = LABELS[30:32] = LABELS[0:2]  # g and h have a value for every row of v.


def stored(name, *shape):
    return Stored(name, shape, {axis: FIRST[name] + 5 * axis for axis in range(len(shape))})


def norm_of(weight, axes):
    return Norm(weight, axes, 2.0, np.arange(3), f"norm of {weight.name}")


def test_the_share_of_a_norm_that_stays():
    weight = torch.tensor([[3.0, 4.0, 12.0], [1.0, 0.0, 0.0]])
    rescaled = Rescaled("g", "v", (1,))
    share = rescaled.share(weight, weight[:, :2])
    assert share.dtype == torch.float64
    assert share.tolist() == [[pytest.approx(5 / 13)], [1.0]]
    assert Rescaled("g", "v", (0, 1)).share(weight * 0, weight * 0).tolist() == [[1.0]]
    assert Rescaled("g", "v", (1,), 1.0).share(weight, weight[:, :2])[0].item() == 7 / 19


def test_a_scale_is_corrected_in_place():
    scale = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    correct(scale, torch.tensor([[0.5], [1.0]], dtype=torch.float64))
    assert scale.tolist() == [1.0, 3.0]
    assert scale.dtype == torch.float32
    correct(scale, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert scale.tolist() == [2.0, 6.0]


def test_where_zeros_go():
    tensors = {"v": torch.ones(2, 3), "g": torch.ones(2)}
    rescaled = Rescaled("g", "v", (1,))
    assert place_of_zeros(tensors, "v", 1, rescaled) is tensors["v"]
    assert place_of_zeros(tensors, "v", 0, None) is tensors["v"]
    place_of_zeros(tensors, "v", 0, rescaled).index_fill_(0, torch.tensor([1]), 0)
    assert tensors["g"].tolist() == [1.0, 0.0]


def test_a_norm_beside_a_scale_is_corrected():
    weight, scale = stored("v", 2, 3), stored("g", 2)
    norm = norm_of(weight, (1,))
    norms = Norms([norm], [Scaled(norm, scale)])
    assert norms.settled(LABELS) == ((Rescaled("g", "v", (1,)),), [])
    assert norm.sizes == (2,)


@pytest.mark.parametrize("used", ["norm", "scale", "nowhere", "twice", "for another"])
def test_other_norms_mix(used):
    weight, scale = stored("v", 2, 3), stored("g", 2)
    norm, other = norm_of(weight, (1,)), norm_of(stored("w", 2, 3), (1,))
    norms = Norms([norm, other], [Scaled(norm, scale)])
    if used == "nowhere":
        norms.scaled = []
    elif used == "twice":
        norms.scaled.append(Scaled(norm, stored("h", 2)))
    elif used == "for another":
        norms.scaled.append(Scaled(other, scale))
    else:
        norms.plain.add(norm if used == "norm" else scale)
    rescaled, mixing = norms.settled(LABELS)
    assert rescaled == ()
    assert [place for _, place in mixing] == ["norm of v", "norm of w"]


def test_a_layer_that_runs_twice_has_one_correction():
    weight, scale = stored("v", 2, 3), stored("g", 2)
    first, second = norm_of(weight, (1,)), norm_of(weight, (1,))
    norms = Norms([first, second], [Scaled(first, scale), Scaled(second, scale)])
    assert norms.settled(LABELS) == ((Rescaled("g", "v", (1,)),), [])


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "fits"),
    [
        ((2,), 0, 5, True),  # the labels are those of the rows
        ((2,), 5, 0, False),  # of the columns
        ((2,), 0, 0, False),  # both axes have the same channels
        ((2, 1), 5, 5, True),  # of the shape of the norm
    ],
)
def test_a_scale_has_a_value_for_every_norm(shape, rows, columns, fits):
    labels = np.arange(60)
    labels[0:2], labels[5:7] = labels[rows : rows + 2], labels[columns : columns + 2]
    labels[20:22] = [0, 1]
    scaled = Scaled(norm_of(stored("v", 2, 2), (1,)), Stored("g", shape, {0: 20}))
    assert scaled.fits(labels) is fits
