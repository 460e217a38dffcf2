import pytest
import torch
from pydantic import ValidationError
from tests.pipeline.test_folder_report import CONFIG
from torch import nn

import flyweight as fw
from flyweight.config.quantization import QuantizeConfig
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.quantization_steps import (
    CalibrationImages,
    calibrated,
    losses_of_layers,
    takes_steps,
)
from flyweight.progress import SILENT
from flyweight.quantization.network import plan_of

DATA = open_data(CONFIG)


def made(tmp_path, values, **settings):
    """Quantize with a metric that has the given values, one after the other."""
    section = QuantizeConfig(weight_bits=7, images=2, **settings)
    asked = iter(values)
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    found = calibrated(
        model,
        CONFIG.model_copy(update={"quantize": section}),
        DATA,
        lambda _: next(asked),
        tmp_path / "state",
        SILENT,
    )
    assert next(asked, None) is None
    assert not (tmp_path / "state").exists()
    return found


def test_calibration_alone_is_not_evaluated(tmp_path):
    found = made(tmp_path, [])
    assert found.steps == ()
    assert set(found.losses) == {layer.operation for layer in plan_of(found.model).layers.values()}


def test_every_step_has_the_metric_before_and_after_it(tmp_path):
    values = [0.9, 0.7, 0.75, 0.8, 0.85]
    chosen = {"reconstruct": "blocks", "reconstruct_steps": 2}
    found = made(tmp_path, values, **chosen)
    assert [(one.name, one.before, one.after) for one in found.steps] == [
        ("calibration", 0.9, 0.7),
        ("dead channels", 0.7, 0.75),
        ("reconstruction of blocks", 0.75, 0.8),
        ("bias correction", 0.8, 0.85),
    ]


def test_a_metric_that_is_no_number_has_no_steps(tmp_path):
    found = made(tmp_path, [float("nan")] * 6, equalize=True, fix_dead_channels=False)
    assert found.steps == ()


def test_which_settings_take_steps():
    for settings, wanted in (
        ({}, False),
        ({"ranges": "mse", "correct_bias": False}, False),
        ({"mode": "aware"}, True),
        ({"equalize": True}, True),
        ({"reconstruct": "layers"}, True),
    ):
        section = QuantizeConfig(**settings)
        assert takes_steps(CONFIG.model_copy(update={"quantize": section})) is wanted
    with pytest.raises(ValidationError, match="equalize scales; leave one of them out"):
        QuantizeConfig(reconstruct="blocks", equalize=True)


def test_layers_of_an_exact_network_cost_what_those_on_free_grids_do():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 1)).eval()
    images, few = (CalibrationImages(CONFIG, DATA, count) for count in (2, 1))
    free = fw.QuantConfig(weight_bits=7)
    exact = fw.QuantConfig(weight_bits=7, exact=True)
    found = losses_of_layers(model, fw.quantize(model, images, exact), exact, images, few)
    wanted = losses_of_layers(model, fw.quantize(model, images, free), free, images, few)
    assert found == wanted
    assert all(value > 0 for value in found.values())


def test_images_are_spread_over_the_split_and_made_anew():
    images = CalibrationImages(CONFIG, DATA, 2)
    first, again = torch.cat(list(images)), torch.cat(list(images))
    assert len(images) == len(first) == 2
    assert torch.equal(first, again)
    assert len(CalibrationImages(CONFIG, DATA, 100)) == len(DATA.train)
