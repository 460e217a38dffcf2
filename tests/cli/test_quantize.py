import pytest
import torch

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=3")
GIVEN = ("-c", "demo_digits", "-o", *SMALL, "quantize.weight_bits=7", "train.num_workers=0")

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


@pytest.fixture
def saved(tmp_path):
    config = load_config("demo_digits", SMALL)[1]
    path = tmp_path / "digits.safetensors"
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {}, path)
    return path


def test_quantize_as_json_then_eval_predict_and_export_its_files(flyweight, saved, tmp_path):
    answer = flyweight("quantize", *GIVEN, "-w", saved, "--skip", "yolo_output", "--json")
    assert answer.status == 0, answer.err
    found = answer.json
    assert set(found) == {"checkpoint", "onnx", "runtime", "metric", "layers", "file_bytes"}
    assert found["checkpoint"] == "output/demo_digits/quantized.safetensors"
    assert found["runtime"] == "onnxruntime"
    assert set(found["metric"]) == set(found["file_bytes"]) == {"float", "int8"}
    assert found["layers"]["integer"] == 47
    assert set(found["layers"]["float"]) == {
        f"yolo_output.{place}.conv.conv2d" for place in range(3)
    }

    measured = flyweight("eval", *GIVEN, "-w", found["onnx"], "--json")
    assert measured.json["metrics"]["map_50"] == found["metric"]["int8"]
    fake = flyweight("eval", *GIVEN, "-w", found["checkpoint"], "--json")
    assert fake.json["metrics"]["map_50"] == pytest.approx(found["metric"]["int8"], abs=0.1)

    again = flyweight("export", "-w", found["checkpoint"], "--json")
    assert again.json["operators"]["QuantizeLinear"] > 40


@pytest.mark.slow
def test_precisions_by_latency_as_json_and_as_text(flyweight, saved, tmp_path):
    given = ("quantize", *GIVEN, "-w", saved, "--precision", "auto")
    answer = flyweight(*given, "--json")
    assert answer.status == 0, answer.err
    found = answer.json
    latency, layers = found["latency"], found["layers"]
    assert latency["runtime"] == "onnxruntime"
    assert latency["precision"] in ("float", "mixed", "int8")
    assert latency["precision"] == "float" or latency["ratio"] > 1
    assert layers["integer"] + len(layers["float"]) == 50
    assert all(" ms " in reason for reason in layers["float"].values())
    assert (tmp_path / "output" / "demo_digits" / "quantized.precision.json").is_file()
    measured = flyweight("eval", *GIVEN, "-w", found["onnx"], "--json")
    assert measured.json["metrics"]["map_50"] == found["metric"]["int8"]


def test_the_cost_of_each_layer(flyweight, saved, tmp_path):
    answer = flyweight("quantize", *GIVEN, "-w", saved, "--sensitivity", "--json")
    rows = answer.json["layers"]
    assert len(rows) == 50
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert 0 < losses[0] < 1
    table = flyweight("quantize", *GIVEN, "-w", saved, "--sensitivity", "--skip", "yolo_output")
    assert len(table.out.splitlines()) == 48
    assert not (tmp_path / "output" / "demo_digits" / "quantized.safetensors").exists()


def test_exact_files_have_the_bits_of_pytorch(flyweight, saved):
    given = ("quantize", *GIVEN, "-w", saved, "--exact", "--json")
    found = flyweight(*given).json
    exported = flyweight("export", "-w", found["checkpoint"], "--end", "raw", "--json").json
    assert set(exported["max_error"].values()) == {0.0}


