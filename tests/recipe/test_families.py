"""Every family of detectors: trained briefly, evaluated, pruned, saved, exported, loaded."""

import numpy as np
import onnxruntime
import pytest
import torch

from flyweight.data.loading import open_set
from flyweight.data.pictures import picture_of, prepare
from flyweight.pruning import plan, prune
from flyweight.recipe.config import load_config
from flyweight.recipe.cut import build_model, trace_model
from flyweight.recipe.session import Saver, open_checkpoint, open_data
from flyweight.recipe.stages import (
    evaluate_model,
    export_model,
    pictures_to_compare,
    train_model,
)

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]

TINY = (
    *("input_size=64", "data.size=64", "data.train_count=12", "data.val_count=3"),
    *("train.steps=3", "train.batch_size=4", "train.warmup_steps=1", "train.num_workers=0"),
    *("train.evaluate_every=3", "eval_batch_size=3", "detect.suppression.score_threshold=0.001"),
)
FAMILIES = {
    "yolov3_mobilenet_v3": ("width=0.1",),
    "yolov3_r34": ("width=0.1",),
    "yolov3_r50vd_dcn": ("width=0.1",),
    "ssdlite_mobilenet_v3_small": ("width=0.25",),
    "blazeface_lite": (),
    "blazeface_nas_v2": ("model_args.kernel_size=3",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_from_training_to_the_exported_file(name, tmp_path):
    overrides = (f"model={name}", "width=null", *FAMILIES[name], *TINY)
    config = load_config("demo_digits", overrides)[1]
    data = open_data(config)
    dense = build_model(config)
    trained = train_model(dense, config, config.train, data, tmp_path / "run")
    assert np.isfinite(trained.last_metrics["map_50"])

    graph = trace_model(dense.eval(), config.preprocessing)
    made = plan(graph, 0.5)
    small = prune(dense, made)
    assert made.cost(graph).macs < 0.5 * graph.cost().macs
    metrics = evaluate_model(small, config, data.val)

    path = tmp_path / "small.safetensors"
    Saver(config, data.labels, "detect")(small, metrics, path)
    loaded = open_checkpoint(path)
    assert loaded.checkpoint.lineage.architecture == name
    picture = prepare(picture_of(data.val, 0), config.preprocessing)[None]
    with torch.no_grad():
        for mine, theirs in zip(loaded.model.eval()(picture), small.eval()(picture), strict=True):
            assert torch.equal(mine, theirs)

    pictures = pictures_to_compare(open_set(config.data, "val"), config.preprocessing)
    exported = export_model(loaded, tmp_path / "small.onnx", pictures=pictures)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    found = dict(
        zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"images": picture.numpy()}),
            strict=True,
        )
    )
    batch_boxes = loaded.task.decoder()(loaded.model(picture))
    assert found["boxes"].shape == (1, loaded.task.suppression.keep, 4)
    assert 0 < found["counts"][0] <= batch_boxes[1].numel()
    assert found["scores"][0, 0] == pytest.approx(batch_boxes[1].max().item(), rel=1e-3)
