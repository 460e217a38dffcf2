import pytest

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.progress import Silent

TINY = (
    *("width=0.1", "input_size=64", "data.size=64", "data.train_count=8", "data.val_count=3"),
    *("train.steps=3", "train.batch_size=4", "train.warmup_steps=0", "train.evaluate_every=3"),
    *("finetune.steps=2", "finetune.batch_size=4", "finetune.warmup_steps=0"),
    *("train.num_workers=0", "finetune.num_workers=0", "eval_batch_size=3"),
    *("bench.threads=[1]", "bench.seconds=0.1"),
)
LAYER = "yolo_block.0.0.0.conv.weight"


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def config_of(tmp_path):
    """Return a tiny config with overrides, whose run folder is in the test's folder."""

    def read(*overrides):
        told = (*TINY, f"save_dir={tmp_path / 'output'}", *overrides)
        return load_config("demo_digits", told)[1]

    return read


@pytest.fixture
def dense(tmp_path, config_of):
    """The checkpoint of an untrained network."""
    path = tmp_path / "dense.safetensors"
    config = config_of()
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {"map_50": 0.5}, path)
    return path
