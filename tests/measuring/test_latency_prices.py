import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.measuring.machine import blocked, layer, time_of
from torch import nn

from flyweight.errors import MeasureError
from flyweight.graph import trace
from flyweight.measuring.channel_step import FoundStep
from flyweight.measuring.latency_prices import LatencyPrices, LayerPrice
from flyweight.measuring.latency_table import LayerTable
from flyweight.measuring.table_builder import measure_layers
from flyweight.measuring.timed_layers import timed_layers


def graph_of():
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(), nn.Conv2d(32, 4, 1)),
    )
    return trace(model.eval(), (torch.rand(1, 3, 16, 16),))


def test_prices_are_the_tables(tmp_path):
    graph = graph_of()
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(8))
    prices = LatencyPrices.of(graph, table)
    layers = timed_layers(graph)
    full = {name: group.size for name, group in graph.groups.items()}
    for width in (8, 16, 24, 32):
        widths = {**full, "0.weight": width}
        wanted = sum(
            time_of(layer.geometry, layer.inputs.under(widths), layer.outputs.under(widths), 8)
            for layer in layers
        )
        assert prices.sum_ms({"0.weight": width}) == pytest.approx(wanted, abs=1e-5)
    between = prices.sum_ms({"0.weight": 12})
    assert between == pytest.approx(
        (prices.sum_ms({"0.weight": 8}) + prices.sum_ms({"0.weight": 16})) / 2
    )


def test_the_whole_network_sets_the_scale(tmp_path):
    graph = graph_of()
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(8))
    plain = LatencyPrices.of(graph, table)
    assert plain.scale == 1
    scaled = LatencyPrices.of(graph, table.with_whole(graph, 3 * plain.sum_ms({})))
    assert scaled.scale == pytest.approx(3)
    assert scaled.predict_ms({"0.weight": 8}) == pytest.approx(3 * plain.sum_ms({"0.weight": 8}))
    assert plain.multiple_of(6) == 24


def test_a_table_of_another_network():
    empty = LayerTable({"threads": "1"}, "", FoundStep(8, {}))
    with pytest.raises(MeasureError, match=r"without '0' \(convolution 1x16x16, kernel 3x3"):
        LatencyPrices.of(graph_of(), empty)


def test_the_plane_of_a_layer_that_is_one():
    in_channels, out_channels = (8, 16, 32), (8, 16, 24)
    exact = np.array(
        [[1 + 0.5 * i + 0.25 * o + 0.125 * i * o for o in out_channels] for i in in_channels]
    )
    assert LayerPrice(layer(), in_channels, out_channels, exact).plane == pytest.approx(
        (1, 0.5, 0.25, 0.125)
    )
    tied = LayerPrice(layer(groups=0), in_channels, (32,), exact[:, :1])
    assert tied.plane == pytest.approx((3, 1.5, 0, 0))


def test_prices_need_no_runtime():
    """A dry run within a latency budget reads a table and executes nothing."""
    code = (
        "import sys, flyweight.pipeline.latency_cuts, flyweight.measuring.latency_prices\n"
        "heavy = {'onnx', 'onnxruntime', 'openvino', 'onnxscript', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
