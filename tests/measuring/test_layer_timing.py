import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.measuring.layer_timing import RuntimeTimer, chunks
from flyweight.measuring.timed_layers import timed_layers
from flyweight.runtimes.runtime_table import RUNTIMES

KINDS = {
    "convolution": nn.Conv2d(4, 8, 3, 2, 1),
    "grouped": nn.Conv2d(4, 8, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4),
    "transposed": nn.ConvTranspose2d(4, 8, 3, 2, 1, 1),
    "linear": nn.Linear(4, 8),
}


def layer_of(module):
    shape = (3, 4) if isinstance(module, nn.Linear) else (1, 4, 9, 7)
    return timed_layers(trace(module.eval(), (torch.rand(shape),)))[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_wider_layer_takes_longer_on_the_runtime(runtime):
    geometry = layer_of(nn.Conv2d(4, 8, 3, padding=1)).geometry
    timer = RuntimeTimer(runtime=runtime, seconds=0.0, runs=9)
    narrow, wide = timer(geometry, [(16, 16), (256, 256)])
    assert 0 <= narrow < wide / 10  # 256 times the products


def test_files_stay_small():
    geometry = layer_of(nn.Conv2d(4, 8, 3, padding=1)).geometry
    points = [(1024, 2048)] * 5  # 75 MB each
    assert [len(chunk) for chunk in chunks(geometry, points)] == [1] * 5
    assert [len(chunk) for chunk in chunks(geometry, [(16, 16)] * 5)] == [5]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_layer_has_a_time(name, runtime):
    geometry = layer_of(KINDS[name]).geometry
    points = [(16, 16), (32, 32), (32, 64)]
    if name == "depthwise":
        points = points[:2]
    times = RuntimeTimer(runtime=runtime, seconds=0.0, runs=3)(geometry, points)
    assert len(times) == len(points)
    assert all(time >= 0 for time in times)
