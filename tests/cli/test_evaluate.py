from pathlib import Path

import pytest

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=2", "data.val_count=2")
FAST = ("train.num_workers=0", "train.precision=32")
CONFIG = load_config("demo_digits", (*SMALL, *FAST))[1]
TOLD = ("-c", "demo_digits", "-o", *SMALL, *FAST)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "output/demo_digits/best_model.safetensors"
    Saver(CONFIG, tuple("0123456789"), "detect")(build_model(CONFIG), {}, path)
    return path


@pytest.fixture
def evaluated(monkeypatch):
    """Do not evaluate; return what would have been."""
    calls = []

    def evaluate(model, config, box_set, *, save_to, progress):
        calls.append((model, config, box_set, save_to))
        return {"map_50": 0.5, "ap_50/7": float("nan")}

    monkeypatch.setattr("flyweight.pipeline.evaluation.evaluate_model", evaluate)
    return calls


def test_eval_takes_the_best_checkpoint_of_the_folder(flyweight, saved, evaluated):
    answer = flyweight("eval", *TOLD, "--json")
    assert answer.json == {
        "metrics": {"map_50": 0.5, "ap_50/7": None},
        "checkpoint": "output/demo_digits/best_model.safetensors",
    }
    assert flyweight("eval", *TOLD).out.splitlines()[0] == "map_50    50.00 %"
    _, config, box_set, save_to = evaluated[0]
    assert (config, len(box_set), save_to) == (CONFIG, 2, None)


def test_eval_at_several_sizes(flyweight, saved, evaluated):
    """As the originals' face_eval spelled it."""
    assert flyweight("eval", *TOLD, "--multi_scale", "-f", "pred").status == 0
    _, config, _, save_to = evaluated[0]
    assert config.detect.test == "multi_scale"
    assert save_to == Path("pred")


def test_eval_with_ratios_cuts_what_is_not_pruned(flyweight, saved, evaluated):
    cut = ("-p", "yolo_block.0.0.0.conv.weights", "--pruned_ratios", "0.5")
    answer = flyweight("eval", *TOLD, *cut)
    assert (
        answer.err == f"note: {saved.relative_to(saved.parents[2])} is not pruned; it was cut now\n"
    )
    assert evaluated[0][0].get_parameter("yolo_block.0.0.0.conv.weight").shape[0] == 24
