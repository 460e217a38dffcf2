import pytest

from flyweight.config.reading import load_config
from flyweight.data.loading import open_set
from flyweight.errors import ConfigError
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.exported_evaluation import evaluate_exported, open_exported
from flyweight.pipeline.inputs import Saver, open_checkpoint
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.stages.export import export_model

SMALL = ("data.size=64", "data.val_count=6", "input_size=64")
NETWORKS = {
    "detect": ("demo_digits", ("width=0.1",)),
    "classify": ("classify_quick", ()),
    "segment": ("segment_quick", ()),
}

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


@pytest.mark.parametrize(("kind", "end"), [("detect", ""), ("classify", ""), ("segment", "raw")])
def test_a_file_has_the_metrics_of_its_network(tmp_path, kind, end):
    name, more = NETWORKS[kind]
    config = load_config(name, (*SMALL, *more))[1]
    images = open_set(config.data, "val")
    saved = tmp_path / "net.safetensors"
    Saver(config, images.labels, kind)(build_model(config), {}, saved)
    loaded = open_checkpoint(saved)
    file = tmp_path / "net.onnx"
    export_model(loaded, file, end=end)
    found = evaluate_exported(open_exported(file, config), config, images)
    wanted = evaluate_model(loaded.model, config, images, progress=False)
    assert found == pytest.approx(wanted, abs=1e-3, nan_ok=True)


def test_a_file_of_another_task_is_refused(tmp_path):
    config = load_config("classify_quick", SMALL)[1]
    saved, file = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    Saver(config, tuple("0123456789"), "classify")(build_model(config), {}, saved)
    export_model(open_checkpoint(saved), file)
    other = load_config("demo_digits", SMALL)[1]
    with pytest.raises(ConfigError, match=r"the config's task, detect.*which is to classify"):
        open_exported(file, other)


def test_a_detector_without_detections_is_refused(tmp_path):
    config = load_config("demo_digits", (*SMALL, "width=0.1"))[1]
    saved, file = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {}, saved)
    export_model(open_checkpoint(saved), file, end="raw")
    with pytest.raises(ConfigError, match="--end detections"):
        open_exported(file, config)
