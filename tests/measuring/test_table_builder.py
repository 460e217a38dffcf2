import pytest
import torch
from tests.measuring.machine import blocked, time_of
from torch import nn

from flyweight.errors import ConfigError, MeasureError
from flyweight.graph import trace
from flyweight.measuring.latency_table import read_table
from flyweight.measuring.table_builder import measure_layers
from flyweight.measuring.timed_layers import geometry_key, timed_layers


def graph_of(*, size=16):
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 1)),
    )
    return trace(model.eval(), (torch.rand(1, 3, size, size),))


def test_every_layer_is_measured_once(tmp_path, recorded_progress):
    calls = []
    graph = graph_of()
    table = measure_layers(
        graph, tmp_path / "t.json", timer=blocked(8, calls=calls), progress=recorded_progress
    )
    assert read_table(tmp_path / "t.json") == table
    assert table.step == 8
    measured = calls[2:]  # the first two found the step: a pointwise layer and another
    assert len(measured) == len({geometry_key(geometry) for geometry, _ in measured}) == 2
    for layer in timed_layers(graph):
        assert table.missing(layer) == []
        for point in layer.points(8):
            known = table.layers[geometry_key(layer.geometry)][point]
            assert known == pytest.approx(time_of(layer.geometry, *point, 8), abs=1e-6)
    (_, label, total, _), *updates, last = recorded_progress.events
    told = [event[2] for event in updates]
    assert told == sorted(told)
    assert told[-1] == total
    assert (label, last[0]) == ("layers", "finish")
    calls.clear()
    assert measure_layers(graph, tmp_path / "t.json", timer=blocked(8, calls=calls)) == table
    assert calls == []


def test_a_table_that_was_cut_off_goes_on(tmp_path):
    path, graph, calls = tmp_path / "t.json", graph_of(), []
    whole = measure_layers(graph, tmp_path / "whole.json", timer=blocked(8, calls=calls))
    total = len(calls)
    left = [total - 1]

    def dying(geometry, points):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return blocked(8)(geometry, points)

    with pytest.raises(KeyboardInterrupt):
        measure_layers(graph, path, timer=dying)
    assert read_table(path).found == whole.found
    calls.clear()
    assert measure_layers(graph, path, timer=blocked(8, calls=calls)).layers == whole.layers
    assert len(calls) == 1


def test_another_size_of_the_network_is_added(tmp_path):
    path = tmp_path / "t.json"
    small = measure_layers(graph_of(), path, timer=blocked(8))
    both = measure_layers(graph_of(size=24), path, timer=blocked(8))
    assert both.layers.keys() > small.layers.keys()
    assert len(both.layers) == 2 * len(small.layers)


def test_times_of_two_machines_are_not_mixed(tmp_path):
    path = tmp_path / "t.json"
    measure_layers(graph_of(), path, timer=blocked(8))
    with pytest.raises(MeasureError, match=r"on the same threads.*'1', where this is '2'"):
        measure_layers(graph_of(), path, threads=2, timer=blocked(8))


def test_a_network_without_layers(tmp_path):
    graph = trace(nn.ReLU(), (torch.rand(1, 3),))
    with pytest.raises(MeasureError, match="must have convolutions or linear layers"):
        measure_layers(graph, tmp_path / "t.json", timer=blocked(8))


def test_times_of_two_runtimes_are_not_mixed(tmp_path):
    path = tmp_path / "t.json"
    table = measure_layers(graph_of(), path, runtime="openvino", timer=blocked(8))
    assert table.runtime == "openvino"
    with pytest.raises(MeasureError, match=r"on the same runtime.*'openvino \d.*'onnxruntime \d"):
        measure_layers(graph_of(), path, timer=blocked(8))
    with pytest.raises(ConfigError, match="must be one of onnxruntime, openvino"):
        measure_layers(graph_of(), tmp_path / "u.json", runtime="tvm", timer=blocked(8))
