from pathlib import Path

import numpy as np
import pytest

from flyweight.graph import Cost
from flyweight.pipeline.inputs import Saver, load_model, open_data
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.results import Pruned, Trained
from flyweight.pipeline.stage import Inputs
from flyweight.pipeline.stages import comparison
from flyweight.pipeline.stages.comparison import COMPARISON, CONTROL_NAME, UNTUNED_NAME

NAMES = ["dense", CONTROL_NAME, UNTUNED_NAME, "pruned"]


@pytest.fixture
def networks(tmp_path, config_of):
    """Results of earlier stages; the values of the networks' resamples are given in the test."""
    config = config_of()
    save = Saver(config, tuple("0123456789"), "detect")
    paths = [
        tmp_path / name
        for name in (
            "d.safetensors",
            "c.safetensors",
            "before_finetuning.safetensors",
            "p.safetensors",
        )
    ]
    for path in paths:
        save(build_model(config), {"map_50": 0.5}, path)
    cost = Cost(macs=1, params=1, size_bytes=4, values=1)
    pruned = Pruned(paths[3], None, Path(), cost, cost, {})
    return {
        "train": Trained(paths[0], {}, 0.0),
        "control": Trained(paths[1], {}, 0.0),
        "prune": pruned,
    }


def test_networks_are_evaluated_on_the_same_images(networks, config_of, notes, tmp_path):
    config = config_of()
    inputs = Inputs("digits", open_data(config), results=networks, progress=notes)
    workspace = COMPARISON.workspace(tmp_path / "run", in_chain=True)
    found = COMPARISON.run(inputs, COMPARISON.view(config), workspace)
    assert [network.name for network in found.networks] == NAMES
    assert [network.like for network in found.networks] == ["dense", "dense", "pruned", "pruned"]
    assert found.networks[0].difference is None
    for network in found.networks[1:]:
        low, high = network.difference
        assert low <= high
    assert len(notes.said) == 4
    assert COMPARISON.makes(config) == ("comparison.json",)
    assert COMPARISON.read(inputs, None, workspace) == found
    assert COMPARISON.digests(found) != COMPARISON.digests(type(found)(found.networks[:2]))


def test_differences_are_those_from_the_dense_network(
    networks, config_of, monkeypatch, notes, tmp_path
):
    values = iter(
        [
            (0.9, 0.9 + np.zeros(100)),
            (0.9, np.linspace(0.88, 0.92, 101)[:100]),
            (0.2, None),
            (0.8, 0.8 + np.zeros(100)),
        ]
    )
    monkeypatch.setattr(comparison, "_evaluated", lambda *_: next(values))
    config = config_of()
    inputs = Inputs("digits", open_data(config), results=networks, progress=notes)
    found = COMPARISON.run(
        inputs, COMPARISON.view(config), COMPARISON.workspace(tmp_path / "run", in_chain=True)
    )
    _, control, untuned, pruned = found.networks
    assert control.difference[0] < 0 < control.difference[1]
    assert untuned.difference is None
    assert pruned.difference == pytest.approx((-0.1, -0.1))
    assert notes.said[0] == "dense: 90.00 %"
    assert notes.said[3] == "pruned: 80.00 %, -10.00 to -10.00 points against dense"


@pytest.mark.parametrize("metric", ["coco", "wider"])
def test_every_metric_of_boxes_has_intervals(networks, config_of, tmp_path, metric):
    config = config_of(f"detect.metric={metric}")
    inputs = Inputs("digits", open_data(config), results=networks)
    workspace = COMPARISON.workspace(tmp_path / "run", in_chain=True)
    found = COMPARISON.run(inputs, COMPARISON.view(config), workspace)
    # Networks without training find nothing, on every resample.
    assert [network.difference for network in found.networks] == [None] + [(0.0, 0.0)] * 3


def test_the_value_is_that_of_the_evaluation(networks, config_of):
    from flyweight.pipeline.evaluation import evaluate_model

    config = config_of("data.val_count=6")
    data, path = open_data(config), networks["train"].checkpoint
    value, resampled = comparison._evaluated(path, config, data)
    model, _ = load_model(path, config)
    assert value == evaluate_model(model, config, data.val)["map_50"]
    assert resampled.min() <= value <= resampled.max()
