"""Every family of detectors: trained briefly, evaluated, pruned, saved, exported, measured."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from flyweight.config.measuring import BenchConfig
from flyweight.config.reading import load_config
from flyweight.data.images import image_of, prepare
from flyweight.data.loading import open_set
from flyweight.exporting.exported_model import ExportedModel
from flyweight.graph.example_inputs import tensors_in
from flyweight.measuring.measure import measure
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import Saver, open_checkpoint, open_data
from flyweight.pipeline.network_plans import build_model, trace_model
from flyweight.pipeline.prediction import place_detections
from flyweight.pipeline.stages.export import export_model, images_to_compare
from flyweight.pipeline.stages.train import train_model
from flyweight.pruning import plan, prune
from flyweight.tasks.one_image import one_image_batch

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
BRIEF = BenchConfig(runs=8, seconds=0.2, blocks=8, warmup=1)
TWO_STAGES = "{proposals: 16, samples: 16, freeze_norm: false}"
FAMILIES = {
    "yolov3_mobilenet_v3": ("width=0.1",),
    "yolov3_r34": ("width=0.1",),
    "yolov3_r50vd_dcn": ("width=0.1",),
    "ssdlite_mobilenet_v3_small": ("width=0.25",),
    "blazeface_lite": (),
    "blazeface_nas_v2": ("model_args.kernel_size=3",),
    "faster_rcnn_r50": ("width=0.125", f"model_args={TWO_STAGES}"),
    "cascade_rcnn_mobilenet_v3_320": ("width=0.25", f"model_args={TWO_STAGES}"),
}


def assert_same(one, other, image):
    with torch.no_grad():
        pairs = zip(tensors_in(one.eval()(image)), tensors_in(other.eval()(image)), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


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
    assert loaded.checkpoint.origin.architecture == name
    image = prepare(image_of(data.val, 0), config.preprocessing)[None]
    assert_same(loaded.model, small, image)

    images = images_to_compare(open_set(config.data, "val"), config.preprocessing)
    exported = export_model(loaded, tmp_path / "small.onnx", images=images)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    found = dict(
        zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"images": image.numpy()}),
            strict=True,
        )
    )
    batch_boxes = loaded.task.decoder()(loaded.model(image))
    assert found["boxes"].shape == (1, loaded.task.suppression.keep, 4)
    assert 0 < found["counts"][0] <= batch_boxes[1].numel()
    assert found["scores"][0, 0] == pytest.approx(batch_boxes[1].max().item(), rel=1e-3)

    measured = measure([exported.path], threads=(1,), config=BRIEF)[0]
    assert 0 < measured.interval_ms[0] <= measured.median_ms <= measured.interval_ms[1]


def outlined_set(root):
    """Write images of bright rectangles with their outlines, as COCO does."""
    root.mkdir()
    for split, corners in (("train", [(4, 6), (20, 12), (30, 28)]), ("val", [(12, 20)])):
        images, annotations = [], []
        for index, (left, top) in enumerate(corners):
            pixels = np.full((48, 64, 3), 30, dtype=np.uint8)
            pixels[top : top + 18, left : left + 26] = (220, 40 + 60 * index, 90)
            Image.fromarray(pixels).save(root / f"{split}{index}.png")
            images.append({"id": index, "file_name": f"{split}{index}.png"})
            right, bottom = left + 26, top + 18
            outline = [left, top, right, top, right, bottom, left, bottom]
            known = {"id": index + 1, "image_id": index, "category_id": 1 + index % 2}
            annotations.append(known | {"bbox": [left, top, 26, 18], "segmentation": [outline]})
        categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_masks_from_training_to_the_exported_file(tmp_path):
    outlined_set(tmp_path / "set")
    where = (f"data.root={tmp_path / 'set'}", "data.train=train.json", "data.val=val.json")
    where += ("data.images=.",)
    arguments = TWO_STAGES.replace("}", ", freeze_at: 0}")
    tiny = (
        option for option in TINY if not option.startswith(("data.", "train.batch", "train.warm"))
    )
    overrides = ("num_classes=2", "width=0.125", f"model_args={arguments}", *where, *tiny)
    overrides += ("train.batch_size=2", "train.warmup_steps=0", "train.milestones=[]")
    config = load_config("mask_rcnn_r50_1x", overrides)[1]
    data = open_data(config)
    dense = build_model(config)
    trained = train_model(dense, config, config.train, data, tmp_path / "run")
    assert {"map", "mask_map"} <= trained.last_metrics.keys()
    small = prune(dense.eval(), plan(trace_model(dense, config.preprocessing), 0.5))
    assert "mask_map_50" in evaluate_model(small, config, data.val)

    path = tmp_path / "small.safetensors"
    Saver(config, data.labels, "detect")(small, {}, path)
    loaded = open_checkpoint(path)
    image = image_of(data.val, 0)
    assert_same(loaded.model, small, prepare(image, config.preprocessing)[None])

    images = images_to_compare(data.val, config.preprocessing)
    exported = export_model(loaded, tmp_path / "small.onnx", images=images)
    assert exported.max_error["masks"] < 1e-3
    outputs = ExportedModel(exported.path).run(prepare(image, config.preprocessing)[None])
    batch = one_image_batch(image, config.preprocessing)
    theirs = place_detections(outputs, batch, ())
    with torch.no_grad():
        ours = loaded.task.decode(loaded.model(batch.images), batch)[0]
    assert theirs.masks.shape == (len(theirs.scores), 48, 64)
    torch.testing.assert_close(theirs.boxes[:5], ours.boxes[:5], rtol=1e-3, atol=0.1)
    assert (theirs.masks[:5] == ours.masks[:5]).float().mean() > 0.99
    drawn = loaded.task.draw(image.permute(1, 2, 0).numpy(), ours, threshold=0.0)
    assert drawn.shape == (48, 64, 3)
