import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.exact import (
    MOST,
    RELU6_GRID,
    exact_grid,
    largest_sums,
    power_scales,
    require_exact,
)
from flyweight.quantization.grids import Grid
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import LearnedSteps, QuantizationPlan
from flyweight.quantization.ranges import Range, RangeObserver
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name

EXACT = fw.QuantConfig(exact=True, weight_bits=7)

exporting = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


class Mobile(nn.Module):
    """An inverted block with ReLU6 and a sum, a pool and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        stem = self.stem(images)
        stem = stem + self.project(self.depthwise(self.expand(stem)))
        return self.head(nn.functional.adaptive_avg_pool2d(stem, 1).flatten(1))


def made(network, images, config=EXACT):
    torch.manual_seed(0)
    return fw.quantize(trained_like(network), images, config)


@pytest.fixture(scope="module")
def images():
    return 3 * torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def is_power(value):
    return math.frexp(value)[0] == 0.5


def run(path, images):
    opened = runtime_by_name("onnxruntime").open(Path(path), OpenSettings(1))
    name = opened.inputs[0].name
    rows = [next(iter(opened.run({name: one[None].numpy()}).values())) for one in images]
    return torch.from_numpy(np.concatenate(rows))


@pytest.mark.parametrize("network", [Residual, Mobile, lambda: Residual(nn.ReLU6)])
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_onnxruntime_computes_the_bits_of_pytorch(tmp_path, images, network):
    quantized = made(network(), images)
    path = tmp_path / "net.onnx"
    result = fw.export(quantized, path, example=(images[:1],))
    assert max(result.max_error.values()) == 0
    with torch.no_grad():
        wanted = torch.cat([quantized(one[None]) for one in images])
    assert torch.equal(run(path, images), wanted)


def test_the_plan_has_powers_of_two_and_even_zero_points(images):
    quantized = made(Mobile(), images)
    plan = plan_of(quantized)
    assert all(is_power(grid.scale) and grid.zero_point % 2 == 0 for grid in plan.grids.values())
    scales = [one.scales for one in quantized.weight_quantizers.values()]
    assert all(is_power(float(scale)) for part in scales for scale in part)
    assert QuantizationPlan.from_json(plan.to_json()) == plan


def test_a_relu6_becomes_a_relu_whose_limit_is_the_last_level(images):
    model = trained_like(Mobile())
    quantized = fw.quantize(model, images, EXACT)
    plan = plan_of(quantized)
    # What the stem makes is added, too, so it keeps its ReLU6.
    assert [site.partition("|")[0] for site in plan.relus] == ["expand.2", "depthwise.2"]
    moved = {plan.outputs[site] for site in plan.relus}
    assert {plan.grids[name] for name in moved} == {RELU6_GRID}
    kept = next(name for name, limit in plan.limits.items() if limit == 6)
    assert plan.grids[kept].scale <= 6 / 255
    with torch.no_grad():
        error = (quantized(images) - model(images)).norm() / model(images).norm()
    assert error < 0.2


def test_training_with_fixed_steps_keeps_them(images):
    quantized = made(Mobile(), images)
    with pytest.raises(PlanError, match=r"must stay powers of two. Received the method 'lsq'"):
        trainable(quantized)
    student = trainable(quantized, LearnedSteps("fixed")).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    nn.functional.cross_entropy(student(images), torch.arange(16) % 5).backward()
    optimizer.step()
    finished = settled(student)
    scales = [one.current() for one in finished.weight_quantizers.values()]
    assert all(is_power(float(scale)) for part in scales for scale in part)


@pytest.mark.parametrize("limit", [None, 6.0])
def test_grids_next_to_the_range(limit):
    observer = RangeObserver()
    observer.observe(torch.linspace(-1, 5, 1000))
    grid = exact_grid(observer, Range(-1.0, 5.0), limit)
    # 6 / 255 lies between 2^-6 and 2^-5.
    assert grid == (Grid(2.0**-6, 64) if limit else Grid(2.0**-5, 32))


def test_channels_with_large_sums_get_coarser_scales():
    weight = torch.cat([torch.full((1, 600), 1.0), torch.full((1, 600), 0.01)])
    scales = weight.abs().amax(1) / 127
    found = power_scales(weight, None, scales, 8, Grid(1.0, 0))
    # 600 * 127 * 255 is above 2^24, so both channels are halved until they fit.
    levels = torch.round(weight / found[:, None])
    assert bool((largest_sums(levels, None, 0) < MOST).all())
    assert all(is_power(float(scale)) for scale in found)


def test_sums_by_hand():
    levels = torch.tensor([[3.0, -2.0], [0.0, 5.0]])
    bias = torch.tensor([10.0, -1.0])
    # With zero point 55 an input lies between -55 and 200.
    wanted = [3 * 200 + 2 * 55 + 10, 5 * 200 + 1]
    assert largest_sums(levels, bias, 55).tolist() == wanted
    assert largest_sums(levels, None, 0).tolist() == [3 * 255, 5 * 255]


def test_a_layer_beyond_the_bound_is_named():
    levels = torch.full((2, 1000), 127.0)
    with pytest.raises(
        PlanError, match=r"layer 'a\.conv2d', where 2 channels may reach 3\.24e\+07"
    ):
        require_exact("a.conv2d", levels, None, 0)
    require_exact("a.conv2d", levels / 2, None, 0)
