import shutil

import pytest
import torch

import flyweight as fw
from flyweight import checkpoint
from flyweight.config.cuts import RatioCut
from flyweight.config.reading import load_config
from flyweight.errors import FileError
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.folder_report import build_folder_report
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model, plan_cut, trace_model
from flyweight.pipeline.quantized_files import FLOAT, QuantizedFiles
from flyweight.pipeline.rendered_report import report
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.progress import SILENT
from flyweight.pruning import prune
from flyweight.report.collect import read_report
from flyweight.report.quantization_results import QuantizationResult, QuantizedLayer

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=2", "data.val_count=3")
CONFIG = load_config("demo_digits", (*SMALL, "train.num_workers=0"))[1]
RECORD = QuantizationResult(
    metric="map_50",
    runtime="onnxruntime",
    metrics={"map_50": {"float": 0.8, "int8": 0.75}},
    layers=(
        QuantizedLayer(name="first", precision="int8", loss=0.1),
        QuantizedLayer(name="second", precision="float32", reason="named by the option to skip"),
    ),
    file_bytes={"float": 400, "int8": 100},
)
CUT = "yolo_block.0.0.0.conv.weight"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `flyweight train` leaves, and the same with a pruned network."""
    folder = tmp_path_factory.mktemp("runs")
    save = Saver(CONFIG, tuple("0123456789"), "detect", measured_on="digits/val")
    model = build_model(CONFIG).eval()
    save(model, {"map_50": 0.8}, folder / "alone" / "best_model.safetensors")
    (folder / "alone" / "logs").mkdir()
    (folder / "alone" / "logs" / "train.csv").write_text("step,loss\n1,3.5\n2,2.5\n")
    (folder / "alone" / "model.onnx").write_bytes(b"onnx")
    plan = plan_cut(trace_model(model, CONFIG.preprocessing), RatioCut((CUT,), (0.5,)))
    save(model, {"map_50": 0.8}, folder / "both" / "before_pruning.safetensors")
    save(prune(model, plan), {"map_50": 0.7}, folder / "both" / "best_model.safetensors")
    (folder / "both" / "plan.json").write_text(plan.to_json())
    return folder


def test_a_training_by_hand(trained):
    made = build_folder_report(trained / "alone", None, SILENT)
    assert made.stages == ("dense",)
    numbers = made.rows[0].quantities
    assert numbers["metric"].value == 0.8
    assert numbers["metric"].method == "over digits/val"
    assert numbers["file_size"].value == 4
    assert numbers["macs"].value > 0
    assert [curve.y for curve in made.curves] == [(3.5, 2.5)]


def test_a_pruning_by_hand(trained):
    made = build_folder_report(trained / "both", None, SILENT)
    assert made.stages == ("dense", "pruned")
    dense, pruned = (row.quantities for row in made.rows)
    assert dense["macs"].value > pruned["macs"].value
    widths = {width.name: (width.before, width.after) for width in made.widths}
    assert widths[CUT] == (48, 24)


def test_a_network_that_was_pruned_twice(trained, tmp_path):
    for source, name in (("before_pruning", "dense/best_model"), ("best_model", "before_pruning")):
        target = tmp_path / f"{name}.safetensors"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(trained / "both" / f"{source}.safetensors", target)
    small = fw.load(tmp_path / "before_pruning.safetensors")
    plan = plan_cut(trace_model(small, CONFIG.preprocessing), RatioCut((CUT,), (0.5,)))
    save = Saver(CONFIG, tuple("0123456789"), "detect")
    save(prune(small, plan), {"map_50": 0.6}, tmp_path / "best_model.safetensors")
    made = build_folder_report(tmp_path, None, SILENT)
    assert made.stages == ("dense", "pruned before", "pruned")
    macs = [row.quantities["macs"].value for row in made.rows]
    assert macs == sorted(macs, reverse=True)
    assert len({*macs}) == 3


def test_the_data_of_a_config_are_evaluated(trained):
    made = report(trained / "both", CONFIG).report
    metric = made.rows[1].quantities["metric"]
    # Networks without training find nothing, on every resample.
    assert (metric.low, metric.high, metric.difference) == (0.0, 0.0, (0.0, 0.0))
    assert [image.stage for image in made.images[:3]] == ["ground truth", "dense", "pruned"]
    assert len(made.images) == 3 * 3
    assert sum(one.count for one in made.class_results.classes) > 0
    page = (trained / "both" / "report.html").read_text()
    assert "Results by class" in page
    # Without a config the same report is rendered again.
    assert report(trained / "both").report == made


def test_a_distillation_by_hand(trained, tmp_path):
    shutil.copytree(trained / "both", tmp_path / "run")
    (tmp_path / "run" / "distilled").mkdir()
    small = fw.load(tmp_path / "run" / "best_model.safetensors")
    distilled = tmp_path / "run" / "distilled" / "best_model.safetensors"
    Saver(CONFIG, tuple("0123456789"), "detect")(small, {"map_50": 0.75}, distilled)
    made = report(tmp_path / "run", CONFIG).report
    assert made.stages == ("dense", "pruned", "distilled")
    assert made.class_results.stages == made.stages
    shown = ["ground truth", "dense", "pruned", "distilled"]
    assert [image.stage for image in made.images[:4]] == shown
    assert made.notes[0].startswith("Classes that the cut lowered: 0;")


@pytest.mark.parametrize(("metric", "detail"), [("coco", "COCO"), ("wider", "faces, hard")])
def test_the_metric_is_that_of_the_config(trained, tmp_path, metric, detail):
    model = fw.load(trained / "alone" / "best_model.safetensors")
    Saver(CONFIG, tuple("0123456789"), "detect")(model, {}, tmp_path / "best_model.safetensors")
    detect = CONFIG.detect.model_copy(update={"metric": metric})
    made = report(tmp_path, CONFIG.model_copy(update={"detect": detect})).report
    found = made.rows[0].quantities["metric"]
    assert next(iter(made.rows[0].quantities)) == "metric"
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert detail in (tmp_path / "report.md").read_text()
    assert found.method == "over 3 images of digits/val"


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(FileError, match="a report or a checkpoint"):
        build_folder_report(tmp_path, None, SILENT)


def test_a_quantized_network_is_compared_with_the_file_of_its_float_one(trained, tmp_path):
    folder = shutil.copytree(trained / "alone", tmp_path / "run")
    (folder / "model.onnx").unlink()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = fw.quantize(checkpoint.load(folder / "best_model.safetensors"), images)
    save = Saver(CONFIG, tuple("0123456789"), "detect", measured_on="digits/val")
    files = QuantizedFiles(folder / "quantized.safetensors")
    digest = digest_of_checkpoint(folder / "best_model.safetensors")
    note_parent(small, Parent(FLOAT, digest))
    save(small, {"map_50": 0.75}, files.checkpoint)
    files.networks["float"].write_bytes(b"400 bytes!" * 40)
    files.networks["int8"].write_bytes(b"onnx" * 25)
    files.record.write_text(RECORD.to_json())
    made = build_folder_report(folder, None, SILENT)
    assert made.stages == ("dense", "quantized")
    dense, quantized = (row.quantities for row in made.rows)
    assert (dense["file_size"].value, quantized["file_size"].value) == (400, 100)
    assert quantized["metric"].value == 0.75
    assert "macs" not in quantized
    assert [curve.series for curve in made.curves] == ["dense"]
    shown = report(folder)
    assert shown.report.quantization == RECORD
    assert "bytes of the ONNX file" in dense["file_size"].method
    page = shown.page.read_text()
    assert "1 of 2 layers run on integers in ONNX Runtime." in page
    assert read_report(folder).quantization == RECORD
