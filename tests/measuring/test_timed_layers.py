import torch
from torch import nn

from flyweight.graph import trace
from flyweight.graph.cost import AxisSize, Geometry
from flyweight.measuring.timed_layers import TimedLayer, geometry_key, timed_layers


def layers_of(model, *shape):
    return timed_layers(trace(model.eval(), (torch.rand(*shape),)))


def test_the_layers_of_a_network():
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 2, 2, groups=32)),
        *(nn.Conv2d(32, 16, 1), nn.ConvTranspose2d(16, 8, 2, 2)),
        *(nn.Conv2d(8, 8, 3, padding="same", groups=2), nn.Flatten(), nn.Linear(8 * 64, 5)),
    )
    found = layers_of(model, 1, 3, 8, 8)
    assert [layer.name for layer in found] == ["0", "1", "2", "3", "4", "6"]
    assert [layer.full for layer in found] == [
        *((3, 32), (32, 32), (32, 16), (16, 8), (8, 8), (512, 5)),
    ]
    free = [layer.free for layer in found]
    assert free[0] == (False, True)  # three colours come in
    assert free[-1] == (True, False)  # the outputs are the model's
    assert [geometry_key(layer.geometry) for layer in found] == [
        "convolution 1x8x8, kernel 3x3, stride 2x2, padding 1x1",
        "convolution 1x4x4, kernel 3x3, padding 2x2, dilation 2x2, depthwise",
        "convolution 1x4x4, kernel 1x1",
        "transposed 1x4x4, kernel 2x2, stride 2x2",
        "convolution 1x8x8, kernel 3x3, padding 1x1, groups 2",
        "linear 1",
    ]


def test_widths_follow_what_stays():
    both = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 2))
    graph = trace(both.eval(), (torch.rand(1, 3, 4, 4),))
    last = timed_layers(graph)[-1]
    assert last.inputs.under({"0.weight": 3, "2.weight": 2}) == 48


def timed(full, *, groups=1, free=(True, True)):
    geometry = Geometry("convolution", 1, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0), groups)
    return TimedLayer("a", geometry, AxisSize(0), AxisSize(0), full, free)


def test_the_grid_has_multiples_of_the_step_and_the_full_width():
    assert timed((128, 100)).axes(16) == ((16, 32, 64, 96, 128), (16, 32, 48, 80, 100))
    assert timed((3, 24), free=(False, True)).axes(16) == ((3,), (16, 24))
    assert timed((96, 48), groups=3).axes(4) == ((12, 24, 48, 72, 96), (12, 24, 36, 48))
    assert len(timed((128, 128)).points(16)) == 25


def test_a_depthwise_layer_makes_what_it_reads():
    assert timed((64, 128), groups=0).points(16) == ((16, 32), (32, 64), (48, 96), (64, 128))
