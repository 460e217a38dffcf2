import pytest
import torch
from torch.nn import functional

from flyweight.pruning.repair.layer_rows import Draw, Window


def arguments(kernel, stride, dilation, padding):
    return {
        "weight": torch.zeros(5, 3, *kernel),
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
    }


@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_patches_are_those_of_unfold(kernel, stride, dilation):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 9, 8)
    window = Window.of(arguments(kernel, stride, dilation, [1, 2]))
    assert window.padding == (2, 2, 1, 1)
    padded = functional.pad(images, window.padding)
    height, width = window.outputs(padded)
    wanted = functional.unfold(images, kernel, dilation, (1, 2), stride).transpose(1, 2)
    assert wanted.shape[1] == height * width
    places = torch.stack([torch.randperm(height * width)[:5] for _ in range(2)])
    found = window.patches(padded, places, width).view(2, 5, -1)
    for image in range(2):
        assert torch.equal(found[image], wanted[image, places[image]])


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("given", ["same", "valid"])
def test_padding_in_words(given):
    layer = torch.nn.Conv2d(3, 5, (2, 5), dilation=(3, 1), padding=given)
    images = torch.randn(1, 3, 9, 9)
    window = Window.of(arguments((2, 5), (1, 1), (3, 1), given))
    padded = functional.pad(images, window.padding)
    assert window.outputs(padded) == layer(images).shape[2:]
    unpadded = functional.conv2d(padded, layer.weight, layer.bias, dilation=(3, 1))
    torch.testing.assert_close(unpadded, layer(images))


def test_inputs_and_outputs_are_drawn_alike():
    """Rows of a layer that passes its one channel on are its inputs."""
    torch.manual_seed(0)
    draw = Draw(["a", "b"], per_image=6, seed=3)
    images = torch.randn(4, 1, 5, 5)
    call = {"input": images, **arguments((1, 1), (1, 1), (1, 1), [0, 0])}

    class Whole:
        name, made = "b", (0,)

    class Read:
        op, result = "conv2d", images

    rows = draw.inputs("b", 2, call)
    assert rows.shape == (24, 1)
    assert torch.equal(rows, draw.outputs(Whole, 2, Read))
    assert all(len(set(part.flatten().tolist())) == 6 for part in rows.split(6))
    assert not torch.equal(rows, draw.inputs("b", 1, call))
    assert not torch.equal(rows, draw.inputs("a", 2, call))
    assert not torch.equal(rows, Draw(["a", "b"], 6, seed=4).inputs("b", 2, call))


def test_small_maps_are_taken_whole():
    draw = Draw(["a"], per_image=9, seed=0)
    tokens = torch.randn(2, 4, 3)
    assert torch.equal(draw.inputs("a", 0, {"input": tokens}), tokens.flatten(0, 1))
    flat = torch.randn(2, 3)
    assert torch.equal(draw.inputs("a", 0, {"input": flat}), flat)
