"""The old commands and the new ones, one after the other, on the built-in data, tiny."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.data.layouts.digits import make_digits
from flyweight.errors import MeasureError

pytestmark = [
    pytest.mark.slow,
    # torch's TensorBoard writer and exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]

TRAIN = ("steps=6", "batch_size=4", "warmup_steps=2", "num_workers=0", "precision=32")
TINY = (
    *("width=0.1", "input_size=64", "data.size=64", "data.train_count=12", "data.val_count=5"),
    *("eval_batch_size=5", "train.evaluate_every=3", "finetune.evaluate_every=3"),
    *(f"{part}.{value}" for part in ("train", "finetune") for value in TRAIN),
    *("bench.threads=[1]", "bench.seconds=0.1"),
)
NAMES = [f"yolo_block.0.{place}.conv.weights" for place in ("0.0", "0.1", "1.0")]
RATIOS = ("--pruned_params", ",".join(NAMES), "--pruned_ratios=0.2,0.3,0.4")
FOLDER = Path("output/demo_digits")


def digits(folder, count=2):
    folder.mkdir(parents=True)
    box_set = make_digits("val", count, size=64)
    for index in range(count):
        Image.fromarray(box_set.image(index)).save(folder / f"{index}.png")
    return folder


def test_the_old_commands(flyweight, tmp_path):
    config = ("-c", "./configs/demo_digits.yml")
    bare = str(FOLDER / "model_final")

    trained = flyweight("train", *config, "-o", *TINY, "--json").json
    assert set(trained) == {"metrics", "checkpoint", "seconds"}
    assert "map_50" in trained["metrics"]
    assert read(trained["checkpoint"]).labels == tuple("0123456789")

    dense = flyweight("eval", *config, "-o", *TINY, f"weights={bare}", "--json")
    assert dense.json["checkpoint"] == f"{bare}.safetensors"
    assert dense.err == ""

    pruned = flyweight(
        *("prune", *config, "-o", *TINY, f"weights={bare}", "prune.repair_images=8"),
        *(*RATIOS, "--eval", "--repair", "--json"),
    )
    assert pruned.json["before"]["macs"] > pruned.json["after"]["macs"]
    assert "before fine-tuning" in pruned.err
    assert "repair: on 8 training images, without labels" in pruned.err
    assert [row["step"] for row in pruned.json["repair"]] == ["cut", "constants", "least squares"]
    assert "before_pruning.safetensors' keeps this one" in pruned.err
    kept, small = read(FOLDER / "before_pruning.safetensors"), read(f"{bare}.safetensors")
    assert (len(kept.plans), len(small.plans)) == (0, 1)
    assert {name: len(group.keep) for name, group in small.plans[0].groups.items()} == {
        "yolo_block.0.0.0.conv.weight": 38,
        "yolo_block.0.0.1.conv.weight": 67,
        "yolo_block.0.1.0.conv.weight": 29,
    }

    told = ("-o", "width=0.1", "data.size=64", "data.val_count=5", f"weights={bare}")
    plain = flyweight("eval", *config, *told, "--json")
    again = flyweight("eval", *config, *told, *RATIOS, "--json")
    assert plain.json == again.json
    assert (plain.err, again.err) == ("", "")
    best = flyweight("eval", *config, *told[:-1], "--json").json
    assert best["metrics"] == pytest.approx(pruned.json["metrics"], nan_ok=True)
    wrong = flyweight("eval", *config, *told, *RATIOS[:2], "--pruned_ratios=0.2,0.3,0.5")
    assert "Ratios given for a pruned checkpoint must be" in wrong.mistake

    exports_agree_and_are_measured(flyweight, config, told, digits(tmp_path / "pictures"))


def exports_agree_and_are_measured(flyweight, config, told, pictures):
    # Six steps teach too little for the usual threshold.
    told = (*told, "detect.suppression.score_threshold=1e-4", "detect.suppression.keep=10")
    files = {}
    for end, more in (("detections", RATIOS), ("decoded", ()), ("raw", ())):
        folder = Path("export") / end
        answer = flyweight(
            "export", *config, *told, *more, "--end", end, "--output_dir", folder, "--json"
        )
        assert answer.status == 0, answer.err
        files[end] = Path(answer.json["path"])
        assert files[end] == folder / "demo_digits" / "model.onnx"
        assert files[end].is_file()
        assert Path(answer.json["sidecar"]).is_file()

    shown = ("--draw-threshold", "0", "--json")
    ours = flyweight("predict", pictures, *config, *told, *shown, "--output_dir", "ours").json
    exported = flyweight("predict", "--infer_dir", pictures, "-w", files["detections"], *shown)
    theirs = exported.json
    assert ours.keys() == theirs.keys() == {str(pictures / f"{index}.png") for index in range(2)}
    for name, found in ours.items():
        assert found
        assert [item["label"] for item in found] == [item["label"] for item in theirs[name]]
        for mine, other in zip(found, theirs[name], strict=True):
            assert mine["box"] == pytest.approx(other["box"], abs=0.2)
            assert mine["score"] == pytest.approx(other["score"], abs=1e-3)
        assert (Path("ours") / Path(name).name).is_file()

    measured = flyweight(
        *("bench", files["raw"], files["detections"], "--threads", "1"),
        *("--seconds", "0.1", "--runs", "16", "--json"),
    ).json
    assert len(measured["measurements"]) == 2
    assert all(row["median_ms"] > 0 for row in measured["measurements"])


def test_a_resumed_training_ends_as_an_uninterrupted_one(flyweight, monkeypatch):
    whole = flyweight("train", "-c", "demo_digits", "-o", *TINY, "save_dir=whole")
    assert whole.status == 0, whole.err

    from flyweight.engine.loop import Training

    optimize = Training._optimize

    def cut_off(self, batch, step):
        if step == 4:
            raise KeyboardInterrupt
        return optimize(self, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_optimize", cut_off)
        stopped = flyweight("train", "-c", "demo_digits", "-o", *TINY, "save_dir=cut")
    assert stopped.status == 130
    assert stopped.err.splitlines()[-1].startswith("stopped; continue with -r: flyweight train")

    resumed = flyweight("train", "-c", "demo_digits", "-o", *TINY, "save_dir=cut", "--resume")
    assert resumed.status == 0, resumed.err
    assert "resumed from 'cut/demo_digits/state/last.safetensors' after step 3/6" in resumed.err
    states = [
        fw.load(f"{folder}/demo_digits/model_final.safetensors").state_dict()
        for folder in ("whole", "cut")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_chain(flyweight, monkeypatch):
    demo = ("demo", "-o", *TINY, "finetune.steps=4", "--output-dir", "run")

    from flyweight.pipeline.stages import export

    def dies(*_, **__):
        raise MeasureError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(export, "export_model", dies)
        cut_off = flyweight(*demo)
    assert cut_off.status == 2
    assert cut_off.err.splitlines()[-1] == "error: the power went out"

    first = flyweight(*demo)
    assert first.status == 0, first.err
    for line in ("dense: finished before", "pruned: finished before", "export: resumed where"):
        assert line in first.err
    assert "report: run/report.html" in first.out
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "<html" in page

    second = flyweight(*demo, "--json")
    assert second.err.count("finished before") == 5
    report = second.json
    assert [row["stage"] for row in report["rows"]] == ["dense", "pruned"]
    rendered = flyweight("report", "run", "--json")
    assert rendered.json == report
