import pytest

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.errors import ConfigError
from flyweight.origin import origin_of
from flyweight.pipeline.network_plans import weightless
from flyweight.pipeline.networks import (
    create_network,
    kind_of,
    own_builder,
    require_sides,
    require_training_sides,
)

OWN = "flyweight.zoo.segmenters.segmenter_models:unet"


def config_of(*overrides):
    return load_config("demo_digits", ("width=0.1", *overrides))[1]


def test_a_network_of_the_zoo():
    config = config_of()
    assert own_builder(config) is None
    assert kind_of(config) == "detect"
    assert kind_of(config_of("task=detect")) == "detect"
    model = weightless(config)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_network_of_another_library_has_memory():
    config = config_of("model=timm/mobilenetv2_035", "width=null")
    assert kind_of(config) == "classify"
    assert not any(parameter.is_meta for parameter in weightless(config).parameters())


def test_a_network_of_ones_own():
    config = config_of(f"model={OWN}", "task=segment", "width=0.125", "num_classes=3")
    model = create_network(config)
    assert origin_of(model).architecture == OWN
    assert origin_of(model).arguments == {"num_classes": 3, "width": 0.125}
    assert kind_of(config) == "segment"


def test_tasks_that_cannot_be_meant():
    with pytest.raises(ConfigError, match=f"model '{OWN}' without one. Add: -o task="):
        kind_of(config_of(f"model={OWN}"))
    with pytest.raises(
        ConfigError, match=r"'segment' for 'yolov3_mobilenet_v1'.*whose task is 'detect'"
    ):
        kind_of(config_of("task=segment"))


def test_sizes_are_those_that_the_network_can_take():
    for told, size in (("input_size=300", 300), ("input_size=[320, 100]", 100)):
        with pytest.raises(ConfigError, match=f"multiples of 32. Received {size} in input_size"):
            weightless(config_of(told))
    with pytest.raises(ConfigError, match=r"Received 20 in input_size\. Give 32\."):
        create_network(config_of("input_size=20"))
    require_sides(OWN, Preprocessing(height=33, width=33))
    require_sides("ssdlite_mobilenet_v3_small", Preprocessing(height=33, width=33))
    require_training_sides(config_of("augment.multi_scale=[320, 352]"))
    with pytest.raises(
        ConfigError, match=r"Received 330 in augment\.multi_scale\. Give 320 or 352"
    ):
        require_training_sides(config_of("augment.multi_scale=[320, 330]"))