def test_the_table_names_both_files_and_each_step(flyweight, saved):
    more = ("quantize.reconstruct=blocks", "quantize.reconstruct_steps=2", "quantize.images=2")
    answer = flyweight("quantize", *GIVEN, *more, "-w", saved)
    first, *rows = answer.out.splitlines()
    assert first.split() == ["float", "int8"]
    assert rows[0].startswith("map_50")
    assert [row.split("  ")[0] for row in rows if row.startswith(("calib", "recon"))]
    assert "50 of 50 layers run on integers in ONNX Runtime" in answer.out
    assert answer.out.splitlines()[-1].startswith("saved output/demo_digits/quantized.safetensors")


def test_only_the_same_training_is_resumed(flyweight, saved, tmp_path):
    train = ("finetune.steps=2", "finetune.batch_size=2", "finetune.warmup_steps=0")
    given = ("quantize", *GIVEN, *train, "finetune.num_workers=0", "quantize.images=2")
    given = (*given, "--mode", "aware")
    first = flyweight(*given, "-w", saved)
    assert first.status == 0, first.err
    folder = tmp_path / "output" / "demo_digits"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    config = load_config("demo_digits", SMALL)[1]
    model, other = build_model(config), tmp_path / "other.safetensors"
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    Saver(config, tuple("0123456789"), "detect")(model, {}, other)
    refused = flyweight(*given, "-w", other, "--overwrite", "-r").mistake
    assert "'output/demo_digits/quantization_training', where now weights of train" in refused
    refused = flyweight(*given, "-w", saved, "--skip", "yolo_output", "-r").mistake
    assert 'where now quantize.skip was [] and is ["yolo_output"]. Give what' in refused
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    # A quantization without training in between does not hide whose state it is.
    assert flyweight("quantize", *GIVEN, "-w", other, "--overwrite").status == 0
    again = flyweight(*given, "-w", other, "--overwrite", "-r")
    assert "weights of train changed" in again.mistake
    # The name of the result is no part of the training.
    own = flyweight(*given, "-w", saved, "--output", "own.safetensors", "-r")
    assert own.status == 0, own.err
    assert "resumed from" in own.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mode", "qat"), "--mode must be one of post, aware. Received 'qat'"),
        (("--precision", "int4"), "--precision must be one of int8, auto. Received 'int4'"),
        (("--budget", "macs=0.5"), "must limit latency_ms or latency_share. Received macs=0.5"),
        (("--budget", "fast"), "A budget must read QUANTITY=NUMBER"),
        (("-o", "quantize.budget=macs=0.5"), "Received 'macs=0.5' for 'quantize.budget'"),
        (("-o", "quantize.reconstruct=blocks", "--exact"), "which exact scales; leave one"),
        (("--budget", "latency_share=0.5", "--exact"), "leave out exact, or precision and budget"),
        (("--precision", "auto", "--exact"), "whose last bits differ between runtimes"),
        (("--runtime", "tensorrt"), "A runtime must be one of onnxruntime, openvino"),
        (("--skip", "nothing"), "A pattern to skip must match a layer. Received 'nothing'"),
        (("-w", "none"), "A file of weights must exist. Received 'none'"),
        (("--output", "a.onnx"), "--output 'a.onnx'"),
    ],
)
def test_mistakes_are_one_line(flyweight, saved, more, message):
    given = more if "-w" in more else ("-w", saved, *more)
    assert message in flyweight("quantize", *GIVEN, *given).mistake


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--output-eval", "folder"), "evaluated as it is. Received --output-eval"),
        (("--multi-scale",), "evaluated as it is. Received detect.test=multi_scale"),
        (("-p", "a.weight", "--pruned-ratios", "0.5"), "Received --pruned-params"),
    ],
)
def test_an_exported_file_is_evaluated_as_it_is(flyweight, tmp_path, more, message):
    (tmp_path / "net.onnx").write_bytes(b"no ONNX")
    assert message in flyweight("eval", *GIVEN, "-w", "net.onnx", *more).mistake


def test_a_file_that_is_no_export_is_refused(flyweight, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no ONNX")
    assert "'net.onnx' must be" in flyweight("eval", *GIVEN, "-w", "net.onnx").mistake
