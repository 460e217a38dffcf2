import json
import subprocess
import sys

import pytest
import torch

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.origin import origin_of


def test_every_row_is_under_its_own_name_and_builds_on_the_meta_device():
    for name, spec in zoo.SPECS.items():
        assert spec.name == name
        assert spec.summary
        with torch.device("meta"):
            model = zoo.create(name)
        assert all(value.is_meta for value in model.state_dict().values())


def test_lineage_holds_every_argument_and_rebuilds_the_same_network():
    model = zoo.create("yolov3_mobilenet_v1", width=0.25)
    origin = origin_of(model)
    assert origin.architecture == "yolov3_mobilenet_v1"
    assert origin.arguments == {"num_classes": 80, "width": 0.25}
    assert json.loads(json.dumps(origin.arguments)) == origin.arguments
    again = zoo.create(origin.architecture, **origin.arguments)
    shapes = [(name, value.shape) for name, value in model.state_dict().items()]
    assert shapes == [(name, value.shape) for name, value in again.state_dict().items()]


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'yolov3_mobilenetv1'.*Nearest: 'yolov3_mobilenet_v1'"):
        zoo.create("yolov3_mobilenetv1")
    with pytest.raises(ConfigError, match=r"'num_clases'.*Nearest: 'num_classes'"):
        zoo.create("yolov3_mobilenet_v1", num_clases=20)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 0},
        {"num_classes": 2.5},
        {"num_classes": True},
        {"num_classes": "20"},
        {"width": 0},
        {"width": -1.0},
        {"width": float("nan")},
        {"width": "wide"},
    ],
)
def test_values_that_cannot_be_meant(arguments):
    (name, value) = next(iter(arguments.items()))
    with pytest.raises(ConfigError) as error:
        zoo.create("yolov3_mobilenet_v1", **arguments)
    assert str(error.value).startswith(name)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_importing_the_zoo_is_light():
    code = (
        "import sys, flyweight.zoo, flyweight.zoo.sources.weights, flyweight.zoo.sources.old_names;"
        "heavy = {'torchvision', 'timm', 'PIL', 'lightning', 'onnx', 'torch._dynamo'};"
        "import torch;"
        'exec(\'with torch.device("meta"): flyweight.zoo.create("yolov3_mobilenet_v1")\');'
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
