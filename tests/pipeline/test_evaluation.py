import pytest

from flyweight.config.reading import load_config
from flyweight.data.loading import open_set
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.network_plans import build_model

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=3")
CONFIG = load_config("demo_digits", SMALL)[1]


def test_metrics_of_an_untrained_network():
    metrics = evaluate_model(build_model(CONFIG), CONFIG, open_set(CONFIG.data, "val"))
    assert metrics["map_50"] == pytest.approx(0, abs=0.2)
